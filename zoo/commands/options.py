"""Arguments and options that several commands share, so that they have the same words everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from zoo.data.registry import examples

EncoderArgument = Annotated[
    str,
    typer.Argument(help="a catalogue name, hf-hub:org/name[@revision], https://host/NAME or local-dir:PATH"),
]
DataArgument = Annotated[str, typer.Argument(help=examples())]
RootOption = Annotated[str | None, typer.Option(help="where torchvision datasets lie")]
DownloadOption = Annotated[bool, typer.Option("--download", help="fetch the dataset if it is missing")]
DeviceOption = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1; default: the GPU if there is one")]
BatchSizeOption = Annotated[int, typer.Option(min=1, help="samples in one forward pass")]
WorkersOption = Annotated[
    int | None, typer.Option(min=1, help="threads that read samples ahead; default: by the number of free cores")
]
PrecisionOption = Annotated[str, typer.Option(help="of the forward pass: auto, fp32, bf16 or fp16")]
LimitOption = Annotated[int | None, typer.Option(help="at most this many samples a split, stratified by class")]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="print no progress, only results and errors")]
ClassesOption = Annotated[
    str | None, typer.Option(help="for folders within folders, which one is the class: top, leaf or level:N")
]
LabelsFileOption = Annotated[
    str | None, typer.Option(help="table of labels: .csv, .tsv, .parquet or a list, with the columns file and label")
]
TestShareOption = Annotated[
    float | None,
    typer.Option(
        help="share of each class that is the split test where the data has no splits of its own (default: 0.2); "
        "always the same samples, whatever --seed is"
    ),
]
SkipBadOption = Annotated[
    bool, typer.Option("--skip-bad", help="leave out samples that cannot be read, instead of an error that names them")
]
SeedOption = Annotated[int, typer.Option(min=0, help="seed of all random choices")]
OutOption = Annotated[Path | None, typer.Option(help="folder to write to")]

#: Every help text says baseline; this is where the word is explained.
BASELINE = (
    "A baseline is what the same probe reaches without training: on the features of the same network with random "
    "weights, and on the raw input (pixels or joints)."
)
