"""How long the commands that only look take, and which imports that time is made of.

    python -m benchmarks.speed.startup            # zoo --version, zoo list, zoo --help beside `import torch`
    python -m benchmarks.speed.startup --runs 9 --imports 20

Wall and processor seconds, the least of several fresh processes, as the first one reads files from the disk; where
other work keeps the machine busy, only the processor's are to be compared. Below them the slowest imports of `zoo list`
by their own time, from `python -X importtime`.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time

COMMANDS = {
    "python": "pass",
    "zoo --version": "import zoo.cli; zoo.cli.main(['--version'])",
    "zoo list": "import zoo.cli; zoo.cli.main(['list'])",
    "zoo --help": "import zoo.cli; zoo.cli.main(['--help'])",
    "import torch": "import torch",
}


def seconds(code: str, runs: int) -> tuple[float, float]:
    """The least wall and processor seconds of `runs` fresh processes that run `code`."""
    wall, processor = [], []
    for _ in range(runs):
        started, before = time.perf_counter(), _children()
        subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
        wall.append(time.perf_counter() - started)
        processor.append(_children() - before)
    return min(wall), min(processor)


def _children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def slowest_imports(code: str, count: int) -> list[tuple[str, float]]:
    """The `count` modules whose own import takes longest, with milliseconds."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", code], check=True, capture_output=True, text=True
    ).stderr
    rows = [
        line.removeprefix("import time:").split("|") for line in done.splitlines() if line.startswith("import time:")
    ]
    times = [(row[2].strip(), int(row[0]) / 1000) for row in rows if row[0].strip().isdigit()]
    return sorted(times, key=lambda item: -item[1])[:count]


def main(arguments: list[str] | None = None) -> int:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5, help="fresh processes for each command")
    parser.add_argument("--imports", type=int, default=10, help="how many imports to show")
    options = parser.parse_args(arguments)
    for name, code in COMMANDS.items():
        wall, processor = seconds(code, options.runs)
        print(f"{name:<16} {wall:6.2f} s wall {processor:6.2f} s of the processor", flush=True)
    print("\nslowest imports of `zoo list`, own time")
    for module, milliseconds in slowest_imports(COMMANDS["zoo list"], options.imports):
        print(f"{module:<40} {milliseconds:8.1f} ms")
    return 0


if __name__ == "__main__":
    sys.exit(main())
