"""What a recipe says about its data: which, which part, how they are read, and how held-out samples are watched."""

from __future__ import annotations

from pydantic import Field

from zoo.strict import Strict


class Data(Strict):
    """Which data to train on."""

    dataset: str = Field(min_length=1, description="Address of the data, as zoo.data.addresses.open_dataset takes it.")
    split: str | None = Field(default="train", description="Split to train on.")
    root: str | None = Field(
        default=None, description="Folder in which the dataset is kept, where its address names none."
    )
    download: bool = Field(default=False, description="Fetch the data if they are not there.")
    classes: str | None = Field(
        default=None,
        description="For folders within folders, which one is the class: top, leaf or level:N; null: the only one "
        "that makes sense.",
    )
    labels: str | None = Field(
        default=None,
        description="Table of the labels of a folder of images: CSV, TSV, Parquet or a list, with the columns file "
        "and label and maybe split.",
    )
    test_share: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="Share of each class that is kept as the split test where the data have labels but no splits, "
        "the same samples as `zoo probe` keeps; null: 0.2 there.",
    )
    skip_bad: bool = Field(default=False, description="Leave out samples that cannot be read, and say how many.")
    held_out: float = Field(
        default=0.1,
        ge=0,
        lt=1,
        description="Fraction of the split kept for the online monitor and for choosing settings; never trained on.",
    )
    held_out_groups: tuple[int, ...] = Field(
        default=(), description="Whole groups to hold out instead, such as subjects of skeleton data."
    )
    limit: int | None = Field(
        default=None,
        ge=2,
        description="At most this many training samples, stratified by label where there are labels.",
    )
    store_size: int | None = Field(
        default=None,
        ge=8,
        le=4096,
        description="Side in pixels at which images are decoded once and kept; null: the input size, "
        "or 8/7 of it above 64 px so that crops have room.",
    )
    stream: bool = Field(
        default=False,
        description="Read pictures while training goes on and crop them at full resolution, instead of decoding all of "
        "them into squares first: for data that do not fit a disk or have detail to lose.",
    )
    stream_workers: int | None = Field(
        default=None, ge=1, le=256, description="Threads that read and crop; null: by the number of free cores."
    )
    stream_scaled: bool = Field(
        default=True,
        description="Decode a JPEG at 1/2, 1/4 or 1/8 of its resolution where every crop is still larger than its view "
        "then: up to several times as fast, and slightly other pixels.",
    )
    shuffle_gb: float | None = Field(
        default=None,
        gt=0,
        description="With stream, and data in shards: an epoch goes through groups of shards of at most so many "
        "gigabytes together, and samples are shuffled within a group. For remote sets that are larger than the disk "
        "(ZOO_COPIES_GB) and for slow disks. The smaller it is, the more a batch resembles few shards; null: all "
        "samples in one random order.",
    )
    title: str | None = Field(default=None, description="Name of the data on the card, where the files do not tell.")
    licence: str | None = Field(
        default=None, description="Licence of the data on the card, where the files do not tell."
    )


class Monitor(Strict):
    """Online kNN on held-out training samples."""

    every_epochs: float = Field(default=1.0, gt=0, description="Epochs between two measurements.")
    train_samples: int = Field(default=5000, ge=10, description="Training samples that serve as neighbours.")
    held_out_samples: int = Field(default=1000, ge=10, description="Held-out samples that are classified.")
    k: int = Field(default=20, ge=1, description="Neighbours that vote.")
