"""Peak memory of the linear probe beside its memory map, for tables of growing length.

    python benchmarks/speed/probe_memory.py --dims 2048 --classes 100 --rows 20000 60000

Prints anonymous resident memory (what the operating system cannot give back by dropping pages of the file) above that
of the imports, for a fit with two values of C of two steps each: memory does not depend on how many steps follow.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

from evaluation.frozen import Features
from evaluation.protocols.logistic import LogisticProbe, LogRegV3

sys.path.insert(0, str(Path(__file__).parents[2]))


def anonymous() -> int:
    """KiB of this process (Linux)."""
    return next(int(line.split()[1]) for line in Path("/proc/self/status").open() if line.startswith("RssAnon"))


def measure(rows: int, dims: int, classes: int, path: Path) -> float:
    """Peak MiB of a fit above what was there before."""
    table = np.lib.format.open_memmap(path, "w+", np.float32, (rows, dims))
    labels = np.arange(rows) % classes
    for start in range(0, rows, 4096):
        part = labels[start : start + 4096]
        table[start : start + 4096] = np.random.default_rng(start).random((len(part), dims), np.float32)
    table.flush()
    del table
    features = np.load(path, mmap_mode="r", allow_pickle=False)
    test = Features(np.array(features[: 2 * classes]), labels[: 2 * classes])
    before, peak, done = anonymous(), 0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.is_set():
            peak = max(peak, anonymous())
            time.sleep(0.005)

    watcher = threading.Thread(target=watch)
    watcher.start()
    probe = LogisticProbe(LogRegV3(c_grid=(0.1, 1.0), max_iter=2, cross_validate_below=0), in_memory=0)
    probe.run(Features(features, labels), test)
    done.set()
    watcher.join()
    return (peak - before) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[20_000, 60_000])
    parser.add_argument("--dims", type=int, default=2048)
    parser.add_argument("--classes", type=int, default=100)
    given = parser.parse_args()
    if len(given.rows) > 1:  # one process each: memory that one fit leaves behind would hide that of the next
        for rows in given.rows:
            options = ["--rows", str(rows), "--dims", str(given.dims), "--classes", str(given.classes)]
            subprocess.run([sys.executable, __file__, *options], check=True)
        return
    with tempfile.TemporaryDirectory() as folder:
        mib = measure(given.rows[0], given.dims, given.classes, Path(folder) / "features.npy")
    size = given.rows[0] * given.dims * 4 / 2**20
    print(f"{given.rows[0]:,} x {given.dims} ({size:,.0f} MiB on disk): {mib:,.0f} MiB above the imports", flush=True)


if __name__ == "__main__":
    main()
