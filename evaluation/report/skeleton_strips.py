"""Skeleton strips: sequences, what an encoder sees of them, and what can be read from it of the hidden rest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from evaluation.report.drawing import FAINT, TEXT, Figure, canvas, class_name, png, style
from zoo.data.base import Dataset
from zoo.encoder import Encoder
from zoo.errors import DataError
from zoo.preprocessing.joints import Layout, layout
from zoo.preprocessing.skeleton import pad_sequences

LEFT, RIGHT, TRUNK = "#3f90da", "#e76300", TEXT
#: As in MS2L's motion prediction: the last 30 % of the frames are hidden.
HIDDEN = 0.3
#: Sequences that the linear readout is fitted on, and that its error is measured on.
FITTED, MEASURED = 300, 200
ROWS = ("input", "masked", "predicted")


def motion_strips(
    encoder: Encoder, train: Dataset, test: Dataset, *, sequences: int = 3, columns: int = 9, seed: int = 0
) -> Figure | None:
    """Test sequences drawn at random: input, input with the end hidden, and the hidden end as read from the features.

    The encoder sees the first 70 % of a sequence; a ridge regression, fitted on training sequences, reads from the
    frozen encoder's features of each hidden frame how far the joints have moved since the last seen one.

    Args:
        encoder: of skeletons. train, test: splits whose sequences fit it.
        sequences: how many to draw. columns: frames of each.
        seed: of the draws.

    Returns:
        None where there is nothing to show: images, or sequences of fewer than 4 frames.

    Raises:
        DataError: a sequence that does not fit the encoder.
    """
    if encoder.modality != "skeleton" or test.modality != "skeleton":
        return None
    rng = np.random.default_rng(seed)
    known = _hidden_ends(encoder, train, rng.permutation(len(train))[:FITTED])
    asked = _hidden_ends(encoder, test, rng.permutation(len(test))[:MEASURED])
    if not known or not asked:
        return None
    readout = _Readout.fit(known)
    guesses = [readout.predict(end) for end in asked]
    error = _mean_error(guesses, asked)
    still = _mean_error([np.repeat(end.last, len(end.frames) - end.seen, axis=0) for end in asked], asked)
    graph = layout(encoder.input.layout)
    with style():
        picture = _strips(asked[:sequences], guesses[:sequences], graph, columns, test.class_names)
    caption = (
        f"{min(sequences, len(asked))} {test.split} sequences drawn at random (seed {seed}), {columns} frames of each "
        "as the encoder's preprocessing gives them, seen from the front; the person's left is blue, the right orange. "
        f"Masked: the encoder sees the first {1 - HIDDEN:.0%}. Predicted: the last seen pose plus its motion since, a "
        f"linear readout of the frozen features, fitted on {len(known)} training sequences (the truth in grey). "
        f"Mean distance of a hidden joint from the truth over {len(asked)} test sequences: {error:.3f}; of the last "
        f"seen pose held still: {still:.3f} (in units of the preprocessed coordinates)."
    )
    return Figure("skeleton_strips", picture, caption, "Rows of stick figures: input, masked input, predicted end.")


@dataclass(frozen=True)
class _End:
    """A sequence `(T, V, 3)` whose frames from `seen` on are hidden, the features `(T - seen, D)` there, its class."""

    frames: np.ndarray
    seen: int
    features: np.ndarray
    label: int | None

    @property
    def last(self) -> np.ndarray:
        """The last seen pose, `(1, V, 3)`."""
        return self.frames[self.seen - 1 : self.seen]


def _hidden_ends(encoder: Encoder, dataset: Dataset, rows: np.ndarray) -> list[_End]:
    transform = encoder.transform()
    chosen = [(row, transform.frames(dataset.sample(int(row)))) for row in rows.tolist()]
    chosen = [(row, x) for row, x in chosen if len(x) >= 4]
    ends = []
    for start in range(0, len(chosen), 100):
        part = chosen[start : start + 100]
        x, lengths = pad_sequences([frames for _, frames in part])
        seen = torch.ceil(lengths * (1 - HIDDEN) - 1e-6).long()
        masked = x * (torch.arange(x.shape[1]) < seen[:, None])[..., None, None]
        with torch.inference_mode():
            features = encoder.forward_features(masked, lengths).float().numpy()
        for (row, frames), first, found in zip(part, seen.tolist(), features, strict=True):
            label = None if dataset.labels is None else int(dataset.labels[row])
            ends.append(_End(frames, first, found[first : len(frames)], label))
    return ends


@dataclass(frozen=True)
class _Readout:
    """Ridge regression from standardised features to motion since the last seen pose."""

    mean: np.ndarray
    scale: np.ndarray
    model: Any
    joints: int

    @classmethod
    def fit(cls, ends: list[_End]) -> _Readout:
        from sklearn.linear_model import Ridge

        x = np.concatenate([end.features for end in ends])
        y = np.concatenate([(end.frames[end.seen :] - end.last).reshape(len(end.features), -1) for end in ends])
        if not np.isfinite(x).all():
            raise DataError("features hold NaN or infinite values")
        mean, scale = x.mean(axis=0), np.maximum(x.std(axis=0), 1e-6)
        return cls(mean, scale, Ridge(alpha=100.0).fit((x - mean) / scale, y), ends[0].frames.shape[1])

    def predict(self, end: _End) -> np.ndarray:
        """The hidden frames `(T - seen, V, 3)`."""
        moved = self.model.predict((end.features - self.mean) / self.scale)
        return end.last + moved.reshape(len(end.features), self.joints, 3)


def _mean_error(guesses: list[np.ndarray], ends: list[_End]) -> float:
    apart = [np.linalg.norm(guess - end.frames[end.seen :], axis=-1) for guess, end in zip(guesses, ends, strict=True)]
    return float(np.concatenate([a.reshape(-1) for a in apart]).mean())


def _strips(ends: list[_End], guesses: list[np.ndarray], graph: Layout, columns: int, names: Any) -> bytes:
    cell, tall, side, head, gap = 0.85, 1.15, 0.8, 0.28, 0.12
    width = side + columns * cell + 0.1
    height = len(ends) * (head + len(ROWS) * tall + gap)
    drawing = canvas(width, height)
    for number, (end, guess) in enumerate(zip(ends, guesses, strict=True)):
        top = height - number * (head + len(ROWS) * tall + gap)
        title = "" if end.label is None else class_name(names, end.label, 60)
        drawing.text(side / width, (top - head * 0.6) / height, title, weight="bold", va="center")
        moments = np.unique(np.linspace(0, len(end.frames) - 1, columns).round().astype(int))
        body = end.frames[moments, : len(graph)]
        middle = (body.max(axis=(0, 1)) + body.min(axis=(0, 1)))[:2] / 2
        reach = max(np.ptp(body[..., 1]) / 2, np.ptp(body[..., 0]) / 2 * tall / cell, 1e-3) * 1.08
        for row, name in enumerate(ROWS):
            bottom = top - head - (row + 1) * tall
            drawing.text(0.05 / width, (bottom + tall / 2) / height, name, va="center", fontsize=8.5)
            for column, moment in enumerate(moments.tolist()):
                box = ((side + column * cell) / width, bottom / height, cell / width, tall / height)
                axes = drawing.add_axes(box)
                axes.set(xticks=[], yticks=[])
                axes.set_xlim(middle[0] - reach * cell / tall, middle[0] + reach * cell / tall)
                axes.set_ylim(middle[1] - reach, middle[1] + reach)
                axes.spines[:].set(edgecolor=FAINT, linewidth=0.5)
                hidden = moment >= end.seen
                if hidden and name == "masked":
                    axes.set_facecolor("#eceef0")
                    continue
                truth = end.frames[moment]
                if hidden and name == "predicted":
                    _figure(axes, truth, graph, faint=True)
                    truth = guess[moment - end.seen]
                _figure(axes, truth, graph)
                if name == "input":
                    axes.text(0.04, 0.02, str(moment + 1), transform=axes.transAxes, fontsize=6.5, color="#717581")
    return png(drawing)


def _figure(axes: Any, pose: np.ndarray, graph: Layout, faint: bool = False) -> None:
    """A stick figure of the first body; joints that were not tracked are left out."""
    for joint, parent in graph.edges:
        ends = pose[[joint, parent]]
        known = ends.any(axis=1)
        # The root itself may lie at the origin; elsewhere zeros mean untracked.
        if not known[0] or not (known[1] or parent == graph.parents[parent]):
            continue
        name = graph.joints[joint]
        colour = FAINT if faint else LEFT if name.startswith("left") else RIGHT if name.startswith("right") else TRUNK
        axes.plot(ends[:, 0], ends[:, 1], color=colour, linewidth=1.6, solid_capstyle="round")
