"""Search in an index: milliseconds a query, beside faiss' flat index where faiss is installed.

    python benchmarks/speed/search.py                    # 100,000 x 512, one query at a time; run it on a quiet machine

Vectors are drawn at random, since exact search does the same work for any. Both run with `--threads` threads, in turn,
`--repeats` times; the numbers are medians. Goals: under 100 ms a query, and at least half of faiss' speed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from zoo.features.nearest import nearest


def milliseconds(work: Callable[[], object]) -> float:
    """How long one call takes, by the clock."""
    started = time.perf_counter()
    work()
    return 1000 * (time.perf_counter() - started)


def measure(rows: int, width: int, queries: int, k: int, threads: int, repeats: int) -> dict[str, object]:
    """Median milliseconds a query of `zoo.features.nearest` over a memory map, and of faiss where it is there."""
    torch.set_num_threads(threads)
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        np.save(Path(folder) / "bank.npy", rng.normal(size=(rows, width)).astype(np.float32))
        bank = np.load(Path(folder) / "bank.npy", mmap_mode="r", allow_pickle=False)
        asked = rng.normal(size=(queries, width)).astype(np.float32)
        lengths = np.linalg.norm(bank, axis=1)
        runs: dict[str, Callable[[], object]] = {"zoo": lambda: nearest(asked, bank, k, lengths=lengths)}
        flat = faiss_flat(bank / lengths[:, None], threads)
        if flat is not None:
            runs["faiss"] = lambda: flat.search(asked / np.linalg.norm(asked, axis=1, keepdims=True), k)
        for run in runs.values():  # the first call reads the map and starts the threads
            run()
        times = {name: [] for name in runs}
        for _ in range(repeats):
            for name, run in runs.items():
                times[name].append(milliseconds(run) / queries)
    found = {name: round(statistics.median(values), 3) for name, values in times.items()}
    report = {"rows": rows, "width": width, "queries": queries, "k": k, "threads": threads, "ms_per_query": found}
    if "faiss" in found:
        report["speed_of_faiss"] = round(found["faiss"] / found["zoo"], 3)
    return report


def faiss_flat(unit: np.ndarray, threads: int):
    """A flat index of inner products over rows of length 1; None where faiss is not installed."""
    try:
        import faiss
    except ImportError:
        return None
    faiss.omp_set_num_threads(threads)
    flat = faiss.IndexFlatIP(unit.shape[1])
    flat.add(np.ascontiguousarray(unit))
    return flat


def main() -> None:
    """Print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--queries", type=int, default=1, help="asked in one call; the time is divided by them")
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=20)
    print(json.dumps(measure(**vars(parser.parse_args()))))


if __name__ == "__main__":
    main()
