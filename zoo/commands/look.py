"""Commands that look and compute nothing: `zoo list`, `zoo show`, `zoo env`. None of `list` and `env` needs torch."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from pathlib import Path
from typing import Annotated

import typer

from zoo.commands.options import EncoderArgument
from zoo.errors import ZooError
from zoo.text import amount, clipped

#: What `zoo env` reports the version of.
PACKAGES = (
    "torch", "torchvision", "timm", "huggingface-hub", "safetensors", "scikit-learn", "numpy", "scipy", "pillow",
    "pydantic", "typer", "rich", "matplotlib", "pyarrow", "datasets", "onnx",
)  # fmt: skip
#: Instructions that decide how fast a CPU computes features; bf16 is used where the first of the last two is there.
CPU_FEATURES = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")


def list_command(
    pattern: Annotated[str, typer.Argument(help="shell-style, such as 'simclr*'")] = "*",
    modality: Annotated[str | None, typer.Option(help="image or skeleton")] = None,
    method: Annotated[str | None, typer.Option(help="as in the column method, such as SimCLR")] = None,
    timm: Annotated[
        bool, typer.Option("--timm", help="search the names of timm's pretrained models instead, without the network")
    ] = False,
    write: Annotated[
        Path | None, typer.Option(help="put the table of all models between the marks of this Markdown file")
    ] = None,
) -> None:
    """The published checkpoints, one a line, with what they are; with --timm the addresses of timm's models."""
    if timm:
        from zoo.checkpoint.timm_names import search_timm

        if modality is not None or method is not None or write is not None:
            raise ZooError("--timm searches names alone; leave --modality, --method and --write out")
        addresses = search_timm(pattern)
        if not addresses:
            raise ZooError(f"no pretrained model of timm matches {pattern!r}; put a * at either end, as in '*dino*'")
        print("\n".join(addresses))
        return
    if write is not None:
        from zoo.publish.models_table import write_models_table

        write_models_table(write)
        print(f"wrote the table of models to {write}")
        return
    from rich.table import Table
    from rich.text import Text

    from zoo.checkpoint.catalog import config, list_models, roots
    from zoo.console import output

    names = list_models(pattern, modality=modality, method=method)
    if not names:
        if not list_models():
            where = ", ".join(map(str, roots()))
            raise ZooError(f"no checkpoint is in {where}; unset ZOO_CHECKPOINTS to see those of the zoo")
        raise ZooError(f"no checkpoint matches {pattern!r}; `zoo list` shows all")
    table = Table(box=None, pad_edge=False)
    for heading in ("name", "method", "trained on", "epochs", "features", "parameters"):
        table.add_column(heading, justify="right" if heading in ("epochs", "features", "parameters") else "left")
    for name in names:
        found = config(name)
        cells = (
            name,
            found.method.title,
            found.training.dataset.name,
            "?" if found.training.epochs is None else amount(found.training.epochs),
            str(found.num_features),
            f"{found.weights.parameters:,}",
        )
        # As Text: a title with [brackets] is not markup.
        table.add_row(*(Text(clipped(cell)) for cell in cells))
    output(width=160).print(table)


def show(name: EncoderArgument) -> None:
    """Method, data, sizes, measured results and licence of one checkpoint."""
    from zoo.publish.card import show as text

    print(text(name))


def env() -> None:
    """Versions, processor, caches and free disk: what an issue report needs."""
    for key, value in environment():
        print(f"{key:<18} {value}")


def environment() -> list[tuple[str, str]]:
    """What `zoo env` prints: `(name, value)` pairs."""
    import zoo

    rows = [
        ("zoo", f"{zoo.__version__} in {Path(zoo.__file__).parent}"),
        ("python", f"{platform.python_version()} ({sys.executable})"),
        ("platform", platform.platform()),
    ]
    rows += [(package, _version(package)) for package in PACKAGES]
    flags = _cpu_flags()
    rows.append(("processor", f"{len(_cores())} of {os.cpu_count()} cores, {_processor()}"))
    if flags:
        rows.append(("instructions", ", ".join(f"{f} {'yes' if f in flags else 'no'}" for f in CPU_FEATURES)))
    rows += [(f"{name} cache", _place(path)) for name, path in _caches().items()]
    rows += [(name, value) for name, value in sorted(os.environ.items()) if name.startswith("ZOO_")]
    return rows


def _version(package: str) -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _cores() -> set[int]:
    allowed = getattr(os, "sched_getaffinity", None)
    return allowed(0) if allowed is not None else set(range(os.cpu_count() or 1))


def _cpuinfo(field: str) -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(field)), "")


def _cpu_flags() -> set[str]:
    return set(_cpuinfo("flags").split())


def _processor() -> str:
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def _caches() -> dict[str, Path]:
    from zoo.files import cache_root

    hub = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
    return {"zoo": cache_root(None), "hub": hub}


def _place(path: Path) -> str:
    there = next(folder for folder in (path, *path.parents) if folder.exists())
    return f"{path}{'' if path.exists() else ' (not made yet)'}, {shutil.disk_usage(there).free / 1e9:.1f} GB free"
