"""Features over a cluster, on Ray: workers that die are replaced, partitions that are there are not made again.

`Embedder` is for people who have a pipeline of Ray Data. `extract_partitions` needs none: it deals a dataset of the zoo
out to workers, each of which loads the encoder once, and writes Parquet files with the rows of `zoo.features.samples`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from zoo.checkpoint.loading import load
from zoo.data.addresses import open_dataset
from zoo.data.base import Dataset
from zoo.errors import DataError, InputError
from zoo.features.extract import embed, extract
from zoo.features.samples import Samples
from zoo.files import disk_errors, locked, write_text

PLAN = "plan.json"
#: Columns of a batch of Ray Data that may hold the pictures, in this order.
PICTURES = ("image", "bytes", "path")


class Embedder:
    """What `map_batches` of Ray Data calls: pictures in, a column `embedding` out.

    Args:
        address: of the encoder, as `zoo.load` takes it; every worker loads it once.
        column: which holds the pictures: arrays, bytes or paths; None takes `image`, `bytes` or `path`.
        options: of `zoo.extract`: `batch_size`, `device`, `precision`, `workers`.

    Example:
        ray.data.read_images(folder, include_paths=True).map_batches(
            Embedder, fn_constructor_args=["simclr_airbench95_cifar10"], concurrency=8, batch_size=256
        ).write_parquet(out)
    """

    def __init__(self, address: str, column: str | None = None, **options: Any) -> None:
        self.encoder, self.column, self.options = load(address), column, options

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """All columns but those of pixels and bytes, and `embedding`, `(N, D)` float32.

        Raises:
            InputError: no column holds pictures. DataError: a picture cannot be read; names it.
        """
        column = self.column or next((name for name in PICTURES if name in batch), None)
        if column not in batch:
            raise InputError(f"expected pictures in a column {column or ' or '.join(PICTURES)}, got {', '.join(batch)}")
        kept = {
            name: values for name, values in batch.items() if name not in ("image", "bytes") and name != self.column
        }
        return kept | {"embedding": embed(self.encoder, list(batch[column]), **self.options)}


def extract_partitions(
    encoder: str,
    dataset: Dataset | str,
    out: str | os.PathLike[str],
    *,
    split: str | None = None,
    workers: int = 2,
    partition: int = 8192,
    batch_size: int = 256,
    precision: str = "auto",
    cpus: float = 1,
    gpus: float = 0,
    progress: Callable[[int, int], None] | None = None,
) -> list[Path]:
    """Features of a dataset as Parquet files in `out`, made by workers of a Ray cluster; the same rows as one process.

    An interrupted call is made again to go on. `ray.init(address="auto")` before it joins a running cluster.

    Args:
        encoder: an address, as `zoo.load` takes it, that every worker can reach.
        dataset: an address that every worker can reach, or a dataset, which is sent to them.
        out: a folder that all workers see.
        split: of an address.
        workers: how many work at once.
        partition: samples in one file, a multiple of `batch_size`.
        batch_size, precision: as in `zoo.extract`.
        cpus, gpus: of each worker.
        progress: called with partitions done and partitions in all.

    Returns:
        The files, in the order of the dataset.

    Raises:
        ImportError: Ray is not installed. InputError: a partition that is no multiple of the batch size. DataError:
            `out` holds partitions of other features, or a sample cannot be read.
    """
    try:
        import ray
        from ray.util import ActorPool
    except ImportError:
        raise ImportError("this needs Ray: pip install 'encoder-zoo[ray]'") from None
    if partition < 1 or partition % batch_size:
        raise InputError(
            f"partition={partition} must be a multiple of batch_size={batch_size}, so that rows keep equal"
        )
    data = open_dataset(dataset, split) if isinstance(dataset, str) else dataset
    folder, config = Path(out), load(encoder).config
    plan = {
        "encoder": config.name if config is not None else encoder,
        "weights_sha256": config.weights.sha256 if config is not None else None,
        "fingerprint": data.fingerprint,
        "samples": len(data),
        "partition": partition,
        "batch_size": batch_size,
        "precision": precision,
    }
    starts = range(0, len(data), partition)
    files = [folder / f"part-{number:05d}.parquet" for number in range(len(starts))]
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / PLAN):
        _check_plan(folder, plan)
        waiting = [(start, path) for start, path in zip(starts, files, strict=True) if not path.exists()]
        if progress is not None:
            progress(len(files) - len(waiting), len(files))
        if waiting:
            # A worker that dies is started again, and its partition begun anew, three times in all.
            actor = ray.remote(num_cpus=cpus, num_gpus=gpus, max_restarts=3, max_task_retries=3)(_Worker)
            shared = ray.put((data, {"batch_size": batch_size, "precision": precision}))
            actors = [actor.remote(encoder, shared) for _ in range(min(workers, len(waiting)))]
            try:
                for number, _ in enumerate(_results(ActorPool(actors), waiting, partition), start=1):
                    if progress is not None:
                        progress(len(files) - len(waiting) + number, len(files))
            finally:
                for each in actors:  # or they keep their cores
                    ray.kill(each)
    return files


def _results(pool: Any, waiting: list[tuple[int, Path]], partition: int) -> Iterator[str]:
    """Whatever is done next; an error of the zoo as itself, not as Ray's."""
    import ray

    work = [(start, start + partition, str(path.resolve())) for start, path in waiting]
    done = pool.map_unordered(lambda worker, part: worker.run.remote(*part), work)
    while True:
        try:
            yield next(done)
        except StopIteration:
            return
        except ray.exceptions.RayTaskError as error:
            raise error.cause if isinstance(error.cause, DataError | InputError) else error from None


def _check_plan(folder: Path, plan: dict[str, Any]) -> None:
    path = folder / PLAN
    if path.exists():
        try:
            before = json.loads(path.read_text(encoding="utf-8"))
        except ValueError:
            before = {}
        other = [key for key in plan if before.get(key) != plan[key]] if isinstance(before, dict) else list(plan)
        if other:
            raise DataError(
                f"{folder} holds partitions of other features ({', '.join(other)} differ); give another folder"
            )
    elif any(folder.glob("part-*.parquet")):
        raise DataError(f"{folder} holds partitions and no {PLAN}, so nobody knows of what; give another folder")
    write_text(path, json.dumps(plan, indent=1) + "\n")


class _Worker:
    """A process of the cluster, with the encoder loaded."""

    def __init__(self, encoder: str, shared: tuple[Dataset, dict[str, Any]]) -> None:
        self.encoder = load(encoder)
        self.data, self.options = shared

    def run(self, start: int, stop: int, path: str) -> str:
        """Write the rows `start` to `stop`; the file is there whole or not at all."""
        rows = np.arange(start, min(stop, len(self.data)))
        part = self.data.subset(rows, self.data.split)
        Samples.of([(extract(self.encoder, part, **self.options), part)]).save(path)
        return path
