"""Fine-tuning: learns, leaves its encoder alone, never sees test labels, images and skeletons alike."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from evaluation.command import ProbeOptions
from evaluation.evaluate import evaluate
from evaluation.protocols import describe, protocol
from evaluation.protocols.finetune import (
    SIMCLR_FEW_LABELS,
    SIMCLR_TRANSFER,
    FineTuner,
    FineTuneV2,
    _decay_groups,
    _trainable,
)
from evaluation.protocols.finetune_batches import RATIO, Images, crop_boxes, stored_side
from tests.zoo.checkpoints import same_weights, small_encoder, write_small
from zoo.architectures import build
from zoo.architectures.single_pixel import strided_on_one_pixel
from zoo.checkpoint.loading import load
from zoo.data.addresses import open_dataset
from zoo.data.images import ArrayImages
from zoo.errors import DataError, InputError
from zoo.preprocessing.skeleton import SkeletonInput
from zoo.strict import Architecture

SHORT = FineTuneV2(steps=30, batch_size=16, lr_grid=(0.05,))


@pytest.fixture(scope="module")
def colours():
    return coloured("train", 96, 0), coloured("test", 40, 1)


def coloured(split: str, n: int, seed: int) -> ArrayImages:
    """Four classes that differ in colour, under noise."""
    rng, labels = np.random.default_rng(seed), np.arange(n) % 4
    tint = np.array([[200, 80, 80], [80, 200, 80], [80, 80, 200], [160, 160, 80]])[labels]
    pixels = np.clip(tint[:, None, None] + rng.normal(0, 40, (n, 16, 16, 3)), 0, 255).astype(np.uint8)
    return ArrayImages("colours", split, pixels, labels, ["red", "green", "blue", "olive"])


def tune(settings, data, encoder=None, **changes):
    return FineTuner(settings, precision="fp32", **changes).tune(encoder or small_encoder(), *data)


def test_it_learns_repeats_and_leaves_the_encoder_as_it_was(colours):
    encoder, before = small_encoder(), small_encoder()
    first = tune(SHORT, colours, encoder)
    assert (first.predicted == colours[1].labels).mean() > 0.6  # chance is 0.25
    assert same_weights(encoder, before) and not encoder.training
    assert all(p.requires_grad for p in encoder.parameters())
    again = tune(SHORT, colours, encoder)
    assert (again.predicted == first.predicted).all() and again.chosen == first.chosen


def test_it_never_looks_at_test_labels(colours):
    train, test = colours
    blind = test.subset(np.arange(len(test)))
    blind.labels = np.zeros(len(test), dtype=np.int64)
    assert (tune(SHORT, (train, blind)).predicted == tune(SHORT, (train, test)).predicted).all()


def test_the_learning_rate_is_chosen_on_held_out_samples_and_edges_are_reported(colours):
    # A rate this small teaches nothing: the other must win, and it lies at the edge.
    outcome = tune(FineTuneV2(steps=40, batch_size=16, lr_grid=(1e-9, 0.05), held_out=0.3), colours)
    assert outcome.chosen["lr"] == 0.05 and "edge of the grid" in outcome.warnings[0]
    held = np.arange(0, len(colours[0]), 5)
    given = FineTuner(FineTuneV2(steps=2, batch_size=8), precision="fp32").tune(small_encoder(), *colours, held=held)
    assert round(given.chosen["held_out_top1"] * len(held), 6) % 1 == 0


def test_divergence_is_an_error_or_a_warning_never_a_number(colours):
    with pytest.raises(DataError, match="smaller values in lr_grid"):
        tune(FineTuneV2(steps=20, batch_size=16, lr_grid=(1e30,)), colours)
    outcome = tune(FineTuneV2(steps=10, batch_size=16, lr_grid=(0.05, 1e30)), colours)
    assert outcome.chosen["lr"] == 0.05 and any("diverged at the learning rates 1e+30" in w for w in outcome.warnings)


def test_skeletons_are_fine_tuned_by_the_same_object():
    data = [open_dataset("synthetic:motion?n=48", split) for split in ("train", "test")]
    torch.manual_seed(0)
    encoder = build(
        Architecture(family="skeleton_gru", arguments={"hidden": 8, "layers": 1}), SkeletonInput(steps=("align_mean",))
    ).eval()
    outcome = tune(FineTuneV2(epochs=2, batch_size=16, lr_grid=(0.1,)), data, encoder)
    assert outcome.predicted.shape == (len(data[1]),)
    assert outcome.chosen["steps"] == round(2 * len(data[0]) / 16)


def test_crops_stay_inside_and_keep_area_and_ratio():
    boxes = crop_boxes(2000, 32, (0.08, 1.0), np.random.default_rng(0))
    width, height = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    assert boxes.min() >= 0 and boxes.max() <= 32 + 1e-9
    area, ratio = width * height / 32**2, width / height
    assert area.min() >= 0.08 - 1e-9 and abs(area.mean() - 0.5) < 0.05
    assert ratio.min() >= RATIO[0] - 1e-9 and ratio.max() <= RATIO[1] + 1e-9
    assert (crop_boxes(3, 32, (4.0, 4.0), np.random.default_rng(0)) == [0, 0, 32, 32]).all()


def test_without_crop_and_flip_training_sees_what_evaluation_sees(colours):
    encoder, train = small_encoder(), colours[0]
    inputs = Images(encoder, train, FineTuneV2(crop_scale=(1.0, 1.0), flip=False))
    plain = torch.stack([encoder.transform()(train.sample(i)) for i in range(4)])
    # A full-area draw of another aspect ratio does not fit, so the whole square is left.
    x, lengths = inputs.batch(np.arange(4), np.random.default_rng(0))
    torch.testing.assert_close(x, plain)
    assert lengths is None and stored_side(train, (14, 14)) == 16 and stored_side(train, (224, 224)) == 224


def test_batch_norm_momentum_follows_the_paper():
    for steps, momentum in ((20, 0.1), (400, 0.025)):  # 1 - max(1 - 10/s, 0.9)
        network = _trainable(small_encoder(), steps)
        assert {m.momentum for m in network.modules() if isinstance(m, nn.BatchNorm2d)} == {momentum}


def test_norms_and_biases_are_not_decayed():
    network = _trainable(small_encoder(), 20)
    decayed, free = _decay_groups([*network.parameters(), *nn.Linear(4, 2).parameters()], 0.5)
    assert (decayed["weight_decay"], free["weight_decay"]) == (0.5, 0.0)
    assert {p.ndim for p in decayed["params"]} == {2, 4} and {p.ndim for p in free["params"]} == {1}
    norms = [p for m in network.modules() if isinstance(m, nn.BatchNorm2d) for p in m.parameters()]
    assert norms and {id(p) for p in norms} <= {id(p) for p in free["params"]}
    assert len(decayed["params"]) + len(free["params"]) == len(list(network.parameters())) + 2


def test_a_run_decays_matrices_only(colours, monkeypatch):
    """Without a gradient, one step of SGD with Nesterov momentum takes 1.9 times the decay of what it decays."""
    monkeypatch.setattr(FineTuner, "_loss", lambda self, network, *_: sum(0 * p.sum() for p in network.parameters()))
    encoder, train = small_encoder(), colours[0]
    tuner = FineTuner(FineTuneV2(steps=1, batch_size=16), precision="fp32", device="cpu")
    network, _, _ = tuner._train(encoder, train, train.labels, 4, (0.01, 0.5), "")
    for before, after in zip(encoder.parameters(), network.parameters(), strict=True):
        torch.testing.assert_close(after, before * (0.05 if before.ndim > 1 else 1))


def test_what_a_network_keeps_fixed_stays_fixed_and_what_somebody_froze_does_not(colours):
    arguments = {"widths": [8, 8, 8], "depth": 2}
    encoder = build(Architecture(family="airbench", arguments=arguments), small_encoder().input).eval()
    scales = [name for name, p in encoder.named_parameters() if not p.requires_grad]
    assert encoder.fixed == tuple(scales) and len(scales) == 6
    trained = {name for name, p in _trainable(encoder.requires_grad_(False), 20).named_parameters() if p.requires_grad}
    assert trained == {name for name, _ in encoder.named_parameters()} - set(scales)
    before = {name: encoder.get_parameter(name).clone() for name in scales}
    tuner = FineTuner(FineTuneV2(steps=3, batch_size=16), precision="fp32", device="cpu")
    network, _, _ = tuner._train(encoder, colours[0], colours[0].labels, 4, (0.1, 0.1), "")
    assert all(torch.equal(network.get_parameter(name), before[name]) for name in scales)


def test_the_papers_grids_and_the_text_of_the_protocol():
    paper = protocol("finetune", SIMCLR_TRANSFER).settings
    assert (len(paper.lr_grid), len(paper.weight_decay_grid)) == (7, 8)
    assert paper.lr_grid[0] == pytest.approx(1e-4) and paper.lr_grid[-1] == pytest.approx(0.1)
    assert protocol("finetune", SIMCLR_FEW_LABELS).settings.lr_grid == (0.05 * 4096 / 256,)
    assert "B.8.1" in describe("finetune-v2")
    options = ProbeOptions(protocol="finetune", simclr_finetune=True)
    assert protocol("finetune", options.settings()["finetune"]).settings == paper


def test_evaluate_runs_it_beside_the_untrained_network(tmp_path, colours):
    write_small(tmp_path / "simclr_small_toys")
    encoder = load(f"local-dir:{tmp_path / 'simclr_small_toys'}")
    small = {"finetune": {"steps": 2, "batch_size": 8, "lr_grid": [0.01]}}
    found = evaluate(encoder, *colours, protocols=["finetune"], settings=small, precision="fp32")
    assert [row.subject for row in found.rows] == ["encoder", "untrained"]
    assert found.rows[0].chosen["lr"] == 0.01 and set(found.predicted) == {"finetune-v2"}


def test_what_cannot_be_fine_tuned_is_refused(colours):
    train, test = colours
    one = train.subset(np.flatnonzero(train.labels == train.labels[0]))
    with pytest.raises(DataError, match="one class only"):
        tune(SHORT, (one, test))
    bare = train.subset(np.arange(len(train)))
    bare.labels = None
    with pytest.raises(DataError, match="no labels"):
        tune(SHORT, (bare, test))


def test_what_torch_trains_wrongly_in_bf16_on_a_cpu_is_trained_in_float32(colours, monkeypatch):
    arguments = {"model": "resnet10t", "model_args": {"channels": [8, 8, 16, 16], "stem_width": 8}}
    deep = build(Architecture(family="timm", arguments=arguments), small_encoder().input).eval()
    short = FineTuneV2(steps=2, batch_size=16, lr_grid=(0.05,))
    with pytest.raises(InputError, match=r"precision bf16 on the CPU.*backbone\.layer4\.0\.conv1.*'auto' or 'fp32'"):
        FineTuner(short, precision="bf16", device="cpu").tune(deep, *colours)
    monkeypatch.setattr(
        "evaluation.protocols.finetune.resolve_precision", lambda asked, _: "bf16" if asked == "auto" else asked
    )
    tuner = FineTuner(short, device="cpu")
    tuner.tune(deep, *colours)
    assert tuner.precision == "fp32"
    tuner.tune(small_encoder(), *colours)
    assert tuner.precision == ("fp32" if strided_on_one_pixel(small_encoder()) else "bf16")
