"""How long the commands that only look take, and which imports that time is made of.

    python -m benchmarks.speed.startup            # zoo --version, zoo list, zoo --help beside `import torch`
    python -m benchmarks.speed.startup --runs 9 --imports 20

Wall seconds, the best of several fresh processes, as the first one reads files from the disk. Below them the slowest
imports of `zoo list` by their own time, from `python -X importtime`.
"""

from __future__ import annotations

import argparse
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


def seconds(code: str, runs: int) -> float:
    """The least wall time of `runs` fresh processes that run `code`."""
    found = []
    for _ in range(runs):
        started = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
        found.append(time.perf_counter() - started)
    return min(found)


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
        print(f"{name:<16} {seconds(code, options.runs):6.2f} s", flush=True)
    print("\nslowest imports of `zoo list`, own time")
    for module, milliseconds in slowest_imports(COMMANDS["zoo list"], options.imports):
        print(f"{module:<40} {milliseconds:8.1f} ms")
    return 0


if __name__ == "__main__":
    sys.exit(main())
