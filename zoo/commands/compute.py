"""Commands that compute: `zoo extract`, `zoo probe`, `zoo train`, `zoo plan`, `zoo demo`.

`python -m evaluation` is `zoo probe`, `python -m training` is `zoo train`.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from zoo.commands.options import (
    BatchSizeOption,
    ClassesOption,
    DataArgument,
    DeviceOption,
    DownloadOption,
    EncoderArgument,
    LabelsFileOption,
    LimitOption,
    OutOption,
    PrecisionOption,
    QuietOption,
    RootOption,
    SeedOption,
    SkipBadOption,
    TestShareOption,
    WorkersOption,
)
from zoo.data.registry import examples
from zoo.text import printable

RecipeArgument = Annotated[str | None, typer.Argument(help="a recipe's name, or the path of a YAML file")]
OverridesArgument = Annotated[
    list[str] | None,
    typer.Argument(metavar="key=value ...", help="as in epochs=10 data=data/cifar10 optim.lr=0.3"),
]


def extract(
    encoder: EncoderArgument,
    data: DataArgument,
    out: Annotated[Path, typer.Option(help=".npz, .npy, .parquet, or a folder")],
    split: Annotated[str | None, typer.Option(help="split of the data, such as train or test")] = None,
    root: RootOption = None,
    download: DownloadOption = False,
    classes: ClassesOption = None,
    labels_file: LabelsFileOption = None,
    test_share: TestShareOption = None,
    skip_bad: SkipBadOption = False,
    batch_size: BatchSizeOption = 256,
    device: DeviceOption = None,
    precision: PrecisionOption = "auto",
    workers: WorkersOption = None,
    layers: Annotated[
        str | None,
        typer.Option(
            help="names of the encoder's layers, separated by commas; a wrong one is answered with those there are"
        ),
    ] = None,
    pool: Annotated[
        str | None, typer.Option(help="how a layer becomes columns: mean, max, cls, mean+cls or none")
    ] = None,
    quiet: QuietOption = False,
) -> None:
    """Write features, labels and file names of a dataset.

    If the command is interrupted, run it again to resume. Under torchrun each process does its share.
    """
    from zoo.checkpoint.loading import load
    from zoo.console import line, stages
    from zoo.data.addresses import open_dataset
    from zoo.data.pairs import opened
    from zoo.features.extract import extract as run

    (dataset,) = opened(
        lambda: [
            open_dataset(
                data, split, root=root, download=download, classes=classes, labels=labels_file, test_share=test_share,
                skip_bad=skip_bad,
            )
        ],
        line(quiet),
    )  # fmt: skip
    with stages(quiet) as progress:
        table = run(
            load(encoder),
            dataset,
            out=out,
            batch_size=batch_size,
            device=device,
            precision=precision,
            workers=workers,
            layers=None if layers is None else [name.strip() for name in layers.split(",") if name.strip()],
            pool=pool,
            progress=lambda done, total: progress(f"extracting {dataset.name}", done, total),
        )
    rows, length = table.features.shape
    print(printable(f"{out}: {rows:,} x {length} features of {dataset.name}/{dataset.split}"))


def probe(
    places: Annotated[
        list[str],
        typer.Argument(
            metavar="encoder ... data",
            help="one encoder or several (a catalogue name, timm:NAME, hf-hub:org/name[@revision], https://host/NAME "
            f"or local-dir:PATH), then the data: {examples()}; with --suite no data, or a folder with train/ and test/ "
            "to add to the suite",
        ),
    ],
    suite: Annotated[str | None, typer.Option(help="measure on many datasets: downstream or fine_grained")] = None,
    data_root: Annotated[
        str | None, typer.Option(help="with --suite: the folder that holds the datasets; default: $ZOO_DATA")
    ] = None,
    train_split: Annotated[str, typer.Option(help="split that the probe is trained on")] = "train",
    test_split: Annotated[
        str | None, typer.Option(help="split that is measured; default: test if there is one, else validation")
    ] = None,
    root: RootOption = None,
    download: DownloadOption = False,
    classes: ClassesOption = None,
    labels_file: LabelsFileOption = None,
    test_share: TestShareOption = None,
    skip_bad: SkipBadOption = False,
    protocol: Annotated[
        str | None,
        typer.Option(
            help="names separated by commas, of logreg, knn, few_label, retrieval, metric_learning, clustering, "
            "transfer, finetune; default: logreg,knn, or those of the suite"
        ),
    ] = None,
    k: Annotated[list[int] | None, typer.Option("--k", help="fixed k of the kNN probe; --k 1 5 20 is a grid")] = None,
    labels: Annotated[
        list[float] | None, typer.Option("--labels", help="few_label: shares of each class, or numbers per class")
    ] = None,
    simclr_finetune: Annotated[
        bool, typer.Option("--simclr-finetune", help="finetune: SimCLR's 20,000 steps, batch 256, grid of 56 settings")
    ] = False,
    no_floors: Annotated[
        bool, typer.Option("--no-baselines", "--no-floors", help="leave out the untrained network and the raw input")
    ] = False,
    initialisations: Annotated[
        int, typer.Option(min=1, help="the untrained network is the mean over this many random networks")
    ] = 3,
    limit: LimitOption = None,
    seed: SeedOption = 0,
    precision: PrecisionOption = "auto",
    device: DeviceOption = None,
    batch_size: BatchSizeOption = 256,
    workers: WorkersOption = None,
    quiet: QuietOption = False,
    out: OutOption = None,
) -> None:
    """Probe encoders on a labelled dataset, beside their baselines and beside each other.

    A baseline is what the same probe reaches without training: on the features of the same network with random
    weights, and on the raw input (pixels or joints). Every number comes with a 95 % interval. --out writes
    results.json, results.csv and report.html.
    """
    from evaluation.command import ProbeOptions
    from evaluation.probing import named_places, run_probe

    options = ProbeOptions(
        suite=suite, data_root=data_root, train_split=train_split, test_split=test_split, root=root,
        download=download, classes=classes, labels_file=labels_file, test_share=test_share, skip_bad=skip_bad,
        protocol=protocol, k=tuple(k or ()), labels=tuple(labels or ()),
        simclr_finetune=simclr_finetune, no_floors=no_floors, initialisations=initialisations, limit=limit,
        seed=seed, precision=precision, device=device, batch_size=batch_size, workers=workers,
    )  # fmt: skip
    encoders, data = named_places(places, suite is not None)
    run_probe(encoders, data, options, out, quiet=quiet)


def train(
    recipe: RecipeArgument = None,
    overrides: OverridesArgument = None,
    # torchrun takes `--run` for an ambiguous form of its own --run-path.
    out: Annotated[Path | None, typer.Option("--out", "--run", help="run folder; default: runs/NAME")] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="delete the run folder first")] = False,
    minutes: Annotated[float | None, typer.Option(help="stop after this long with the state saved")] = None,
    export: Annotated[
        bool, typer.Option("--export", help="do not train on: write the encoder of the last state")
    ] = False,
    device: DeviceOption = None,
    batch_size: Annotated[
        int | None, typer.Option(min=2, help="samples per step over all processes, as batch_size=N")
    ] = None,
    plan: Annotated[bool, typer.Option("--plan", help="print the cost and do not train, as `zoo plan`")] = False,
    list_: Annotated[bool, typer.Option("--list", help="list the recipes")] = False,
    help_recipe: Annotated[str | None, typer.Option(metavar="NAME", help="explain every key of a recipe")] = None,
    quiet: QuietOption = False,
) -> int:
    """Train a recipe, or continue its run. If the command is interrupted, run it again to resume.

    Exit status: 0 done, 1 stopped early with the state saved (0 under torchrun) or failed, 2 bad input.
    """
    from training.recipe import available_pipelines, available_recipes

    if help_recipe is not None:
        from training.settings import help_recipe as explained

        print(explained(help_recipe, [word for word in (recipe, *(overrides or ())) if word]), end="")
        return 0
    if list_ or recipe is None:
        print("\n".join(available_recipes() + available_pipelines()))
        return 0 if list_ else 2
    changes = list(overrides or ())
    if batch_size is not None:
        changes.append(f"batch_size={batch_size}")
    if plan:
        _plan(recipe, changes, None, device)
        return 0
    from training.run import train as run

    done = run(
        recipe, changes, out=out, minutes=minutes, fresh=fresh, export=export, device=device, quiet=quiet
    )  # fmt: skip
    # torchrun takes any other status for a crash: it prints a traceback and ends the other processes.
    return 0 if done.finished or "TORCHELASTIC_RUN_ID" in os.environ else 1


def plan(
    recipe: Annotated[str, typer.Argument(help="a recipe's name, or the path of a YAML file")],
    overrides: OverridesArgument = None,
    samples: Annotated[
        int | None, typer.Option(min=2, help="plan for this many training samples, without the data")
    ] = None,
    device: DeviceOption = None,
) -> None:
    """What a recipe would cost: parameters and steps at once, then time and memory from a few real steps.

    The second part needs the recipe's data; nothing is trained and nothing is kept.
    """
    _plan(recipe, list(overrides or ()), samples, device)


def _plan(recipe: str, overrides: list[str], samples: int | None, device: str | None) -> None:
    from training.plan import show
    from training.run import plan as run

    run(recipe, overrides, samples=samples, device=device, show=lambda f: print(f) if isinstance(f, str) else show(f))
    sys.stdout.flush()


def demo(
    data: Annotated[
        str | None, typer.Option(help="a dataset; default: data/cifar10 if it is there, else digits; or made motion")
    ] = None,
    encoder: Annotated[str | None, typer.Option(help="default: a bundled one")] = None,
    out: Annotated[Path, typer.Option(help="where the report goes")] = Path("reports/demo"),
    limit: Annotated[int, typer.Option(min=20, help="at most this many samples a split")] = 600,
    modality: Annotated[str, typer.Option(help="image or skeleton: which encoder and data are taken")] = "image",
    download: DownloadOption = False,
    device: DeviceOption = None,
    batch_size: BatchSizeOption = 256,
    workers: WorkersOption = None,
    quiet: QuietOption = False,
    no_adapt: Annotated[bool, typer.Option("--no-adapt", help="stop after the first probe")] = False,
    minutes: Annotated[
        float, typer.Option(min=0.1, help="adapting stops after this long, with what has been learned by then")
    ] = 2.0,
    picture: Annotated[
        Path | None, typer.Option(help="a PNG file for the maps of the features before and after adapting")
    ] = None,
    open_: Annotated[bool, typer.Option("--open", help="open the report in a browser")] = False,
) -> None:
    """Load a pretrained encoder, probe it beside its baselines, adapt it without labels, probe it again.

    A baseline is what the same probe reaches without training. Adapting takes seconds on two cores with bf16, and ends
    after --minutes at the latest. The report shows nearest neighbours and a map of the features.
    """
    from evaluation.demo import run

    def adapt(address: str, where: str, split: str, samples: int, folder: Path) -> tuple[str, bool]:
        return _adapt(address, where, split, samples, folder, minutes, device, quiet)

    report = run(
        data, encoder, out, limit, modality, adapt=None if no_adapt else adapt, picture=picture, download=download,
        device=device, batch_size=batch_size, workers=workers, quiet=quiet,
    )  # fmt: skip
    if open_:
        typer.launch(str(report))


#: Samples in a step of adapting; fewer where there are fewer pictures.
ADAPT_BATCH = 64


def _adapt(
    encoder: str, data: str, split: str, samples: int, folder: Path, minutes: float, device: str | None, quiet: bool
) -> tuple[str, bool]:
    """Train an encoder further on unlabelled pictures; its new address, and whether the training reached its end."""
    from training.run import train as run
    from zoo.checkpoint.loading import load

    side = load(encoder).input.size[0]
    halves = [{"until": 0.8, "size": side // 2}, {"until": 1.0, "size": side}] if side >= 32 else []
    changes = [
        f"encoder={json.dumps({'init': encoder})}",
        f"data.dataset={json.dumps(data)}",
        f"data.split={json.dumps(split)}",
        f"data.limit={samples}",
        f"batch_size={min(ADAPT_BATCH, samples)}",
        f"view_sizes={json.dumps(halves)}",  # most steps at half the side, which cost a quarter
    ]
    done = run("adapt", changes, out=folder, fresh=True, minutes=minutes, device=device, quiet=quiet)
    if done.finished:
        return f"local-dir:{done.result}", True
    part = run("adapt", changes, out=folder, export=True, device=device, quiet=True)
    return f"local-dir:{part.result}", False
