"""The `zoo` command."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from zoo.data.registry import examples
from zoo.errors import ZooError
from zoo.text import clipped, printable

app = typer.Typer(
    name="zoo",
    help="Self-supervised encoders that load in one line: look, extract, publish, verify.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

EncoderArgument = Annotated[
    str, typer.Argument(help="a catalogue name, hf-hub:org/name[@revision], https://host/NAME or local-dir:PATH")
]
DataArgument = Annotated[str, typer.Argument(help=examples())]
SplitOption = Annotated[str | None, typer.Option(help="split of the data, such as train or test")]
RootOption = Annotated[str | None, typer.Option(help="where torchvision datasets lie")]
DownloadOption = Annotated[bool, typer.Option("--download", help="fetch the dataset if it is missing")]


@app.command("list")
def list_command(
    pattern: Annotated[str, typer.Argument(help="shell-style, such as 'simclr*'")] = "*",
    modality: Annotated[str | None, typer.Option(help="image or skeleton")] = None,
) -> None:
    """The published checkpoints, one a line, with what they are."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from zoo.checkpoint.catalog import config, list_models

    names = list_models(pattern, modality=modality)
    if not names:
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
            "?" if found.training.epochs is None else f"{found.training.epochs:g}",
            str(found.num_features),
            f"{found.weights.parameters:,}",
        )
        # As Text: a title with [brackets] is not markup.
        table.add_row(*(Text(clipped(cell)) for cell in cells))
    Console(width=None if sys.stdout.isatty() else 160).print(table)


@app.command()
def show(name: EncoderArgument) -> None:
    """Method, data, sizes, measured results and licence of one checkpoint."""
    from zoo.publish.card import show as text

    print(text(name))


@app.command()
def extract(
    encoder: EncoderArgument,
    data: DataArgument,
    out: Annotated[Path, typer.Option(help=".npz, .npy, .parquet, or a folder")],
    split: SplitOption = None,
    root: RootOption = None,
    download: DownloadOption = False,
    batch_size: Annotated[int, typer.Option(min=1, help="samples at once")] = 256,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1; default: the GPU if there is one")] = None,
    precision: Annotated[str, typer.Option(help="auto, fp32, bf16 or fp16")] = "auto",
) -> None:
    """Write features, labels and file names of a dataset. Killed, the same command goes on; torchrun shards it."""
    from zoo.checkpoint.loading import load
    from zoo.data.addresses import open_dataset
    from zoo.features.extract import extract as run

    dataset = open_dataset(data, split, root=root, download=download)
    with progress_bar(f"extracting {dataset.name}") as advance:
        table = run(
            load(encoder), dataset, out=out, batch_size=batch_size, device=device, precision=precision, progress=advance
        )
    rows, length = table.features.shape
    print(printable(f"{out}: {rows:,} x {length} features of {dataset.name}/{dataset.split}"))


@app.command()
def publish(
    run: Annotated[Path, typer.Argument(help="a run folder of `python -m training`, or a checkpoint folder")],
    name: Annotated[str | None, typer.Option(help="method_architecture_dataset, lower case")] = None,
    data: Annotated[str | None, typer.Option(help="measure on this dataset's train and test splits first")] = None,
    limit: Annotated[int | None, typer.Option(min=20, help="measure on at most this many samples a split")] = None,
    results: Annotated[
        list[Path] | None, typer.Option(help="results.json of an earlier `python -m evaluation`; may be repeated")
    ] = None,
    claim: Annotated[
        list[Path] | None, typer.Option(help="claim.json of a benchmark, for the card; may be repeated")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="folder of checkpoints (default: zoo/checkpoints)")] = None,
    cards: Annotated[Path | None, typer.Option(help="folder of model cards (default: model_cards)")] = None,
    mirror: Annotated[list[str] | None, typer.Option(help="an address with the same weights; may be repeated")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace a published checkpoint of that name")] = False,
    push: Annotated[str | None, typer.Option(help="org/name: upload to the Hugging Face Hub as well")] = None,
    public: Annotated[bool, typer.Option("--public", help="with --push: the world may read it")] = False,
    tag: Annotated[str | None, typer.Option(help="with --push: a new tag, such as v1")] = None,
    replaces: Annotated[str | None, typer.Option(help="with --push: the commit whose weights are replaced")] = None,
) -> None:
    """Checkpoint folder and model card from a training run; measures it first if --data is given.

    Without --name, a checkpoint folder is pushed as it stands.
    """
    from zoo.checkpoint.results import merged, read_claim, read_results
    from zoo.publish.publishing import publish as run_publish

    if data is not None and results:
        raise ZooError("give --data to measure now, or --results from an earlier measurement, not both")
    if name is None and (push is None or data or results):
        raise ZooError("give the checkpoint its name with --name method_architecture_dataset")
    if name is None and claim:
        raise ZooError("--claim belongs to --name: the card is written anew")
    if push is None and (public or tag or replaces):
        raise ZooError("--public, --tag and --replaces belong to --push org/name")
    folder = run
    if name is not None:
        measured = merged([read_results(path) for path in results]) if results else None
        if data is not None:
            measured = _measure(run, name, data, limit)
        claims = [read_claim(path) for path in claim] if claim else None
        folder = run_publish(
            run,
            name,
            out=out,
            results=measured,
            cards_dir=cards,
            mirrors=mirror,
            claims=claims,
            overwrite=overwrite,
        )
        print(f"published {folder}; try zoo.load({name!r})")
    if push is not None:
        from zoo.publish.push import push as run_push

        pushed = run_push(folder, push, private=not public, tag=tag, replaces=replaces)
        print(f"pushed and verified {pushed.address}; try zoo.load({pushed.address!r})")


@app.command("import")
def import_command(
    file: Annotated[Path, typer.Argument(help="a .pth, .pth.tar or .safetensors of another project")],
    source: Annotated[str, typer.Option("--from", help="its layout, such as moco or clsa")],
    out: Annotated[Path, typer.Option(help="checkpoint folder to write")],
    name: Annotated[str | None, typer.Option(help="of the checkpoint (default: that of the folder)")] = None,
    arch: Annotated[str | None, typer.Option(help="timm model (default: what the file says)")] = None,
    model_args: Annotated[str | None, typer.Option(help="further arguments of the timm model, as JSON")] = None,
    size: Annotated[int | None, typer.Option(min=8, help="side in pixels of what the encoder takes")] = None,
    trained_on: Annotated[str, typer.Option(help="dataset, for the record")] = "not stated",
    licence: Annotated[str, typer.Option(help="of the weights, for the record")] = "not stated",
    dtype: Annotated[str, typer.Option(help="on disk: float32 or float16")] = "float32",
    keys: Annotated[bool, typer.Option("--keys", help="account for every key on a line of its own")] = False,
) -> None:
    """Turn a checkpoint of another project into a folder that zoo.load takes; says which keys it used and left."""
    import json

    from zoo.interop import import_checkpoint
    from zoo.interop.layouts import layout

    try:
        arguments = json.loads(model_args or "{}")
    except ValueError as error:
        raise ZooError(f'--model-args {model_args!r} is not JSON ({error}); write {{"layers": [3, 4, 6, 3]}}') from None
    if not isinstance(arguments, dict):
        raise ZooError(f'--model-args takes an object, as in {{"layers": [3, 4, 6, 3]}}, got {model_args!r}')
    preprocessing = layout(source).input
    if size is not None:
        preprocessing = preprocessing.model_copy(update={"size": (size, size)})
    config, account = import_checkpoint(
        file,
        source,
        out,
        name=name,
        architecture=arch,
        model_args=arguments,
        input=preprocessing,
        trained_on=trained_on,
        licence=licence,
        dtype=dtype,
    )
    print("\n".join(map(printable, account.lines(keys))))
    total = len(account.used) + len(account.left)
    print(
        f"{total} keys of {file}: {len(account.used)} used, {len(account.left)} left; {config.name} is in {out}, "
        f"zoo.load('local-dir:{out}')"
    )


@app.command()
def export(
    encoder: EncoderArgument,
    format_: Annotated[str, typer.Option("--format", help="onnx, torch-export or timm")],
    out: Annotated[Path, typer.Option(help="a .onnx or .pt2 file; a folder for timm")],
) -> None:
    """An image encoder for another runtime; what that runtime gives is compared before the file appears."""
    from zoo.checkpoint.loading import load
    from zoo.interop.export import export as run

    worst = run(load(encoder), out, format_)
    print(f"wrote {out}; its features differ by at most {worst:.1e} of the largest one")


@app.command()
def mirror(
    out: Annotated[Path, typer.Argument(help="the folder that a web server is to serve")],
    names: Annotated[list[str] | None, typer.Argument(help="checkpoints; none means the whole catalogue")] = None,
) -> None:
    """The catalogue as a static tree for any web server; zoo.load("https://host/.../NAME") reads it."""
    from zoo.publish.mirror import write_mirror

    written = write_mirror(out, names or None)
    print(f"wrote {len(written)} checkpoints to {out}; to try: python -m http.server -d {out}, then")
    print(f'zoo.load("http://127.0.0.1:8000/{written[0]}")' if written else "nothing is published yet")


@app.command()
def site(
    out: Annotated[Path, typer.Option(help="folder for index.html")],
    title: Annotated[str, typer.Option(help="heading of the page")] = "Encoder Zoo",
) -> None:
    """One static, searchable page over all published checkpoints; opens from the file system."""
    from zoo.publish.site import write_site

    print(f"wrote {write_site(out, title)}")


@app.command()
def verify(
    names: Annotated[list[str] | None, typer.Argument(help="checkpoints or addresses; none means --all")] = None,
    all_: Annotated[bool, typer.Option("--all", help="every published checkpoint")] = False,
    data: Annotated[
        str | None, typer.Option(help="where the card's dataset lies, if not where its command says")
    ] = None,
    no_data: Annotated[
        bool, typer.Option("--no-data", help="seconds: do not measure the card's numbers again")
    ] = False,
) -> None:
    """Hash, strict load, stored outputs and card of checkpoints; then the card's numbers again if the data is here."""
    from zoo.checkpoint import catalog
    from zoo.publish.check import stray_cards
    from zoo.publish.check import verify as run

    chosen = list(catalog.folders()) if all_ or not names else names
    failed = False
    for stray in stray_cards() if chosen is not names else []:
        failed = True
        print(f"FAIL {stray.text}")
    for name in chosen:
        lines = run(name)
        if not no_data and all(line.ok for line in lines) and name in catalog.folders():
            from evaluation.repeat import repeat

            lines += repeat(name, data)
        for line in lines:
            failed = failed or not line.ok
            print(printable(f"{'ok  ' if line.ok else 'FAIL'} {name}: {line.text}"))
    raise typer.Exit(1 if failed else 0)


@app.command()
def demo(
    data: Annotated[
        str | None, typer.Option(help="a dataset; default: data/cifar10 if there, else digits; made motion")
    ] = None,
    encoder: Annotated[str | None, typer.Option(help="default: the bundled SimCLR encoder")] = None,
    out: Annotated[Path, typer.Option(help="where the report goes")] = Path("reports/demo"),
    limit: Annotated[int, typer.Option(min=20, help="at most this many samples a split")] = 1300,
    modality: Annotated[str, typer.Option(help="image or skeleton: which encoder and data are taken")] = "image",
    open_: Annotated[bool, typer.Option("--open", help="open the report in a browser")] = False,
) -> None:
    """Load a pretrained encoder, probe it beside its floors on real images or made motion, and write a report."""
    from evaluation.demo import run

    report = run(data=data, encoder=encoder, out=out, limit=limit, modality=modality)
    if open_:
        typer.launch(str(report))


def _measure(run: Path, name: str, data: str, limit: int | None):
    """Results of a run's encoder on `data`; the stored command names the published checkpoint."""
    from evaluation.command import parser, weights_sha256
    from evaluation.command import run as evaluate_command
    from zoo.checkpoint.results import Results

    folder = run / "encoder" if (run / "encoder").is_dir() else run
    address = f"local-dir:{folder}"
    rest = [data] if limit is None else [data, "--limit", str(limit)]
    options = parser().parse_args([address, *rest])
    found = evaluate_command(options, command=shlex.join(["python", "-m", "evaluation", name, *rest]))
    return Results(weights_sha256=weights_sha256(address), rows=found.rows)


class progress_bar:
    """A rich progress bar on stderr as a `(done, total)` callback."""

    def __init__(self, title: str) -> None:
        from rich.console import Console
        from rich.markup import escape
        from rich.progress import Progress

        self.title = escape(printable(title))
        self._bar = Progress(console=Console(stderr=True), transient=True)

    def __enter__(self):
        self._bar.start()
        task = self._bar.add_task(self.title, total=None)
        return lambda done, total: self._bar.update(task, completed=done, total=total)

    def __exit__(self, *exception: object) -> None:
        self._bar.stop()


def main() -> None:
    """Entry point: errors of the zoo are one line and exit status 2."""
    try:
        app()
    except ZooError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except ImportError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
