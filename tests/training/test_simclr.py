"""SimCLR beside Algorithm 1: views, joint forward, heads, settings."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.training.distributed_cases import NO_RUN, TinyEncoder
from training.losses import contrastive_accuracy, nt_xent, nt_xent_logits, views_loss
from training.methods import method_class
from training.methods.base import Context
from training.methods.simclr import SimCLR
from training.modules.heads import HEADS, projection_head
from zoo.errors import ConfigError
from zoo.preprocessing.image import ImageInput
from zoo.preprocessing.skeleton import SkeletonInput
from zoo.strict import validate

CONTEXT = Context(image_size=8, global_batch=6, total_steps=10, samples=60)


def simclr(**config) -> SimCLR:
    torch.manual_seed(0)
    return SimCLR(TinyEncoder(nn.BatchNorm2d), SimCLR.Config(**config), CONTEXT)


def batch(n: int = 6, side: int = 12) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    images = torch.randint(0, 256, (n, 3, side, side), generator=generator, dtype=torch.uint8)
    return {"images": images.contiguous(memory_format=torch.channels_last)}


def test_registered():
    assert method_class("simclr") is SimCLR


# -- views -----------------------------------------------------------------------------------------


def test_two_views_depend_on_the_generator_only():
    method = simclr()
    first, second = method.views(batch(), torch.Generator().manual_seed(1))
    again = method.views(batch(), torch.Generator().manual_seed(1))
    assert first.shape == second.shape == (6, 3, 8, 8) and first.dtype == torch.float32
    assert torch.equal(first, again[0]) and torch.equal(second, again[1])
    assert not torch.equal(first, second)
    assert first.min() >= 0 and first.max() <= 1


def test_view_size_can_change_while_training():
    method = simclr()
    method.set_view_size(10)
    assert [v.shape[-1] for v in method.views(batch(), torch.Generator().manual_seed(1))] == [10, 10]


def test_views_are_normalised_as_the_encoder_expects():
    plain = simclr().views(batch(), torch.Generator().manual_seed(1))[0]
    encoder = TinyEncoder(nn.BatchNorm2d)
    encoder.input = ImageInput(size=(8, 8), mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))
    method = SimCLR(encoder, SimCLR.Config(), CONTEXT)
    view = method.views(batch(), torch.Generator().manual_seed(1))[0]
    mean, std = (torch.tensor(x).view(3, 1, 1) for x in (encoder.input.mean, encoder.input.std))
    torch.testing.assert_close(view, (plain - mean) / std, rtol=1e-4, atol=1e-4)


def test_two_normalisations_that_disagree_are_refused():
    config = SimCLR.Config(augment={"preset": "cifar", "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)})
    with pytest.raises(ConfigError, match=r"set input\.mean and input\.std only"):
        SimCLR(TinyEncoder(nn.BatchNorm2d), config, CONTEXT)


def test_skeleton_encoder_is_refused():
    encoder = TinyEncoder(nn.BatchNorm2d)
    encoder.input = SkeletonInput(joints=20)
    with pytest.raises(ConfigError, match="takes skeleton input"):
        SimCLR(encoder, SimCLR.Config(), CONTEXT)


# -- loss ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("head", HEADS)
def test_loss_is_nt_xent_of_one_joint_forward(head):
    method = simclr(head=head, temperature=0.2, out_dim=5)
    a, b = method.views(batch(), torch.Generator().manual_seed(1))
    out = method([a, b])
    h = method.encoder(torch.cat([a, b]))
    z = method.head(h)
    assert z.shape == (12, 12 if head == "none" else 5)
    expected = nt_xent(z[:6], z[6:], 0.2)
    torch.testing.assert_close(out["loss"], expected)
    # Gradients must reach z as a candidate too, not only as an anchor.
    weights = list(method.parameters())
    for ours, plain in zip(
        torch.autograd.grad(out["loss"], weights), torch.autograd.grad(expected, weights), strict=True
    ):
        torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-5)
    assert out["loss"].requires_grad and not out["accuracy"].requires_grad
    assert 0 <= out["accuracy"] <= 1


def test_both_views_share_batch_norm_statistics():
    method = simclr()
    method([torch.zeros(6, 3, 8, 8), torch.ones(6, 3, 8, 8)])
    norm = method.encoder.network[1]
    assert norm.num_batches_tracked == 1


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"loss": "dcl"},
        {"views": [{"count": 4}], "positives": "mean"},
        {"views": [{"count": 2}, {"count": 2, "size": 8, "native": True}], "loss": "dcl", "positives": "mean"},
    ],
)
def test_training_tells_images_apart(config):
    """Images of one colour each, views that keep the colour: soon every image finds its own other views."""
    method = simclr(temperature=0.1, augment={"preset": "cifar", "strength": 0.02, "greyscale_p": 0}, **config)
    colours = torch.cartesian_prod(*[torch.tensor([40, 210], dtype=torch.uint8)] * 3)
    coloured = {"images": colours[:, :, None, None].expand(8, 3, 12, 12).contiguous()}
    optimizer = torch.optim.Adam(method.parameters(), lr=0.01)
    generator = torch.Generator().manual_seed(1)
    losses = []
    for step in range(40):
        views = method.views(coloured, generator)
        out = method(views)
        optimizer.zero_grad()
        out["loss"].backward()
        optimizer.step()
        method.after_step(step, NO_RUN)
        losses.append(out["loss"].item())
    # The decoupled loss may even fall below 0.
    assert losses[-1] < 0.3 * losses[0]
    assert out["accuracy"] == 1


def test_bfloat16_autocast_keeps_the_loss_in_float32():
    method = simclr(head="official")
    views = method.views(batch(), torch.Generator().manual_seed(1))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = method(views)["loss"]
    loss.backward()
    assert loss.dtype == torch.float32
    assert all(torch.isfinite(p.grad).all() for p in method.parameters())


# -- several views ---------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("head", ["paper", "official"])
def test_two_views_are_bit_for_bit_those_of_the_first_release(head, dtype):
    """What SimCLR did before it took several views, copied here: views, loss, gradients, buffers."""
    old, new = simclr(head=head), simclr(head=head)
    generators = [torch.Generator().manual_seed(1) for _ in range(2)]
    for side in (8, 10):
        new.set_view_size(side)
        expected = [old.augment(batch()["images"], generators[0], size=side) for _ in range(2)]
        views = new.views(batch(), generators[1])
        assert len(views) == 2 and all(torch.equal(*pair) for pair in zip(views, expected, strict=True))
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
            z_i, z_j = old.head(old.encoder(torch.cat(expected))).float().chunk(2)
            s, positives = nt_xent_logits(z_i, z_j, 0.5)
            loss, out = F.cross_entropy(s, positives), new(views)
        assert torch.equal(out["loss"], loss) and torch.equal(out["accuracy"], contrastive_accuracy(s, positives))
        loss.backward()
        out["loss"].backward()
    assert all(torch.equal(a.grad, b.grad) for a, b in zip(old.parameters(), new.parameters(), strict=True))
    assert all(torch.equal(a, b) for a, b in zip(old.buffers(), new.buffers(), strict=True))


def test_the_views_of_each_crop_come_in_order():
    method = simclr(views=[{"count": 2}, {"size": 10, "scale": (0.05, 0.2)}, {"size": 9, "native": True, "count": 2}])
    views = method.views(batch(), torch.Generator().manual_seed(1))
    assert [v.shape[-1] for v in views] == [8, 8, 10, 9, 9]
    method.set_view_size(4)
    assert [v.shape[-1] for v in method.views(batch(), torch.Generator().manual_seed(1))] == [4, 4, 5, 4, 4]


@pytest.mark.parametrize("loss", ["nt_xent", "dcl"])
@pytest.mark.parametrize("positives", ["each", "mean"])
def test_several_views_make_one_loss_and_one_forward_per_size(positives, loss):
    method = simclr(views=[{"count": 2}, {"count": 2, "size": 10}], positives=positives, loss=loss, temperature=0.3)
    a, b, c, d = views = method.views(batch(), torch.Generator().manual_seed(1))
    out = method(views)
    assert method.encoder.network[1].num_batches_tracked == 2
    large, small = (method.head(method.encoder(torch.cat(pair))).view(2, 6, -1) for pair in ((a, b), (c, d)))
    z = torch.cat([large, small]).transpose(0, 1)
    expected, accuracy = views_loss(z, 0.3, positives=positives, decoupled=loss == "dcl")
    torch.testing.assert_close(out["loss"], expected)
    assert out["accuracy"] == accuracy


def test_decoupled_loss_of_two_views_leaves_the_positive_out():
    method = simclr(loss="dcl", temperature=0.3)
    views = method.views(batch(), torch.Generator().manual_seed(1))
    z = method.head(method.encoder(torch.cat(views)))
    s, positives = nt_xent_logits(z[:6], z[6:], 0.3)
    positive = s.gather(1, positives[:, None])
    negatives = s.scatter(1, positives[:, None], -torch.inf).logsumexp(1, keepdim=True)
    torch.testing.assert_close(method(views)["loss"], (negatives - positive).mean())


# -- heads -----------------------------------------------------------------------------------------


def kinds(head: nn.Module) -> list[str]:
    return [type(layer).__name__ for layer in head]


def test_paper_head():
    head = projection_head("paper", 512)
    assert kinds(head) == ["Linear", "ReLU", "Linear"]
    assert [tuple(p.shape) for p in head.parameters()] == [(512, 512), (512,), (128, 512), (128,)]


@pytest.mark.parametrize(("name", "widths"), [("official", [512, 100, 64]), ("v2", [512, 100, 100, 64])])
def test_official_heads(name, widths):
    torch.manual_seed(0)
    head = projection_head(name, 512, hidden=100, out=64)
    layers = len(widths) - 1
    assert kinds(head) == (["Linear", "BatchNorm1d", "ReLU"] * layers)[:-1]
    linears = [m for m in head if isinstance(m, nn.Linear)]
    assert [(m.in_features, m.out_features) for m in linears] == list(pairwise(widths))
    assert all(m.bias is None and abs(m.weight.std().item() - 0.01) < 0.001 for m in linears)
    norms = [m for m in head if isinstance(m, nn.BatchNorm1d)]
    assert [m.bias is None for m in norms] == [False] * (layers - 1) + [True]
    out = head(torch.randn(32, 512))
    torch.testing.assert_close(out.mean(0), torch.zeros(64), atol=1e-5, rtol=0)


def test_unknown_head_names_the_nearest():
    with pytest.raises(ConfigError, match="did you mean 'official'"):
        projection_head("offical", 8)


# -- settings --------------------------------------------------------------------------------------


def test_augment_takes_a_preset_or_changes_to_one():
    cifar = SimCLR.Config(augment="cifar").augment
    assert SimCLR.Config().augment == cifar
    changed = SimCLR.Config(augment={"preset": "cifar", "strength": 0.3}).augment
    assert changed == cifar.model_copy(update={"strength": 0.3})
    assert SimCLR.Config(augment="imagenet").augment.blur_p == 0.5


def test_settings_survive_the_run_folder():
    config = SimCLR.Config(augment={"preset": "moco", "strength": 0.3}, head="v2")
    dumped = config.model_dump(mode="json")
    assert "preset" not in dumped["augment"] and dumped["augment"]["strength"] == 0.3
    assert SimCLR.Config.model_validate(dumped) == config


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        ({"augment": "cifr"}, "unknown augmentation preset 'cifr'; did you mean 'cifar'"),
        (
            {"augment": {"preset": "cifar", "strenght": 1}},
            "unknown key 'method.augment.strenght'; did you mean 'strength'",
        ),
        ({"augment": {"strength": "much"}}, r"method\.augment\.strength"),
        ({"augment": 3}, "takes a preset's name or settings, got 3"),
        ({"temperature": 0}, r"method\.temperature"),
        ({"temprature": 0.1}, "did you mean 'temperature'"),
        ({"head": "mlp"}, r"method\.head.*'mlp'"),
        ({"views": [{"count": 0}]}, r"method\.views\.0\.count"),
        ({"views": [{}]}, "at least 2 views, got 1"),
        ({"views": []}, "at least 2 views, got 0"),
        ({"loss": "infonce"}, r"method\.loss.*'infonce'"),
        ({"positives": "all"}, r"method\.positives.*'all'"),
    ],
)
def test_wrong_settings_are_explained(raw, said):
    with pytest.raises(ConfigError, match=said):
        validate(SimCLR.Config, raw, "recipe", prefix="method")
