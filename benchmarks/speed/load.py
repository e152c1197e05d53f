"""What `import zoo` adds to `import torch`, and what a cached load costs per 20 MB of weights.

    python benchmarks/speed/load.py [NAME] [--repeats 9]

Imports are timed in fresh processes that alternate, so that a busy machine slows both alike. A load
is timed in this process after one warm-up, which pays for importing timm and for the file cache.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SURFACE = "zoo.load, zoo.list_models, zoo.Encoder, zoo.ZooError"
TARGET_IMPORT_S, TARGET_LOAD_MS = 0.1, 50.0


def import_seconds(statements: str) -> float:
    """Seconds that a fresh process needs for `statements`, start of the interpreter excluded."""
    script = f"import time; start = time.perf_counter(); {statements}; print(time.perf_counter() - start)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return float(done.stdout)


def import_times(repeats: int) -> dict[str, float]:
    """Median seconds of `import torch`, `import torch, zoo`, and the same with the public surface touched."""
    cases = {
        "import torch": "import torch",
        "import torch, zoo": "import torch, zoo",
        "import torch, zoo and use its names": f"import torch, zoo; {SURFACE}",
    }
    times: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(repeats):
        for name, statements in cases.items():
            times[name].append(import_seconds(statements))
    return {name: statistics.median(values) for name, values in times.items()}


def load_times(address: str, repeats: int) -> dict[str, float]:
    """Median milliseconds of a cached load, its size in MB, and milliseconds per 20 MB."""
    import zoo

    encoder = zoo.load(address)
    assert encoder.config is not None
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        zoo.load(address)
        times.append(1000 * (time.perf_counter() - start))
    megabytes = encoder.config.weights.bytes / 1e6
    median = statistics.median(times)
    return {"load_ms": median, "megabytes": megabytes, "ms_per_20_mb": median * 20 / megabytes}


def random_checkpoint(folder: Path) -> str:
    """A ResNet-18 with random weights, for a zoo that has nothing published yet."""
    from zoo.architectures import build
    from zoo.checkpoint.config import DatasetRecord, Method, Training
    from zoo.checkpoint.writing import write_checkpoint
    from zoo.preprocessing.image import ImageInput
    from zoo.strict import Architecture

    architecture = Architecture(family="timm", arguments={"model": "resnet18", "stem": "cifar"})
    nothing = DatasetRecord(name="none", split="none", samples=0, fingerprint="none", licence="none")
    counts = {"epochs": 0, "steps": 0, "samples_seen": 0, "seed": 0, "wall_time_s": 0}
    write_checkpoint(
        build(architecture, ImageInput()),
        folder,
        name="random_resnet18_none",
        architecture=architecture,
        method=Method(name="none", title="none", paper="none"),
        training=Training(recipe={}, dataset=nothing, code_commit="none", versions={}, hardware="none", **counts),
    )
    return f"local-dir:{folder}"


def main() -> None:
    """Measure, print one line of JSON and whether each target is met."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", nargs="?", help="address of a checkpoint (default: a random ResNet-18)")
    parser.add_argument("--repeats", type=int, default=9)
    arguments = parser.parse_args()
    imports = import_times(arguments.repeats)
    with tempfile.TemporaryDirectory() as folder:
        address = arguments.name or random_checkpoint(Path(folder) / "checkpoint")
        load = load_times(address, arguments.repeats)
    extra = imports["import torch, zoo and use its names"] - imports["import torch"]
    print(json.dumps({**imports, "extra_s": extra, **load}, indent=1))
    print(f"import: {extra:+.3f} s, target <= {TARGET_IMPORT_S}: {'met' if extra <= TARGET_IMPORT_S else 'MISSED'}")
    per = load["ms_per_20_mb"]
    print(f"load: {per:.1f} ms per 20 MB, target <= {TARGET_LOAD_MS}: {'met' if per <= TARGET_LOAD_MS else 'MISSED'}")


if __name__ == "__main__":
    main()
