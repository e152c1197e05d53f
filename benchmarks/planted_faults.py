"""How many planted faults `zoo look` finds: copies, swapped labels and foreign pictures put into real pictures.

    python benchmarks/planted_faults.py simclr_airbench95_cifar10 data/cifar10 --foreign data/flowers102
    python benchmarks/planted_faults.py simclr_unet_flowers102 data/flowers102 --foreign data/cifar10

Settings of the finders were chosen on training pictures; this runs on the test split. Recall is the share of planted
faults that are found, precision the share of what is found that was planted. Real data hold faults of their own, which
count against precision here: the numbers are lower bounds of it.
"""

from __future__ import annotations

import argparse
import io
import json
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

import zoo
from evaluation.evaluate import limited
from evaluation.frozen import cached_features
from evaluation.look.duplicates import near_duplicates, thumbnails_of
from evaluation.look.labels import check_labels
from evaluation.look.outliers import outliers
from zoo.console import stages
from zoo.data.base import Dataset
from zoo.data.images import ImageSequence
from zoo.features.extract import embed
from zoo.preprocessing.picture import to_rgb


def recompressed(image: Image.Image) -> Image.Image:
    """JPEG at quality 60."""
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=60)
    return Image.open(buffer).convert("RGB")


def resized(image: Image.Image) -> Image.Image:
    """Three quarters of the side."""
    return image.resize((image.width * 3 // 4, image.height * 3 // 4), Image.Resampling.BICUBIC)


def cropped(image: Image.Image) -> Image.Image:
    """An eighth of width and height cut off, twice as much on one side as on the other, then the old size."""
    x, y = image.width / 24, image.height / 24
    box = (x, 2 * y, image.width - 2 * x, image.height - y)
    return image.resize(image.size, Image.Resampling.BICUBIC, box=box)


#: kind of copy -> how it is made.
COPIES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "exact": lambda image: image,
    "recompressed": recompressed,
    "resized": resized,
    "brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.25),
    "mirrored": ImageOps.mirror,
    "cropped": cropped,
}


def score(found: np.ndarray, planted: np.ndarray) -> dict[str, float | int]:
    """Recall and precision of a set of rows."""
    hits = np.isin(found, planted)
    return {
        "planted": len(planted),
        "found": len(found),
        "recall": round(float(hits.sum() / len(planted)), 4),
        "precision": round(float(hits.mean()), 4) if len(found) else 0.0,
    }


def copies(encoder: zoo.Encoder, data: Dataset, features: np.ndarray, share: float, seed: int) -> dict[str, object]:
    """Near-duplicates: one changed copy of a share of the pictures, each kind equally often."""
    rng = np.random.default_rng(seed)
    chosen = rng.permutation(len(data))[: max(len(COPIES), round(share * len(data)))]
    kinds = np.array([list(COPIES)[i % len(COPIES)] for i in range(len(chosen))])
    made = [COPIES[kind](to_rgb(data.sample(int(i)))) for i, kind in zip(chosen, kinds, strict=True)]
    extra = ImageSequence(made)
    both = np.concatenate([features, embed(encoder, extra)])
    found = near_duplicates(both, np.concatenate([thumbnails_of(data), thumbnails_of(extra)]))
    pairs = {tuple(pair) for pair in found.pairs.tolist()}
    hit = np.array([(int(i), len(data) + row) in pairs for row, i in enumerate(chosen)])
    # A natural near-duplicate of a picture is one of its copy as well: only pairs of two originals count as wrong.
    natural = (found.pairs < len(data)).all(axis=1)
    return {
        "planted": len(chosen),
        "recall": round(float(hit.mean()), 4),
        "precision": round(float(1 - natural.mean()), 4) if len(natural) else 0.0,
        "pairs_of_two_originals": int(natural.sum()),
        "recall_of_each_kind": {kind: round(float(hit[kinds == kind].mean()), 4) for kind in COPIES},
        "originals": [[data.keys[i] for i in pair] for pair in found.pairs[natural][:50].tolist()],
    }


def outlying(encoder: zoo.Encoder, features: np.ndarray, planted: object) -> dict[str, object]:
    """How many of the planted pictures are flagged, and how many are among the first as many by score."""
    both = np.concatenate([features, embed(encoder, planted)])
    found, rows = outliers(both), np.arange(len(features), len(both))
    return score(found.flagged, rows) | {"recall_of_the_first": score(found.order[: len(rows)], rows)["recall"]}


def foreign(encoder: zoo.Encoder, features: np.ndarray, other: Dataset, share: float, seed: int) -> dict[str, object]:
    """Outliers: pictures of another dataset, drawn at random, as a share of these."""
    count = max(1, round(share * len(features)))
    return outlying(encoder, features, other.subset(np.random.default_rng(seed).permutation(len(other))[:count]))


def broken(encoder: zoo.Encoder, features: np.ndarray, share: float, seed: int) -> dict[str, object]:
    """Outliers: pictures of noise and pictures of one colour, as many of each."""
    rng = np.random.default_rng(seed)
    made: list[Image.Image] = []
    for _ in range(max(1, round(share * len(features) / 2))):
        made.append(Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)))
        made.append(Image.new("RGB", (64, 64), tuple(rng.integers(0, 256, 3).tolist())))
    return outlying(encoder, features, made)


def swapped(features: np.ndarray, labels: np.ndarray, share: float, seed: int) -> dict[str, object]:
    """Suspected labels: a share of the labels replaced by another class, drawn at random."""
    rng = np.random.default_rng(seed)
    classes = int(labels.max()) + 1
    planted = rng.permutation(len(labels))[: max(1, round(share * len(labels)))]
    wrong = labels.copy()
    wrong[planted] = (labels[planted] + rng.integers(1, classes, len(planted))) % classes
    clean = check_labels(features, labels, seed)
    found = check_labels(features, wrong, seed)
    surest = found.given_probability.argsort(kind="stable")[: len(planted)]
    return score(found.suspected, planted) | {
        "recall_of_the_first": score(surest, planted)["recall"],
        "suspected_without_planting": len(clean.suspected),
        "probe_accuracy_on_clean_labels": round(clean.accuracy, 4),
    }


def main() -> None:
    """Print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("encoder")
    parser.add_argument("data")
    parser.add_argument("--split", default="test")
    parser.add_argument("--foreign", required=True, help="a dataset of other pictures; its test split is drawn from")
    parser.add_argument("--limit", type=int, default=5000, help="pictures, stratified")
    parser.add_argument("--copies", type=float, default=0.05, help="share of pictures that get a copy")
    parser.add_argument("--outliers", type=float, default=0.01, help="foreign pictures as a share of these")
    parser.add_argument("--swapped", type=float, default=0.05, help="share of labels that are swapped")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    encoder = zoo.load(options.encoder)
    data = limited(zoo.open_dataset(options.data, options.split), options.limit, options.seed)
    with stages() as progress:
        features = cached_features(encoder, data, progress=lambda done, total: progress("features", done, total))
    other = zoo.open_dataset(options.foreign, "test")
    report = {
        "encoder": options.encoder,
        "data": f"{data.name}/{data.split}",
        "pictures": len(data),
        "seed": options.seed,
        "copies": copies(encoder, data, features, options.copies, options.seed),
        "foreign_pictures": foreign(encoder, features, other, options.outliers, options.seed),
        "noise_and_plain_pictures": broken(encoder, features, options.outliers, options.seed),
        "swapped_labels": swapped(features, data.labels, options.swapped, options.seed),
    }
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
