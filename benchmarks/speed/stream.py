"""Pictures per second from JPEG files and tar shards: the streaming road against torchvision's ImageFolder.

    python -m benchmarks.speed.stream [--workers N] [--images N] [--side 224] [--views 2] [--turns N]

Both read the same files of 500 x 375 px, cut the same number of random resized crops of `--side` px from each (area of
8 to 100 %, bicubic, antialiased) and stop there: what follows is done in batches on the device. Ours has N threads,
the DataLoader N processes; they take turns. `shards` is `scaled` from a WebDataset shard of the same files. Ratios are
medians over turns, by the clock, so leave the machine free. Target: 1.3 times with scaled decoding. Also: peak memory
beside a list of a million pictures.
"""

from __future__ import annotations

import argparse
import io
import resource
import statistics
import tarfile
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import InterpolationMode, PILToTensor, RandomResizedCrop

from benchmarks.speed.augment import photographs
from training.stream import CropDraw, StreamBatches
from zoo.data.addresses import open_dataset
from zoo.data.base import Dataset
from zoo.data.stores.whole import WholePictures

SCALE, RATIO, BATCH = (0.08, 1.0), (3 / 4, 4 / 3), 64
CPU = torch.device("cpu")


class Crops:
    """The transform of the peer: several crops of one picture, as tensors."""

    def __init__(self, side: int, views: int) -> None:
        self.crop = RandomResizedCrop(side, SCALE, RATIO, InterpolationMode.BICUBIC, antialias=True)
        self.views, self.tensor = views, PILToTensor()

    def __call__(self, picture: Image.Image) -> list[torch.Tensor]:
        return [self.tensor(self.crop(picture)) for _ in range(self.views)]


def write_pictures(folder: Path, count: int) -> None:
    """`count` JPEGs of 500 x 375 px in two classes, as smooth as photographs."""
    for number, pixels in enumerate(photographs(count, 500)):
        path = folder / "ab"[number % 2] / f"{number}.jpg"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(pixels[:375]).save(path, quality=90)


def write_shard(data: Dataset, path: Path) -> None:
    """The pictures of a dataset of files and the names of their classes as one shard of WebDataset."""
    with tarfile.open(path, "w") as archive:
        for index, key in enumerate(data.keys):
            label = data.class_names[data.labels[index]].encode()
            for name, content in ((key, data.content(index)), (f"{key.rpartition('.')[0]}.cls", label)):
                member = tarfile.TarInfo(name)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))


def streamed(dataset: Dataset, workers: int, side: int, views: int, scaled: bool) -> Iterator[object]:
    """One epoch of our batches, each read while the one before it is taken."""
    draws = [CropDraw(SCALE, RATIO, side, "bicubic")] * views
    batches = StreamBatches(WholePictures(dataset, side, workers), CPU, lambda size: draws, scaled)
    rows = np.array_split(np.arange(len(dataset)), max(1, len(dataset) // BATCH))
    batches.draw_ahead(rows[0], (0, 0), side)
    for step, own in enumerate(rows):
        batch = batches.draw(own, (0, step), side)
        if step + 1 < len(rows):
            batches.draw_ahead(rows[step + 1], (0, step + 1), side)
        yield batch


def per_second(epoch: Iterable[object], images: int) -> float:
    """Pictures per second of one epoch."""
    start = time.perf_counter()
    for _ in epoch:
        pass
    return images / (time.perf_counter() - start)


class Million(Dataset):
    """A million entries of one picture: what a list of pictures costs before any is read."""

    name, split, labels, class_names = "million", "train", None, ()

    def __init__(self, picture: Image.Image) -> None:
        self.picture, self.keys = picture, range(1_000_000)

    def sample(self, index: int) -> Image.Image:
        """Always the same picture."""
        return self.picture


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("workers", 1), ("images", 512), ("side", 224), ("views", 2), ("turns", 5)):
        parser.add_argument(f"--{name}", type=int, default=default)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as place, tempfile.TemporaryDirectory() as other:
        write_pictures(Path(place), asked.images)
        data = open_dataset(place, "all")
        write_shard(data, Path(other) / "0000.tar")
        shards = open_dataset(other, "all")
        peer = DataLoader(
            ImageFolder(place, Crops(asked.side, asked.views)), BATCH, shuffle=True, num_workers=asked.workers,
            persistent_workers=True,
        )  # fmt: skip
        per_second(peer, asked.images)  # starts the processes
        rates: dict[str, list[float]] = {"torchvision": [], "exact": [], "scaled": [], "shards": []}
        for _ in range(asked.turns):
            rates["torchvision"].append(per_second(peer, asked.images))
            for name, pictures in (("exact", data), ("scaled", data), ("shards", shards)):
                epoch = streamed(pictures, asked.workers, asked.side, asked.views, name != "exact")
                rates[name].append(per_second(epoch, asked.images))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        many = Million(Image.open(data.paths[0]))
        per_second(streamed(many.subset(range(0, 1_000_000, 7813)), asked.workers, asked.side, 2, True), 128)
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    what = f"{asked.views} crops of {asked.side} px from each of {asked.images} JPEGs"
    print(f"{asked.workers} workers, {what}, batch {BATCH}")
    for name, found in rates.items():
        ratio = statistics.median(a / b for a, b in zip(found, rates["torchvision"], strict=True))
        print(f"{name:12} {statistics.median(found):8.1f} pictures/s, {ratio:5.2f} times torchvision")
    print(f"peak memory beside a million entries: {grown / 1024:.0f} MB more")


if __name__ == "__main__":
    main()
