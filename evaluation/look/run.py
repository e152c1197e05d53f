"""`look`: all that an encoder says about pictures, with or without labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from evaluation.evaluate import limited
from evaluation.frozen import unit
from evaluation.look.clusters import Clusters, clusters
from evaluation.look.duplicates import Duplicates, near_duplicates, thumbnails_of
from evaluation.look.labels import LabelCheck, Overlap, check_labels, overlaps
from evaluation.look.outliers import Outliers, outliers
from evaluation.look.statistics import Covering, Spectrum, covering, spectrum
from evaluation.report.maps import Places, map_places
from zoo.console import Progress
from zoo.data.base import Dataset
from zoo.encoder import Encoder
from zoo.errors import DataError
from zoo.features.extract import embed
from zoo.features.samples import Samples, sample_paths

#: Pictures of each split that are looked at unless more are asked for: all pairs are compared.
LIMIT = 20_000
#: Points on the map: more would hide each other, and each carries its picture.
POINTS = 600
#: Below this share of agreement with the labels a reader is warned of what the probe suspects.
WEAK = 0.5


@dataclass(frozen=True)
class Look:
    """What `look` found. Rows count through all splits, one split after the other.

    Attributes:
        encoder: its name.
        parts: the splits as looked at.
        features: `(N, D)` float32.
        labels: `(N,)` class indices, or None if any split has none.
        spectrum: effective rank and RankMe.
        duplicates: near-duplicates within and across the splits.
        outliers, clusters, places, covering, check: None where they could not be made; `missing` says why.
        overlaps: classes that the probe takes for each other.
        missing: what could not be made -> the reason, a sentence.
        notes: other things that a reader must know.
    """

    encoder: str
    parts: tuple[Dataset, ...]
    features: np.ndarray
    labels: np.ndarray | None
    spectrum: Spectrum
    duplicates: Duplicates
    outliers: Outliers | None = None
    clusters: Clusters | None = None
    places: Places | None = None
    covering: Covering | None = None
    second: Dataset | None = None
    check: LabelCheck | None = None
    overlaps: tuple[Overlap, ...] = ()
    missing: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def class_names(self) -> Sequence[str]:
        return self.parts[0].class_names if self.labels is not None else ()

    def place_of(self, row: int) -> tuple[Dataset, int]:
        """The split and the sample within it that a row is."""
        for part in self.parts:
            if row < len(part):
                return part, row
            row -= len(part)
        raise IndexError(row)

    def samples(self) -> Samples:
        """One row per picture, with all that was found, for FiftyOne, Spotlight and pandas."""
        count = len(self.features)
        columns: dict[str, np.ndarray | list] = {"duplicate_group": self.duplicates.group}
        if self.outliers is not None:
            columns["outlier_score"] = self.outliers.score
            columns["outlier"] = np.isin(np.arange(count), self.outliers.flagged)
        if self.clusters is not None:
            columns["cluster"] = self.clusters.of
        if self.check is not None:
            names = self.class_names
            instead: list[str | None] = [None] * count
            for row, label in zip(self.check.suspected.tolist(), self.check.instead.tolist(), strict=True):
                instead[row] = names[label]
            columns["suspected_label"] = instead
            columns["predicted"] = [names[i] for i in self.check.predicted.tolist()]
            columns["probability"] = self.check.probability
        coordinates = None
        if self.places is not None:
            coordinates = np.full((count, 2), np.nan, dtype=np.float32)
            coordinates[self.places.rows] = self.places.places
        return Samples(
            path=[path for part in self.parts for path in sample_paths(part)],
            key=[key for part in self.parts for key in part.keys],
            split=[part.split for part in self.parts for _ in part.keys],
            label=self.labels,
            class_names=self.class_names,
            feature=self.features,
            coordinates=coordinates,
            columns=columns,
        )


def look(
    encoder: Encoder,
    dataset: Dataset | Sequence[Dataset],
    second: Dataset | None = None,
    *,
    out: str | Path | None = None,
    count: int | None = None,
    limit: int | None = LIMIT,
    seed: int = 0,
    precision: str = "auto",
    device: str | None = None,
    batch_size: int = 256,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Look:
    """Look at pictures through an encoder: how many directions it uses, near-duplicates, outliers, clusters, a map.

    With labels also: labels that are probably wrong, classes that overlap, samples a probe is confidently wrong about.

    Args:
        encoder: a loaded image encoder.
        dataset: a dataset, or several splits of one.
        second: other pictures, such as generated ones or those a model was trained on: how well they cover the first.
        out: a folder for `look.html`, which needs no other file, and `samples.csv` (see `Look.samples`).
        count: number of clusters; None picks it from the number of pictures.
        limit: at most this many pictures a split, drawn at random, stratified by label; None takes all.
        seed: the seed of all random choices.
        precision, device, batch_size, workers: of the forward pass, see `zoo.extract`.
        progress: called as `progress(what, done, total)`.

    Raises:
        DataError: fewer than two pictures, skeletons, a picture that cannot be read.
    """
    splits = [dataset] if isinstance(dataset, Dataset) else list(dataset)
    if not splits:
        raise DataError("no pictures were given; give a dataset or several splits")
    notes = []
    for each in [*splits, *([] if second is None else [second])]:
        if each.modality != "image":
            raise DataError(f"{each.name} holds {each.modality} sequences; `look` shows pictures, give images")
        if limit is not None and len(each) > limit:
            notes.append(f"{limit:,} of {len(each):,} pictures of {each.name}/{each.split} were looked at.")
    parts = tuple(limited(each, limit, seed) for each in splits)
    if sum(map(len, parts)) < 2:
        raise DataError(
            f"{parts[0].name} holds one picture; `look` compares pictures with each other, give two or more"
        )
    labels = _labels(parts)

    def features_of(part: Dataset) -> np.ndarray:
        advance = None if progress is None else lambda done, total: progress(f"features of {part.split}", done, total)
        return embed(
            encoder, part, precision=precision, device=device, batch_size=batch_size, workers=workers, progress=advance
        )

    features = np.concatenate([features_of(part) for part in parts])
    telling = progress or (lambda what, done, total: None)
    telling("near-duplicates", 0, 1)
    shades = np.concatenate([thumbnails_of(part) for part in parts])
    found = spectrum(features)
    made = {
        "encoder": encoder.name,
        "parts": parts,
        "features": features,
        "labels": labels,
        "spectrum": found,
        "duplicates": near_duplicates(features, shades),
        "second": None if second is None else limited(second, limit, seed),
    }
    missing: dict[str, str] = {}
    flat = found.constant == found.width or np.ptp(unit(features), axis=0).max() < 1e-6
    if flat:
        notes.append(
            f"All {found.samples:,} features are the same: either the pictures are, or the encoder has collapsed and "
            "tells nothing apart. Try another encoder."
        )
    telling("outliers, clusters and the map", 0, 1)
    for name, least, work in (
        ("outliers", 5, lambda: outliers(features)),
        ("clusters", 5, lambda: clusters(features, count, seed)),
        ("places", 5, lambda: map_places(features, points=POINTS, seed=seed)),
    ):
        if flat:
            missing[name] = "All features are the same, so there is nothing to tell apart."
        elif len(features) < least:
            missing[name] = f"{len(features)} pictures are too few; at least {least} are needed."
        else:
            made[name] = work()
    if second is not None:
        telling("density and coverage", 0, 1)
        others = features_of(made["second"])
        _try(made, missing, "covering", lambda: covering(features, others))
    if labels is None:
        missing["check"] = "The pictures have no labels (class folders give labels)."
    elif flat:
        missing["check"] = "All features are the same, so no probe can learn the labels."
    else:
        telling("labels", 0, 1)
        _try(made, missing, "check", lambda: check_labels(features, labels, seed))
    if made.get("check") is not None:
        if made["check"].accuracy < WEAK:
            notes.append(
                f"The probe agrees with only {100 * made['check'].accuracy:.0f} % of the labels: most labels that it "
                "suspects will be right. Give more pictures of each class, or an encoder that tells them apart."
            )
        made["overlaps"] = tuple(overlaps(made["check"]))
    result = Look(**made, missing=missing, notes=tuple(notes))
    if out is not None:
        from evaluation.look.page import write

        telling("the page", 0, 1)
        write(result, out)
    return result


def _try(made: dict, missing: dict[str, str], name: str, work: Callable[[], object]) -> None:
    """Keep what `work` gives, or the reason why it cannot be made."""
    try:
        made[name] = work()
    except DataError as error:
        missing[name] = f"{str(error)[0].upper()}{str(error)[1:]}."


def _labels(parts: Sequence[Dataset]) -> np.ndarray | None:
    if any(part.labels is None for part in parts):
        return None
    if any(part.class_names != parts[0].class_names for part in parts):
        raise DataError("the splits have different classes; look at each alone")
    return np.concatenate([part.labels for part in parts])
