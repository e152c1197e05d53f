"""CLSA beside its formulas: InfoNCE of weak queries, DDM of strong ones, views, settings, training state."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.training.distributed_cases import BATCH, NO_RUN, TinyEncoder, clsa_views, group_norm
from tests.training.test_loop import in_parts, same_state, tiny, trainer_for
from tests.training.test_moco import SHAPES, found_before_and_after
from training.losses import ddm
from training.methods.base import Context
from training.methods.clsa import CLSA
from training.recipe import parse_recipe, read_recipe
from zoo.errors import ConfigError
from zoo.preprocessing.image import ImageInput

CONTEXT = Context(image_size=16, global_batch=BATCH, total_steps=10, samples=200)


def clsa(norm=group_norm, input: ImageInput | None = None, **config) -> CLSA:
    torch.manual_seed(0)
    encoder = TinyEncoder(norm)
    encoder.input = input or encoder.input
    settings = {"queue_size": 32, "momentum": 0.9, "out_dim": 6, "bn_groups": 4, "augment": "moco_cifar", **config}
    return CLSA(encoder, CLSA.Config(**settings), CONTEXT)


def given_views() -> dict:
    views = clsa_views(torch.Generator().manual_seed(1))
    return {k: [x.float() for x in v] if isinstance(v, list) else v.float() for k, v in views.items()}


def batch(n: int = BATCH, side: int = 20) -> dict[str, Tensor]:
    images = torch.randint(0, 256, (n, 3, side, side), generator=torch.Generator().manual_seed(5), dtype=torch.uint8)
    return {"images": images.contiguous(memory_format=torch.channels_last)}


# -- the divergence --------------------------------------------------------------------------------


def slow_ddm(strong: list[Tensor], weak: list[Tensor], temperature: float, weak_temperature: float) -> Tensor:
    total = torch.zeros((), dtype=torch.float64)
    for a in weak:
        for b in strong:
            for i in range(len(a)):
                p = torch.softmax(a[i].double().detach() / weak_temperature, 0)
                log_p = torch.log_softmax(b[i].double() / temperature, 0)
                total = total - sum(p[j] * log_p[j] for j in range(len(p))) / len(a)
    return total


@pytest.mark.parametrize(("temperature", "weak_temperature"), [(0.2, None), (0.1, 0.04)])
@pytest.mark.parametrize(("weaks", "strongs"), [(1, 1), (2, 3)])
def test_ddm_equals_slow_loop(weaks, strongs, temperature, weak_temperature):
    g = torch.Generator().manual_seed(0)
    weak = [(torch.rand(3, 7, generator=g) * 2 - 1).requires_grad_() for _ in range(weaks)]
    strong = [(torch.rand(3, 7, generator=g) * 2 - 1).requires_grad_() for _ in range(strongs)]
    expected = slow_ddm(strong, weak, temperature, weak_temperature or temperature)
    ours = ddm(strong, weak, temperature, weak_temperature)
    torch.testing.assert_close(ours.double(), expected, rtol=1e-5, atol=1e-6)
    slow = torch.autograd.grad(expected, strong)
    for a, b in zip(torch.autograd.grad(ours, strong, retain_graph=True), slow, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)
    assert all(g is None for g in torch.autograd.grad(ours, weak, allow_unused=True))


def test_ddm_is_least_where_the_distributions_agree():
    weak = torch.tensor([[0.5, 0.1, -0.3, 0.0]])
    entropy = -(F.softmax(weak / 0.2, 1) * F.log_softmax(weak / 0.2, 1)).sum()
    torch.testing.assert_close(ddm([weak], [weak], 0.2), entropy)
    for other in (-weak, weak + torch.tensor([0.1, 0, 0, 0]), torch.zeros(1, 4)):
        assert ddm([other], [weak], 0.2) > entropy + 1e-3


# -- the method ------------------------------------------------------------------------------------


@pytest.mark.parametrize("negatives", ["queue", "batch_and_queue"])
@pytest.mark.parametrize("strong_loss", ["ddm", "contrastive"])
def test_loss_is_the_released_one(strong_loss, negatives):
    """Two weak and two strong views, one view at a time; joint forwards by size change nothing here."""
    method = clsa(strong_loss=strong_loss, negatives=negatives, alpha=0.7, temperature=0.3, ddm_temperature=0.1)
    x = given_views()

    def unit(side, view):
        return F.normalize(side.head(side.encoder(view)), dim=1)

    k = unit(method.key_encoder, x["key"])

    def scores(view):
        q = unit(method, view)
        if negatives == "queue":
            return torch.cat([(q * k).sum(1, keepdim=True), q @ method.queue.keys.T], 1)
        return q @ torch.cat([k, method.queue.keys]).T

    labels = torch.zeros(BATCH, dtype=torch.long) if negatives == "queue" else torch.arange(BATCH)
    contrastive = sum(F.cross_entropy(scores(v) / 0.3, labels) for v in x["weak"])
    if strong_loss == "ddm":
        pairs = [(scores(a), scores(b)) for a in x["weak"] for b in x["strong"]]
        extra = sum(-((a / 0.1).softmax(1).detach() * (b / 0.1).log_softmax(1)).sum(1).mean() for a, b in pairs)
    else:
        extra = sum(F.cross_entropy(scores(v) / 0.3, labels) for v in x["strong"])
    expected = contrastive + 0.7 * extra
    gradients = torch.autograd.grad(expected, list(method.encoder.parameters()))
    out = method.loss(x)
    torch.testing.assert_close(out["loss"], expected)
    torch.testing.assert_close(out["ddm" if strong_loss == "ddm" else "naive"], extra)
    torch.testing.assert_close(out["contrastive"], contrastive)
    out["loss"].backward()
    for p, g in zip(method.encoder.parameters(), gradients, strict=True):
        torch.testing.assert_close(p.grad, g, rtol=1e-4, atol=1e-6)
    method.after_step(0, NO_RUN)
    torch.testing.assert_close(method.queue.keys[:BATCH], k)


def test_one_forward_per_size_and_groups_keep_views_apart():
    method, x = clsa(nn.BatchNorm2d), given_views()
    seen: list[tuple[int, ...]] = []
    method.encoder.register_forward_pre_hook(lambda module, args: seen.append(tuple(args[0].shape)))
    q = method.queries([*x["weak"], *x["strong"]])
    assert seen == [(2 * BATCH, 3, 8, 8), (2 * BATCH, 3, 7, 7)]
    alone = method.queries([x["strong"][0]])[0]
    torch.testing.assert_close(q[2], alone)


def test_without_weight_the_strong_views_teach_nothing():
    gradients = []
    for change in (0.0, 1.0):
        method, x = clsa(alpha=0.0), given_views()
        x["strong"] = [v + change for v in x["strong"]]
        method.loss(x)["loss"].backward()
        gradients.append([p.grad for p in method.parameters() if p.grad is not None])
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b)


# -- views -----------------------------------------------------------------------------------------


def test_views_have_their_sizes_and_depend_on_the_generator_only():
    method = clsa(weak=[{}, {"size": 12, "scale": (0.1, 0.5)}], strong=[{"size": 8}])
    views, again = (method.views(batch(), torch.Generator().manual_seed(1)) for _ in range(2))
    assert [v.shape[-1] for v in (views["key"], *views["weak"], *views["strong"])] == [16, 16, 12, 8]
    assert views["shuffle"].shape == (BATCH, 1)
    assert all(
        torch.equal(a, b) for a, b in zip(views["weak"] + views["strong"], again["weak"] + again["strong"], strict=True)
    )
    assert not torch.equal(views["key"], views["weak"][0])
    counted = clsa(weak=[{"count": 2}], strong=[{"size": 8, "native": True, "count": 3}])
    x = counted.views(batch(), torch.Generator().manual_seed(1))
    assert [[v.shape[-1] for v in x[name]] for name in ("weak", "strong")] == [[16, 16], [8, 8, 8]]
    method.set_view_size(8)
    small = method.views(batch(), torch.Generator().manual_seed(1))
    assert [v.shape[-1] for v in (small["key"], *small["weak"], *small["strong"])] == [8, 8, 6, 4]


def test_strong_views_are_on_eight_bits_and_normalised_like_the_rest():
    plain = clsa().views(batch(), torch.Generator().manual_seed(1))["strong"][0]
    torch.testing.assert_close(plain * 255, (plain * 255).round(), atol=1e-4, rtol=0)
    normal = ImageInput(size=(16, 16), mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))
    ours = clsa(input=normal).views(batch(), torch.Generator().manual_seed(1))["strong"][0]
    mean, std = torch.tensor(normal.mean).view(3, 1, 1), torch.tensor(normal.std).view(3, 1, 1)
    torch.testing.assert_close(ours, (plain - mean) / std)


# -- settings --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("method.strong_los=ddm", "'strong_loss'"),
        ("method.strong_augment.draw=3", "'draws'"),
        ("method.strong=[]", "strong"),
        ("method.weak=[{scale: [0.5, 2.0]}]", "scale"),
        ("method.alpha=-1", "alpha"),
        ("method.negatives=all", "negatives"),
    ],
)
def test_wrong_settings_are_explained(override, said):
    with pytest.raises(ConfigError, match=said):
        read_recipe("clsa_resnet18_cifar10", [override])


@pytest.mark.parametrize("setting", ["single", "multi"])
@pytest.mark.parametrize("epochs", [200, 800])
def test_paper_recipes_hold_the_released_settings(setting, epochs):
    recipe = read_recipe(f"paper/clsa_resnet50_imagenet_{setting}_{epochs}ep")
    config = recipe.method_config()
    sizes = [224, 192, 160, 128, 96] if setting == "multi" else None
    assert [c.size or 224 for c in config.weak] == (sizes or [224])
    assert [c.size or 224 for c in config.strong] == (sizes or [96])
    assert config.strong[-1].scale == (0.086, 0.429)
    assert (config.queue_size, config.momentum, config.temperature, config.ddm_temperature) == (65536, 0.999, 0.2, 0.2)
    assert config.negatives == "batch_and_queue" and config.head == "paper" and config.alpha == 1
    assert recipe.epochs == epochs and recipe.optim.decay == "all" and recipe.optim.weight_decay == 1e-4


# -- training --------------------------------------------------------------------------------------


def run(path, name: str = "clsa", **changes):
    method = {"name": name, "temperature": 0.1, "queue_size": 64, "momentum": 0.9, "bn_groups": 4, "out_dim": 16}
    method |= {"augment": "moco_cifar", **changes.pop("method", {})}
    recipe = tiny(**{"data": SHAPES, "monitor": None, "method": method, **changes})
    return trainer_for(path, parse_recipe(recipe.dump(), "round trip"))


@pytest.mark.parametrize("changes", [{}, {"precision": "bf16", "method": {"strong": [{"size": 24}, {}]}}])
def test_resume_continues_bit_for_bit(tmp_path, changes):
    whole = run(tmp_path / "whole", **changes)
    whole.run()
    second = in_parts(lambda: run(tmp_path / "parts", **changes), at=7)
    same_state(whole.state(), second.state())


@pytest.mark.parametrize("strong_loss", ["ddm", "contrastive"])
def test_training_learns(strong_loss):
    before, after = found_before_and_after("clsa", strong_loss=strong_loss)
    assert before < 0.35 and after > max(0.5, before + 0.2)
