"""MoCo beside Algorithm 1: InfoNCE, queue, momentum encoder, shuffled batch-norm groups, training state."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.training.distributed_cases import BATCH, NO_RUN, TinyEncoder, group_norm, images, moco_more_views, moco_views
from tests.training.test_loop import in_parts, same_state, tiny, trainer_for
from training.augment.image import ImageAugment
from training.losses import info_nce, memory_similarities
from training.methods import method_class
from training.methods.base import Context
from training.methods.moco import MoCo
from training.modules.batch_norm import group_size
from training.modules.momentum import KeyEncoder, Queue
from zoo.errors import ConfigError, InputError

CONTEXT = Context(image_size=8, global_batch=BATCH, total_steps=10, samples=200)


def moco(norm=nn.BatchNorm2d, **config) -> MoCo:
    torch.manual_seed(0)
    settings = {"queue_size": 32, "momentum": 0.9, "out_dim": 6, "bn_groups": 4, **config}
    return MoCo(TinyEncoder(norm), MoCo.Config(**settings), CONTEXT)


def views(seed: int = 1) -> dict[str, Tensor]:
    return {k: v.float() for k, v in moco_views(torch.Generator().manual_seed(seed)).items()}


# -- the loss --------------------------------------------------------------------------------------


def slow_info_nce(q: Tensor, candidates: list[list[Tensor]], positive: list[int], temperature: float) -> Tensor:
    """Eq. 1 of arXiv 1911.05722, one query at a time, in float64."""
    total = torch.zeros((), dtype=torch.float64)
    for query, keys, own in zip(q, candidates, positive, strict=True):
        scores = [torch.cosine_similarity(query.double(), k.double(), dim=0) / temperature for k in keys]
        total = total + torch.logsumexp(torch.stack(scores), 0) - scores[own]
    return total / len(q)


@pytest.mark.parametrize("offset", [None, 0, 3])
@pytest.mark.parametrize("temperature", [0.07, 0.5])
def test_info_nce_equals_slow_loop(offset, temperature):
    g = torch.Generator().manual_seed(0)
    q = torch.randn(4, 5, generator=g).requires_grad_()
    keys = torch.randn(4 if offset is None else 8, 5, generator=g)
    queue = F.normalize(torch.randn(7, 5, generator=g), dim=1)
    if offset is None:
        candidates, positive = [[k, *queue] for k in keys], [0] * 4
    else:
        candidates, positive = [[*keys, *queue]] * 4, [offset + i for i in range(4)]
    expected = slow_info_nce(q, candidates, positive, temperature)
    ours = info_nce(*memory_similarities(q, keys, queue, offset), temperature)
    torch.testing.assert_close(ours.double(), expected, rtol=1e-5, atol=1e-6)
    (slow,) = torch.autograd.grad(expected, q)
    torch.testing.assert_close(torch.autograd.grad(ours, q)[0], slow, rtol=1e-3, atol=1e-6)


def test_similarities_are_float32_under_autocast_and_check_shapes():
    q, k, queue = torch.randn(4, 8), torch.randn(4, 8), F.normalize(torch.randn(6, 8), dim=1)
    plain, _ = memory_similarities(q, k, queue)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(memory_similarities(q, k, queue)[0], plain)
    with pytest.raises(InputError, match=r"\(4, 8\), \(4, 7\)"):
        memory_similarities(q, k[:, :7], queue)
    for keys, offset in ((k[:3], None), (k, 1), (k, -1)):
        with pytest.raises(InputError, match="do not fit"):
            memory_similarities(q, keys, queue, offset)


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("negatives", ["queue", "batch_and_queue"])
def test_loss_is_algorithm_1(symmetric, negatives):
    """With group norm, where it does not matter who shares a batch."""
    method = moco(group_norm, symmetric=symmetric, negatives=negatives)
    x = views()

    def f(side, name):
        return F.normalize(side.head(side.encoder(x[name])), dim=1)

    expected = 0.0
    for a, b in [("x_q", "x_k"), ("x_k", "x_q")][: 2 if symmetric else 1]:
        q, k = f(method, a), f(method.key_encoder, b)
        if negatives == "queue":
            own = (q * k).sum(1, keepdim=True)
            logits, labels = torch.cat([own, q @ method.queue.keys.T], 1) / 0.2, torch.zeros(BATCH, dtype=torch.long)
        else:
            logits, labels = q @ torch.cat([k, method.queue.keys]).T / 0.2, torch.arange(BATCH)
        expected = expected + F.cross_entropy(logits, labels)
    out = method.loss(x)
    torch.testing.assert_close(out["loss"], expected)
    assert 0 <= float(out["accuracy"]) <= 1
    out["loss"].backward()
    assert all(p.grad is None for p in method.key_encoder.parameters())
    assert all(p.grad is not None for p in [*method.encoder.parameters(), *method.head.parameters()])


@pytest.mark.parametrize("symmetric", [False, True])
def test_further_queries_find_every_key(symmetric):
    """The mean over all pairs of query and key, as large as the usual one or two terms."""
    method = moco(group_norm, symmetric=symmetric)
    raw = moco_more_views(torch.Generator().manual_seed(1))
    x = {k: [v.float() for v in x] if isinstance(x, list) else x.float() for k, x in raw.items()}
    x_q, x_k, (same, small) = x["x_q"], x["x_k"], x["more"]
    if symmetric:
        pairs = [(x_q, x_k), (x_k, x_q), (same, x_k), (same, x_q), (small, x_k), (small, x_q)]
    else:
        pairs = [(x_q, x_k), (same, x_k), (small, x_k)]
    losses = []
    for a, b in pairs:
        q = F.normalize(method.head(method.encoder(a)), dim=1)
        k = F.normalize(method.key_encoder.head(method.key_encoder.encoder(b)), dim=1)
        logits = torch.cat([(q * k).sum(1, keepdim=True), q @ method.queue.keys.T], 1) / 0.2
        losses.append(F.cross_entropy(logits, torch.zeros(BATCH, dtype=torch.long)))
    out = method.loss(x)
    torch.testing.assert_close(out["loss"], torch.stack(losses).mean() * (2 if symmetric else 1))
    method.after_step(0, NO_RUN)
    assert int(method.queue.position) == (2 if symmetric else 1) * BATCH


def test_further_views_leave_the_usual_ones_as_they_are():
    batch = {"images": torch.randint(0, 256, (BATCH, 3, 12, 12), dtype=torch.uint8)}
    plain = moco().views(batch, torch.Generator().manual_seed(1))
    more = moco(views=[{"count": 2}, {"size": 10, "native": True}]).views(batch, torch.Generator().manual_seed(1))
    assert plain.keys() == {"x_q", "x_k", "shuffle"}
    assert all(torch.equal(more[key], value) for key, value in plain.items())
    assert [v.shape[-1] for v in more["more"]] == [8, 8, 10]
    assert not torch.equal(more["more"][0], more["x_q"])


# -- queue and momentum encoder --------------------------------------------------------------------


def test_queue_forgets_the_oldest():
    queue = Queue(6, 2, per_step=2)
    assert torch.allclose(queue.keys.norm(dim=1), torch.ones(6))
    for step in range(4):
        queue.enqueue(torch.full((2, 2), float(step)))
    assert queue.keys[:, 0].tolist() == [3, 3, 1, 1, 2, 2] and int(queue.position) == 2


@pytest.mark.parametrize(
    ("size", "symmetric", "fix"), [(36, False, "32 or 40"), (24, True, "16 or 32"), (4, False, "8")]
)
def test_queue_must_hold_whole_steps(size, symmetric, fix):
    with pytest.raises(ConfigError, match=f"queue_size={size} must be a multiple of .* use {fix}"):
        moco(queue_size=size, symmetric=symmetric)


def test_a_queue_larger_than_the_data_is_warned_of():
    with pytest.warns(UserWarning, match=r"queue_size=256 exceeds the 200"):
        moco(queue_size=256)


@pytest.mark.parametrize("symmetric", [False, True])
def test_keys_enter_the_queue_after_the_step(symmetric):
    method = moco(group_norm, symmetric=symmetric)
    before, x = method.queue.keys.clone(), views()
    method.loss(x)
    assert torch.equal(method.queue.keys, before)
    expected = [F.normalize(method.key_encoder.head(method.key_encoder.encoder(x[n])), dim=1) for n in ("x_k", "x_q")]
    method.after_step(0, NO_RUN)
    for i in range(2 if symmetric else 1):
        torch.testing.assert_close(method.queue.keys[i * BATCH : (i + 1) * BATCH], expected[i])
    count = 2 * BATCH if symmetric else BATCH
    assert torch.equal(method.queue.keys[count:], before[count:]) and int(method.queue.position) == count
    method.after_step(1, NO_RUN)
    assert int(method.queue.position) == count


def test_momentum_encoder_follows_parameters_only():
    method = moco()
    old = [p.clone() for p in method.key_encoder.encoder.parameters()]
    with torch.no_grad():
        for p in method.encoder.parameters():
            p.add_(1.0)
    method.loss(views())
    buffers = {n: b.clone() for n, b in method.key_encoder.named_buffers()}
    method.after_step(0, NO_RUN)
    for k, o, q in zip(method.key_encoder.encoder.parameters(), old, method.encoder.parameters(), strict=True):
        torch.testing.assert_close(k, 0.9 * o + 0.1 * q)
    for name, buffer in method.key_encoder.named_buffers():
        assert torch.equal(buffer, buffers[name])
    own, other = method.encoder.network[1].running_mean, method.key_encoder.encoder.network[1].running_mean
    assert not torch.equal(own, other) and other.abs().max() > 0


def test_momentum_rises_by_a_cosine():
    method = moco(momentum=0.9, final_momentum=1.0)
    assert [method.momentum(s) for s in (0, 5, 10)] == pytest.approx([0.9, 0.95, 1.0])
    assert moco().momentum(7) == 0.9


# -- batch norm in groups --------------------------------------------------------------------------


def test_keys_are_normalised_in_shuffled_groups_and_come_back_in_order():
    method = moco()
    x = views()
    order = x["shuffle"][:, 0].argsort()
    assert not torch.equal(order, torch.arange(BATCH))
    reference = KeyEncoder(TinyEncoder(nn.BatchNorm2d), nn.Identity())
    reference.encoder.load_state_dict(method.key_encoder.encoder.state_dict())
    expected = torch.empty(BATCH, 6)
    for group in order.split(2):
        expected[group] = F.normalize(method.key_encoder.head(reference.encoder(x["x_k"][group])), dim=1)
    (keys,) = method.keys([x["x_k"]], x["shuffle"][:, :1])
    torch.testing.assert_close(keys, expected)


def test_query_and_key_of_an_image_share_no_statistics():
    """The leak itself: with shared statistics a change to one image's batch mates moves its query and its key."""
    g = torch.Generator().manual_seed(0)
    x, other = (t.float() for t in images(2, g))
    # Image 0 shares its query's group with image 1, and its key's with image 7.
    shuffle = torch.tensor([0.0, 4, 2, 5, 3, 6, 7, 1])[:, None] / 10
    method = moco()

    def moved(name: str, mate: int) -> bool:
        changed = x.clone()
        changed[mate] = other[mate]
        if name == "query":
            before, after = method.queries([x])[0][0], method.queries([changed])[0][0]
        else:
            before, after = method.keys([x], shuffle)[0][0], method.keys([changed], shuffle)[0][0]
        return not torch.allclose(before, after)

    assert [moved("query", m) for m in range(1, 8)] == [True] + [False] * 6
    assert [moved("key", m) for m in range(1, 8)] == [False] * 6 + [True]


@pytest.mark.parametrize(
    ("groups", "said"), [(3, r"must divide batch_size=8 .* \[1, 2, 4\]"), (8, "at least 2 samples")]
)
def test_groups_must_fit_the_batch(groups, said):
    with pytest.raises(ConfigError, match=said):
        group_size(groups, 8)


@pytest.mark.parametrize(
    ("groups", "accumulate", "fits"),
    [
        (8, 8, False),
        (8, 4, True),
        (8, 3, False),
        (4, 4, False),
        (2, 1, True),
        (4, 2, True),
        (1, 8, True),
        (2, 4, False),
    ],
)
def test_a_pass_holds_two_whole_groups_or_shuffling_hides_nothing(groups, accumulate, fits):
    """With one group in a pass, all keys share their statistics with all positives; with half a group, the two views of
    a symmetric loss share one. A single group for everything is asked for on purpose."""
    if fits:
        assert group_size(groups, 64, accumulate) == 64 // groups
        return
    with pytest.raises(ConfigError, match="at least two groups in each of the") as error:
        group_size(groups, 64, accumulate)
    better = re.search(r"use (\d+)", str(error.value))
    if better:
        group_size(int(better[1]), 64, accumulate)


def test_a_recipe_whose_passes_hold_one_group_is_refused(tmp_path):
    """Measured before it was refused: every key depended on the first image of its pass, as if nothing were split."""
    with pytest.raises(
        ConfigError, match="least two groups in each of the 4 passes: otherwise ShuffleBN hides nothing; use 8"
    ):
        trainer_for(tmp_path / "run", tiny(**TINY, accumulate=4))


def test_the_encoder_is_saved_as_if_nothing_were_split():
    plain = TinyEncoder(nn.BatchNorm2d)
    plain.load_state_dict(moco().encoder.state_dict())
    method = moco()
    x = views()["x_q"]
    torch.testing.assert_close(method.encoder.eval()(x), plain.eval()(x))


# -- training --------------------------------------------------------------------------------------

SHAPES = {"dataset": "synthetic:shapes?n=120", "split": "train", "held_out": 0.2}
TINY = {
    "data": SHAPES,
    "method": {"name": "moco", "temperature": 0.1, "queue_size": 64, "momentum": 0.9, "bn_groups": 4, "out_dim": 16},
}
SYMMETRIC = {"data": SHAPES, "method": {**TINY["method"], "symmetric": True, "final_momentum": 1.0}, "accumulate": 2}


@pytest.mark.parametrize("changes", [TINY, SYMMETRIC])
def test_resume_continues_bit_for_bit(tmp_path, changes):
    """Queue, momentum encoder and batch-norm buffers are part of the state."""
    recipe = tiny(**changes, monitor=None)
    whole = trainer_for(tmp_path / "whole", recipe)
    whole.run()
    keys = whole.state()["method"].keys()
    assert {"queue.keys", "queue.position", "key_encoder.head.0.weight"} <= keys
    assert any(k.startswith("key_encoder.encoder.") and k.endswith("running_var") for k in keys)
    second = in_parts(lambda: trainer_for(tmp_path / "parts", recipe), at=7)
    same_state(whole.state(), second.state())


def stripes(n: int, seed: int, side: int = 16) -> Tensor:
    """Striped images in random colours, uint8 `(n, 3, side, side)`."""
    g = torch.Generator().manual_seed(seed)
    angle, frequency, phase = (
        torch.rand(3, n, 1, 1, generator=g) * torch.tensor([3.0, 2.0, 6.0]).view(3, 1, 1, 1)
    ).unbind()
    y, x = torch.meshgrid(torch.arange(side) / side, torch.arange(side) / side, indexing="ij")
    wave = torch.sin(6.28 * (2 + frequency) * (x * torch.cos(angle) + y * torch.sin(angle)) + phase)
    low, high = torch.rand(2, n, 3, 1, 1, generator=g)
    return ((low + (high - low) * (0.5 + 0.5 * wave[:, None])) * 255).to(torch.uint8)


def pairs_found(method: nn.Module, views: Callable[[], Tensor]) -> float:
    """How often a view of an image is nearest to another view of it, in eval mode."""
    method.eval()
    with torch.no_grad():
        a, b = (F.normalize(method.head(method.encoder(views())), dim=1) for _ in range(2))
    method.train()
    return float(((a @ b.T).argmax(1) == torch.arange(len(a))).float().mean())


def found_before_and_after(name: str, steps: int = 80, **config) -> tuple[float, float]:
    """Train on stripes; how often pairs of unseen stripes are found (by chance: 1 in 128)."""
    torch.manual_seed(0)
    settings = {"temperature": 0.2, "queue_size": 128, "momentum": 0.9, "bn_groups": 4, "out_dim": 16, **config}
    settings["augment"] = {"crop_scale": [0.3, 1.0], "brightness": 0.4, "contrast": 0, "saturation": 0, "hue": 0}
    settings["augment"] |= {"greyscale_p": 0.0, "blur_p": 0.0}
    cls = method_class(name)
    method = cls(SmallEncoder(), cls.Config(**settings), Context(16, 64, steps, 1024))
    unseen, g = stripes(128, seed=2), torch.Generator().manual_seed(4)
    augment = ImageAugment(method.config.augment, 16)
    before = pairs_found(method, lambda: augment(unseen, g))
    optimizer = torch.optim.AdamW([p for p in method.parameters() if p.requires_grad], lr=0.003)
    seen = stripes(1024, seed=1)
    for step in range(steps):
        out = method(method.views({"images": seen[torch.randperm(len(seen), generator=g)[:64]]}, g))
        optimizer.zero_grad()
        out["loss"].backward()
        optimizer.step()
        method.after_step(step, NO_RUN)
    return before, pairs_found(method, lambda: augment(unseen, g))


class SmallEncoder(TinyEncoder):
    """Three convolutions, 32 features."""

    def __init__(self) -> None:
        super().__init__(nn.BatchNorm2d)
        self.num_features = 32
        layers: list[nn.Module] = []
        for inputs, outputs, stride in [(3, 16, 1), (16, 32, 2), (32, 32, 2)]:
            layers += [nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
        self.network = nn.Sequential(*layers[:-1])


@pytest.mark.parametrize("config", [{}, {"symmetric": True}, {"negatives": "batch_and_queue"}])
def test_training_learns(config):
    before, after = found_before_and_after("moco", **config)
    assert before < 0.35 and after > max(0.5, before + 0.2)
