"""Commands for one's own pictures: `zoo look`, `zoo index`, `zoo search`."""

from __future__ import annotations

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
    OutOption,
    PrecisionOption,
    QuietOption,
    RootOption,
    SeedOption,
    SkipBadOption,
    TestShareOption,
    WorkersOption,
)
from zoo.errors import DataError
from zoo.text import printable

#: What `zoo search --out` writes beside the table formats.
SHEETS = (".html", ".png")


def look(
    encoder: EncoderArgument,
    pictures: DataArgument,
    out: Annotated[Path, typer.Option(help="folder for look.html and samples.csv")] = Path("reports/look"),
    split: Annotated[list[str] | None, typer.Option(help="a split; may be repeated; default: all of them")] = None,
    second: Annotated[
        str | None, typer.Option(help="other pictures: how well do they cover these (density and coverage)?")
    ] = None,
    clusters: Annotated[int | None, typer.Option(min=2, help="number of clusters; default: by the pictures")] = None,
    limit: Annotated[int, typer.Option(min=2, help="at most this many pictures a split")] = 20_000,
    table: Annotated[Path | None, typer.Option(help="also write the samples as .parquet or .csv to here")] = None,
    root: RootOption = None,
    download: DownloadOption = False,
    classes: ClassesOption = None,
    labels_file: LabelsFileOption = None,
    test_share: TestShareOption = None,
    skip_bad: SkipBadOption = False,
    seed: SeedOption = 0,
    batch_size: BatchSizeOption = 256,
    device: DeviceOption = None,
    precision: PrecisionOption = "auto",
    workers: WorkersOption = None,
    quiet: QuietOption = False,
    open_: Annotated[bool, typer.Option("--open", help="open the page in a browser")] = False,
) -> None:
    """What pictures say without labels: near-duplicates, outliers, clusters, a map; with labels also wrong ones.

    Nothing is trained on the pictures but a probe that checks labels.
    """
    from evaluation.look import look as run
    from evaluation.look.page import summary
    from zoo.checkpoint.loading import load
    from zoo.console import line, stages
    from zoo.data.addresses import available_splits, open_dataset
    from zoo.data.pairs import opened

    known = split or available_splits(pictures, root=root, classes=classes, labels=labels_file, skip_bad=skip_bad)
    names = known if split or "all" not in known else ["all"]  # the other splits are parts of it
    parts = opened(
        lambda: [
            open_dataset(
                pictures, name, root=root, download=download, classes=classes, labels=labels_file,
                test_share=test_share, skip_bad=skip_bad,
            )
            for name in names
        ],
        line(quiet),
    )  # fmt: skip
    other = None if second is None else open_dataset(second, root=root, download=download, skip_bad=skip_bad)
    with stages(quiet) as progress:
        found = run(
            load(encoder), parts, other, out=out, count=clusters, limit=limit, seed=seed, precision=precision,
            device=device, batch_size=batch_size, workers=workers, progress=progress,
        )  # fmt: skip
    print(printable(summary(found)))
    if table is not None:
        print(printable(f"wrote {found.samples().save(table)}"))
    print(printable(f"wrote {out / 'look.html'}"))
    if open_:
        typer.launch(str(out / "look.html"))


def index(
    encoder: EncoderArgument,
    pictures: DataArgument,
    out: Annotated[Path, typer.Option(help="folder of the index; one that is there is brought up to date")],
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
    quiet: QuietOption = False,
) -> None:
    """Make an index of pictures to search in, or add to one: only new and changed pictures are encoded.

    If the command is interrupted, run it again to resume.
    """
    from zoo.console import line, stages
    from zoo.data.addresses import open_dataset
    from zoo.data.pairs import opened
    from zoo.features.index import index as run

    (dataset,) = opened(
        lambda: [
            open_dataset(
                pictures, split, root=root, download=download, classes=classes, labels=labels_file,
                test_share=test_share, skip_bad=skip_bad,
            )
        ],
        line(quiet),
    )  # fmt: skip
    with stages(quiet) as progress:
        done = run(
            encoder, dataset, out, batch_size=batch_size, device=device, precision=precision,
            workers=workers, progress=lambda now, total: progress(f"encoding {dataset.name}", now, total),
        )  # fmt: skip
    print(
        printable(
            f"{out}: {len(done.index):,} pictures; {done.added:,} added, {done.kept:,} there already, "
            f"{done.dropped:,} gone or changed"
        )
    )


def search(
    index: Annotated[Path, typer.Argument(help="folder of an index that `zoo index` made")],
    pictures: Annotated[list[str], typer.Argument(help="picture files, or one dataset as for zoo extract")],
    k: Annotated[int, typer.Option("--k", "-k", min=1, help="hits for each picture")] = 10,
    out: OutOption = None,
    split: Annotated[str | None, typer.Option(help="split, where a dataset is asked for")] = None,
    classes: ClassesOption = None,
    labels_file: LabelsFileOption = None,
    test_share: TestShareOption = None,
    skip_bad: SkipBadOption = False,
    approximate: Annotated[
        bool, typer.Option("--approximate", help="faster on many millions of pictures, may miss some; needs faiss")
    ] = False,
    batch_size: BatchSizeOption = 256,
    device: DeviceOption = None,
    workers: WorkersOption = None,
    quiet: QuietOption = False,
) -> None:
    """The pictures of an index that are most similar to each given one.

    --out takes .html or .png for a sheet of pictures, .json, .csv or .parquet for a table; without it, the hits are
    printed.
    """
    from zoo.console import stages
    from zoo.data.addresses import open_dataset
    from zoo.data.images import SUFFIXES as PICTURES
    from zoo.features.search import SUFFIXES
    from zoo.features.search import search as run

    if out is not None and out.suffix not in (*SHEETS, *SUFFIXES):
        raise DataError(f"{out}: hits are written as {', '.join((*SHEETS, *SUFFIXES))}, not {out.suffix!r}")
    files = [Path(each).is_file() and Path(each).suffix.lower() in PICTURES for each in pictures]
    if not all(files) and len(pictures) > 1:
        raise DataError(
            f"{pictures[files.index(False)]} is no picture file; give picture files, or one folder or dataset"
        )
    asked = (
        pictures
        if all(files)
        else open_dataset(
            pictures[0], split, classes=classes, labels=labels_file, test_share=test_share, skip_bad=skip_bad
        )
    )
    with stages(quiet) as progress:
        hits = run(
            index, asked, k, approximate=approximate, batch_size=batch_size, device=device, workers=workers,
            progress=lambda now, total: progress("encoding", now, total),
        )  # fmt: skip
    if out is None:
        for row in hits.rows():
            print(printable(f"{row['similarity']:.4f}  {row['query']}  {row['name']}"))
        return
    if out.suffix in SHEETS:
        from evaluation.report.hits import write_sheet

        write_sheet(hits, out)
    else:
        hits.save(out)
    print(printable(f"wrote {out}"))
