"""Skeletons go through the same evaluation as images: floors, report with strips, demo."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image

from evaluation.demo import default_data, default_encoder
from evaluation.demo import run as demo
from evaluation.evaluate import evaluate
from evaluation.floors import raw
from evaluation.report.skeleton_strips import HIDDEN, _hidden_ends, motion_strips
from tests.zoo.checkpoints import small_encoder
from training.augment.skeleton_guises import seen_frames
from zoo.architectures import build
from zoo.checkpoint.config import CheckpointConfig, Method
from zoo.checkpoint.loading import load
from zoo.checkpoint.writing import write_checkpoint
from zoo.data.addresses import open_dataset
from zoo.data.skeletons import SkeletonSequence
from zoo.errors import UnknownNameError
from zoo.preprocessing.skeleton import SkeletonInput
from zoo.strict import Architecture

DATA = "synthetic:motion?n=64&sway=20"
ARCHITECTURE = Architecture(family="skeleton_gru", arguments={"hidden": 12, "layers": 1, "pool": "mean_max"})


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    from training.recipe import read_recipe
    from zoo.checkpoint.config import DatasetRecord, Training

    torch.manual_seed(0)
    encoder = build(ARCHITECTURE, SkeletonInput(steps=("centre_frames", "align_mean", "scale_torso")))
    folder = tmp_path_factory.mktemp("skeletons") / "ms2l_small_motion"
    data = DatasetRecord(name="motion", split="train", samples=64, fingerprint="0" * 64, licence="MIT")
    training = Training(
        recipe=read_recipe("smoke_ms2l").dump(), dataset=data, epochs=0, steps=0, samples_seen=0, seed=0,
        code_commit="0" * 40, versions={}, hardware="none", wall_time_s=0,
    )  # fmt: skip
    method = Method(name="ms2l", title="MS²L", paper="none")
    config = write_checkpoint(
        encoder, folder, name="ms2l_small_motion", architecture=ARCHITECTURE, method=method, training=training
    )
    assert isinstance(config, CheckpointConfig)
    return f"local-dir:{folder}"


def test_every_subject_stands_under_every_protocol(address):
    train, test = open_dataset(DATA, "train"), open_dataset(DATA, "test")
    found = evaluate(load(address), train, test, protocols=["logreg", "knn", "few_label"], precision="fp32")
    subjects = [row.subject for row in found.rows if row.protocol == "logreg-v3"]
    assert subjects == ["encoder", "untrained", "raw"] and {row.modality for row in found.rows} == {"skeleton"}
    assert len(found.rows) == 3 * (1 + 1 + 4)


def test_the_raw_floor_is_joints_of_all_but_the_origin_whatever_the_encoder_does(address):
    data = open_dataset(DATA, "test")
    rows = raw(load(address), data)
    assert rows.shape == (len(data), 32 * 19 * 3) and np.isfinite(rows).all()
    other = build(ARCHITECTURE, SkeletonInput(steps=("ms2l_frames", "resample:5"), frames=5))
    np.testing.assert_array_equal(rows, raw(other, data))


def test_strips_hide_what_ms2l_hides(address):
    encoder, data = load(address), open_dataset(DATA, "test")
    ends = _hidden_ends(encoder, data, np.arange(6))
    lengths = torch.tensor([len(end.frames) for end in ends])
    assert [end.seen for end in ends] == seen_frames(lengths, HIDDEN).tolist()
    first = ends[0]
    assert first.features.shape == (len(first.frames) - first.seen, encoder.frame_features)
    # The hidden frames do not reach the features.
    masked = encoder.transform().frames(data.sample(0)).copy()
    masked[first.seen :] = 0
    alone = encoder.forward_features(torch.from_numpy(masked)[None])[0, first.seen :]
    torch.testing.assert_close(torch.from_numpy(first.features), alone, rtol=1e-4, atol=1e-5)


def test_strips_are_drawn_for_skeletons_only(address):
    encoder, train, test = load(address), open_dataset(DATA, "train"), open_dataset(DATA, "test")
    figure = motion_strips(encoder, train, test, sequences=2, columns=5)
    picture = Image.open(io.BytesIO(figure.png)).convert("RGB")
    assert picture.width > 500 and len(picture.getcolors(1 << 20)) > 20
    assert "held still" in figure.caption
    images = open_dataset("synthetic:shapes?n=16&size=16", "test")
    assert motion_strips(small_encoder(), images, images) is None
    short = SkeletonSequence([np.ones((2, 20, 3), dtype=np.float32)])
    assert motion_strips(encoder, train, short) is None


def test_the_demo_runs_on_made_motion(address, tmp_path, capsys):
    report = demo(encoder=address, data=DATA, out=tmp_path, modality="skeleton")
    text = report.read_text()
    assert "raw joints" in text and "skeleton_strips" in {p.stem for p in tmp_path.glob("*.png")}
    assert "raw joints" in capsys.readouterr().out
    assert default_data("skeleton").startswith("synthetic:motion")
    with pytest.raises(UnknownNameError, match="'skeleton'"):
        default_encoder("skeletons")
