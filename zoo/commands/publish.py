"""Commands that write, check or convert checkpoints: `zoo publish`, `import`, `export`, `mirror`, `site`, `verify`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from zoo.commands.options import (
    BatchSizeOption,
    ClassesOption,
    DeviceOption,
    EncoderArgument,
    LabelsFileOption,
    QuietOption,
    SkipBadOption,
    TestShareOption,
    WorkersOption,
)
from zoo.errors import ZooError
from zoo.text import printable

if TYPE_CHECKING:
    from evaluation.command import ProbeOptions
    from zoo.checkpoint.results import Results


def publish(
    run: Annotated[Path, typer.Argument(help="a run folder of `zoo train`, or a checkpoint folder")],
    name: Annotated[str | None, typer.Option(help="method_architecture_dataset, lower case")] = None,
    data: Annotated[str | None, typer.Option(help="measure on this dataset's train and test splits first")] = None,
    limit: Annotated[int | None, typer.Option(min=20, help="measure on at most this many samples a split")] = None,
    classes: ClassesOption = None,
    labels_file: LabelsFileOption = None,
    test_share: TestShareOption = None,
    skip_bad: SkipBadOption = False,
    results: Annotated[
        list[Path] | None, typer.Option(help="results.json of an earlier `zoo probe`; may be repeated")
    ] = None,
    claim: Annotated[
        list[Path] | None, typer.Option(help="claim.json of a benchmark, for the card; may be repeated")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="folder of checkpoints (default: $ZOO_CHECKPOINTS, zoo/checkpoints of a checkout, checkpoints)"
        ),
    ] = None,
    cards: Annotated[
        Path | None,
        typer.Option(help="folder of model cards (default: model_cards of a checkout, else beside the checkpoint)"),
    ] = None,
    mirror: Annotated[list[str] | None, typer.Option(help="an address with the same weights; may be repeated")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace a published checkpoint of that name")] = False,
    push: Annotated[str | None, typer.Option(help="org/name: upload to the Hugging Face Hub as well")] = None,
    public: Annotated[bool, typer.Option("--public", help="with --push: the world may read it")] = False,
    tag: Annotated[str | None, typer.Option(help="with --push: a new tag, such as v1")] = None,
    replaces: Annotated[str | None, typer.Option(help="with --push: the commit whose weights are replaced")] = None,
    device: DeviceOption = None,
    batch_size: BatchSizeOption = 256,
    workers: WorkersOption = None,
    quiet: QuietOption = False,
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
            from evaluation.command import ProbeOptions

            options = ProbeOptions(
                limit=limit, classes=classes, labels_file=labels_file, test_share=test_share, skip_bad=skip_bad,
                device=device, batch_size=batch_size, workers=workers,
            )  # fmt: skip
            measured = _measure(run, name, data, options, quiet)
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
        print(f"published {folder}; try zoo.load({_address(folder, name)!r})")
    if push is not None:
        from zoo.publish.push import push as run_push

        pushed = run_push(folder, push, private=not public, tag=tag, replaces=replaces)
        print(f"pushed and verified {pushed.address}; try zoo.load({pushed.address!r})")


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


def mirror(
    out: Annotated[Path, typer.Argument(help="the folder that a web server is to serve")],
    names: Annotated[list[str] | None, typer.Argument(help="checkpoints; none means the whole catalogue")] = None,
) -> None:
    """The catalogue as a static tree for any web server; zoo.load("https://host/.../NAME") reads it."""
    from zoo.publish.mirror import write_mirror

    written = write_mirror(out, names or None)
    print(f"wrote {len(written)} checkpoints to {out}; to try: python -m http.server -d {out}, then")
    print(f'zoo.load("http://127.0.0.1:8000/{written[0]}")' if written else "nothing is published yet")


def site(
    out: Annotated[Path, typer.Option(help="folder for index.html")],
    title: Annotated[str, typer.Option(help="heading of the page")] = "Encoder Zoo",
) -> None:
    """One static, searchable page over all published checkpoints; opens from the file system."""
    from zoo.publish.site import write_site

    print(f"wrote {write_site(out, title)}")


def verify(
    names: Annotated[list[str] | None, typer.Argument(help="checkpoints or addresses; none means --all")] = None,
    all_: Annotated[bool, typer.Option("--all", help="every published checkpoint")] = False,
    data: Annotated[
        str | None, typer.Option(help="where the card's dataset lies, if not where its command says")
    ] = None,
    no_data: Annotated[
        bool, typer.Option("--no-data", help="seconds: do not measure the card's numbers again")
    ] = False,
    device: DeviceOption = None,
    batch_size: BatchSizeOption = 256,
    workers: WorkersOption = None,
    quiet: QuietOption = False,
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

            lines += repeat(name, data, device=device, batch_size=batch_size, workers=workers, quiet=quiet)
        for line in lines:
            failed = failed or not line.ok
            print(printable(f"{'ok  ' if line.ok else 'FAIL'} {name}: {line.text}"))
    raise typer.Exit(1 if failed else 0)


def _address(folder: Path, name: str) -> str:
    """What `zoo.load` takes for a published checkpoint: its name where the catalogue finds it, else its folder."""
    from zoo.checkpoint.catalog import folders

    found = folders().get(name)
    return name if found is not None and found.resolve() == folder.resolve() else f"local-dir:{folder}"


def _measure(run: Path, name: str, data: str, options: ProbeOptions, quiet: bool) -> Results:
    """Results of a run's encoder on `data`; the stored command names the published checkpoint."""
    from evaluation.command import command_text, probe, weights_sha256
    from zoo.checkpoint.results import Results

    address = f"local-dir:{run / 'encoder' if (run / 'encoder').is_dir() else run}"
    found = probe(address, data, options, command=command_text(name, data, options), quiet=quiet)
    return Results(weights_sha256=weights_sha256(found.encoder), rows=found.rows)
