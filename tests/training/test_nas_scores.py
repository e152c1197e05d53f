"""Label-free scores of untrained and briefly trained cells, and how a ranking is judged."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks.nas.ranking import rank_correlation, rank_of
from training.search.short_training import short_contrastive, short_supervised
from training.search.zero_cost import contrastive_gradient, log_synflow, naswot, rank_growth, spectral_entropy, synflow
from zoo.architectures import build
from zoo.errors import InputError
from zoo.preprocessing.image import ImageInput
from zoo.strict import Architecture

ALL3, ALL1 = ({"format": "nas-bench-201-cell", "edges": [op] * 6} for op in ("nor_conv_3x3", "nor_conv_1x1"))
CUT = {"format": "nas-bench-201-cell", "edges": ["nor_conv_3x3", "none", "none", "none", "none", "none"]}


def network(genotype, width=4):
    torch.manual_seed(0)
    architecture = Architecture(family="cell_network", arguments={"genotype": genotype, "width": width, "depth": 1})
    return build(architecture, ImageInput(size=(8, 8)))


def test_synflow_of_a_linear_chain_by_hand():
    """Two bias-free layers on ones: each layer's sum of |w dR/dw| is R itself."""

    class Chain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.norm, self.b = (
                nn.Conv2d(3, 2, 1, bias=False),
                nn.BatchNorm2d(2),
                nn.Conv2d(2, 1, 1, bias=False),
            )

        def forward_features(self, x):
            return self.b(self.norm(self.a(x)))

    chain = Chain()
    before = chain.a.weight.detach().clone()
    a, b = (layer.weight.detach().abs().flatten(1) for layer in (chain.a, chain.b))
    r = 5 * 5 * float((b @ a).sum())
    assert synflow(chain, (5, 5)) == pytest.approx(math.log(2 * r), rel=1e-5)
    by_a, by_b = 25 * b.T.expand_as(a), 25 * (a @ torch.ones(3)).expand_as(b)
    flow = float((a * by_a.log1p()).sum() + (b * by_b.log1p()).sum())
    assert log_synflow(chain, (5, 5)) == pytest.approx(math.log(flow), rel=1e-5)
    assert torch.equal(chain.a.weight, before)


def test_scores_order_cells_that_differ_plainly():
    torch.manual_seed(1)
    images = torch.rand(16, 3, 8, 8)
    views = torch.rand(2, 16, 3, 8, 8)
    scores = {
        name: (synflow(net, (8, 8)), naswot(net, images), contrastive_gradient(net, views, 0.2))
        for name, net in (("all3", network(ALL3)), ("all1", network(ALL1)), ("cut", network(CUT)))
    }
    assert scores["all3"][0] > scores["all1"][0]
    assert min(scores["all3"][1], scores["all1"][1]) > scores["cut"][1]
    assert scores["cut"][0] == -math.inf and scores["cut"][2] == -math.inf
    assert log_synflow(network(CUT), (8, 8)) == -math.inf < log_synflow(network(ALL1), (8, 8))
    assert all(math.isfinite(v) for v in scores["all3"])


def test_spectral_entropy_is_the_log_of_the_effective_rank():
    g = torch.Generator().manual_seed(0)
    basis = torch.linalg.qr(torch.randn(400, 4, generator=g))[0]
    basis = torch.linalg.qr(basis - basis.mean(0))[0].T.reshape(4, 4, 10, 10)  # (C, N, H, W), orthonormal, mean 0
    maps = basis.permute(1, 0, 2, 3)
    assert spectral_entropy(maps) == pytest.approx(math.log(4), rel=1e-5)
    assert spectral_entropy(7 * maps[:, [0, 1, 1, 1]] + 3) == pytest.approx(
        -(0.25 * math.log(0.25) + 0.75 * math.log(0.75)), rel=1e-4
    )
    assert spectral_entropy(torch.ones(2, 3, 4, 4)) == 0


def test_rank_growth_sums_the_change_within_each_stage():
    torch.manual_seed(0)
    architecture = Architecture(family="cell_network", arguments={"genotype": ALL3, "width": 4, "depth": 3})
    net, images = build(architecture, ImageInput(size=(16, 16))), torch.rand(8, 3, 16, 16)
    body, x, entropies = copy.deepcopy(net).train().body, None, []
    x = body.stem(images)
    for cell in body.cells:
        x = cell(x)
        entropies.append(spectral_entropy(x.detach()))
    # Three cells, a reduction, three cells, a reduction, three cells.
    expected = sum(entropies[last] - entropies[first] for first, last in ((0, 2), (4, 6), (8, 10)))
    state = copy.deepcopy(net.state_dict())
    assert rank_growth(net, images) == pytest.approx(expected, rel=1e-4)
    assert all(torch.equal(state[k], v) for k, v in net.state_dict().items())
    shallow = network(ALL3)
    assert rank_growth(shallow, images) == 0


def test_naswot_counts_agreeing_units():
    net = nn.Sequential(nn.Flatten(), nn.Linear(12, 5), nn.ReLU())
    net.forward_features = net.forward
    x = torch.randn(3, 3, 2, 2)
    on = (net(x) > 0).double()
    kernel = torch.tensor([[float((on[i] == on[j]).sum()) for j in range(3)] for i in range(3)])
    expected = float(torch.linalg.slogdet(kernel)[1]) if float(torch.det(kernel)) > 0 else -math.inf
    assert naswot(net, x) == pytest.approx(expected, rel=1e-4)


def test_short_trainings_learn_and_repeat():
    g = torch.Generator().manual_seed(0)
    colours = torch.rand(16, 3, 1, 1, generator=g)
    views = (colours + 0.05 * torch.randn(30, 2, 16, 3, 8, 8, generator=g)).contiguous()
    found = short_contrastive(network(ALL3), views[:28], views[28:])
    assert found == short_contrastive(network(ALL3), views[:28], views[28:])
    assert found["final"] > found["speed"] and found["pairs"] > 0.3 and 0 < found["angle"] < 3.2
    labels = (torch.arange(16) % 2).repeat(30, 1)
    control = short_supervised(network(ALL3), views[:28], labels[:28], views[28:], labels[28:])
    assert control["pairs"] > 0.8 and control["final"] > control["speed"]


def test_rank_correlation():
    truth = np.arange(40.0)
    assert rank_correlation(truth**3, truth).spearman == pytest.approx((1, 1, 1))
    assert rank_correlation(-truth, truth).kendall[0] == pytest.approx(-1)
    noisy = truth + np.random.default_rng(0).normal(0, 20, 40)
    found = rank_correlation(noisy, truth)
    assert found.items == 40 and found.spearman[1] < found.spearman[0] < found.spearman[2] < 1
    assert rank_correlation(np.zeros(40), truth).spearman[0] == 0
    assert rank_correlation(np.where(truth < 1, -np.inf, truth), truth).spearman[0] == 1
    assert rank_of(np.array([3.0, 1.0, 2.0, 2.0])).tolist() == [1, 0, 0.5, 0.5]
    for bad in (truth[:-1], np.full(40, np.nan), truth[:2]):
        with pytest.raises(InputError):
            rank_correlation(bad, truth[: len(bad)] if len(bad) == 2 else truth)
