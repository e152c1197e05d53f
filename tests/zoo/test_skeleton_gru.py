"""The skeleton encoder: padding never matters, streams, pooling, wrong input, and the whole way through the zoo."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from zoo.architectures import build
from zoo.data.addresses import open_dataset
from zoo.errors import ConfigError, InputError
from zoo.features.extract import embed, extract
from zoo.preprocessing.image import ImageInput
from zoo.preprocessing.skeleton import SkeletonInput
from zoo.strict import Architecture

INPUT = SkeletonInput(steps=("centre_frames", "align_mean", "scale_torso"))


def encoder(input=INPUT, **arguments):
    torch.manual_seed(0)
    made = build(Architecture(family="skeleton_gru", arguments={"hidden": 12, "layers": 2, **arguments}), input)
    return made.eval()


def batch(frames=(9, 1, 4), joints=20):
    torch.manual_seed(1)
    lengths = torch.tensor(frames)
    x = torch.randn(len(frames), max(frames), joints, 3)
    return x * (torch.arange(max(frames)) < lengths[:, None])[..., None, None], lengths


@pytest.mark.parametrize("streams", [("joint",), ("joint", "bone", "motion")])
def test_a_sequence_has_the_same_features_alone_and_padded(streams):
    model = encoder(streams=streams)
    x, lengths = batch()
    together = model(x, lengths)
    assert together.shape == (3, 24) and together.dtype == torch.float32
    for i, n in enumerate(lengths.tolist()):
        torch.testing.assert_close(model(x[i : i + 1, :n]), together[i : i + 1], rtol=1e-5, atol=1e-6)
    frames = model.forward_features(x, lengths)
    assert frames.shape == (3, 9, 24) and not frames[1, 1:].any() and not frames[2, 4:].any()


def test_garbage_in_the_padding_changes_nothing():
    model = encoder(streams=("joint", "motion"))
    x, lengths = batch()
    dirty = x.clone()
    dirty[1, 1:] = 7.0
    torch.testing.assert_close(model(dirty, lengths), model(x, lengths))


def test_fed_padding_is_a_plain_gru_over_the_padded_batch():
    model = encoder(SkeletonInput(frames=12), padding="feed", pool="ms2l")
    x, lengths = batch()
    out, _ = model.gru(torch.nn.functional.pad(x.flatten(2), (0, 0, 0, 3)))
    expected = torch.stack([out[i, :n].sum(0) / (n + 0.01) for i, n in enumerate(lengths.tolist())])
    torch.testing.assert_close(model(x, lengths), expected)
    assert not torch.allclose(model(x, lengths)[1], encoder(SkeletonInput(frames=12), pool="ms2l")(x, lengths)[1])


def test_streams_are_what_they_say():
    model = encoder(streams=("joint", "bone", "motion"))
    x, lengths = batch()
    joint, bone, motion = model.streams(x, torch.arange(9) < lengths[:, None]).split(3, dim=-1)
    assert torch.equal(joint, x)
    assert torch.equal(bone[0, :, 5], x[0, :, 5] - x[0, :, 4]) and not bone[:, :, 0].any()
    assert torch.equal(motion[0, :-1], x[0, 1:] - x[0, :-1]) and not motion[0, -1].any()
    assert not motion[1].any(), "a single frame has no motion"


def test_two_bodies_have_bones_of_their_own():
    model = encoder(SkeletonInput(bodies=2), streams=("bone",))
    assert model.parents.tolist()[25] == 24 and model.parents.tolist()[20] == 20
    assert model(torch.randn(2, 3, 40, 3)).shape == (2, 24)


def test_initialisation_is_ms2ls():
    model = encoder()
    for name, parameter in model.gru.named_parameters():
        if name.startswith("bias"):
            assert not parameter.any()
        if name.startswith("weight_hh"):
            torch.testing.assert_close(parameter.T @ parameter, torch.eye(12), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("x", "lengths", "message"),
    [
        (torch.zeros(5, 20, 3), None, "batch axis"),
        (torch.zeros(2, 5, 25, 3), None, r"\(N, T, 20, 3\)"),
        (torch.zeros(2, 0, 20, 3), None, "empty batch"),
        (torch.zeros(2, 5, 20, 3), torch.tensor([5]), "lengths of shape"),
        (torch.zeros(2, 5, 20, 3), torch.tensor([5, 6]), r"1\.\.5"),
        (torch.zeros(2, 5, 20, 3), torch.tensor([5, 0]), r"1\.\.5"),
        (torch.zeros(2, 5, 20, 3), torch.tensor([5.0, 1.0]), "integer"),
        (torch.full((1, 5, 20, 3), torch.nan), None, "NaN"),
        (torch.zeros(1, 5, 20, 3, dtype=torch.int64), None, "float"),
    ],
)
def test_wrong_input_is_refused(x, lengths, message):
    with pytest.raises(InputError, match=message):
        encoder()(x, lengths)


@pytest.mark.parametrize(
    ("arguments", "input", "message"),
    [
        ({"streams": []}, INPUT, "at least one"),
        ({"streams": ["joint", "joint"]}, INPUT, "at most once"),
        ({"padding": "feed"}, INPUT, "input.frames"),
        ({}, ImageInput(), "takes skeletons"),
    ],
)
def test_wrong_arguments_are_refused(arguments, input, message):
    with pytest.raises(ConfigError, match=message):
        encoder(input, **arguments)


def test_extraction_of_ragged_data_equals_one_at_a_time(tmp_path):
    model, data = encoder(), open_dataset("synthetic:motion?n=24", "test")
    table = extract(model, data, batch_size=5, precision="fp32", out=tmp_path / "features.npz")
    transform = model.transform()
    with torch.no_grad():
        expected = torch.cat([model(transform(data.sample(i))[None]) for i in range(len(data))])
    np.testing.assert_allclose(table.features, expected.numpy(), rtol=1e-4, atol=1e-6)
    assert table.labels.tolist() == data.labels.tolist() and table.class_names == data.class_names
    sequences = [data.sample(i) for i in range(len(data))]
    np.testing.assert_allclose(embed(model, sequences, precision="fp32"), table.features, rtol=1e-4, atol=1e-6)
    subset = embed(model, data.subset([3, 1]), precision="fp32")
    np.testing.assert_allclose(subset, table.features[[3, 1]], rtol=1e-4, atol=1e-6)


def test_extraction_names_a_broken_sequence():
    good = np.zeros((4, 20, 3))
    with pytest.raises(InputError, match=r"sample '1'.*joint layout"):
        embed(encoder(), [good, np.zeros((4, 25, 3))])
    with pytest.raises(InputError, match="image data"):
        embed(encoder(), open_dataset("synthetic:shapes?n=8", "test"))


def test_mean_and_maximum_over_the_true_frames_side_by_side():
    model = encoder(pool="mean_max")
    x, lengths = batch()
    frames, pooled = model.forward_features(x, lengths), model(x, lengths)
    assert model.num_features == 48 and model.frame_features == 24
    for i, n in enumerate(lengths.tolist()):
        expected = torch.cat([frames[i, :n].mean(0), frames[i, :n].amax(0)])
        torch.testing.assert_close(pooled[i], expected, msg="zeros in the padding are no maximum")
    torch.testing.assert_close(model(x[:1]), pooled[:1])


def test_late_fusion_runs_each_stream_alone():
    model = encoder(fusion="late", streams=("joint", "bone", "motion"), pool="mean_max")
    x, lengths = batch()
    assert model.frame_features == 72 and model(x, lengths).shape == (3, 144)
    frames = model.forward_features(x, lengths)
    assert not frames[1, 1:].any() and not frames[2, 4:].any()
    streams = model.streams(x, torch.arange(9) < lengths[:, None]).split(3, dim=-1)
    for gru, stream, part in zip(model.grus, streams, frames.split(24, dim=-1), strict=True):
        for i, n in enumerate(lengths.tolist()):
            torch.testing.assert_close(part[i, :n], gru(stream[i : i + 1, :n].flatten(2))[0][0])


def test_batch_norm_evens_the_features_out_and_is_nothing_untrained():
    plain, model = encoder(pool="mean_max"), encoder(pool="mean_max", norm="batch")
    x, lengths = batch((9, 1, 4, 7, 7, 5))
    torch.testing.assert_close(model(x, lengths), plain(x, lengths), rtol=1e-4, atol=1e-6)
    assert not list(model.norm.parameters())
    even = model.train()(x, lengths)
    torch.testing.assert_close(even.mean(0), torch.zeros(48), atol=1e-5, rtol=0)
    for _ in range(400):
        model(x, lengths)
    # Running variances are unbiased, those of a batch are not.
    torch.testing.assert_close(model.eval()(x, lengths), even * (5 / 6) ** 0.5, atol=0.02, rtol=0.02)
