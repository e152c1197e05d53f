"""SSNAS's supernets beside the sheet's numbers, and the derivation of cells from them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from tests.training.test_loop import tiny
from training.search.derive import SPACES, derive, skips
from training.search.supernet import MixedOp, Supernet, SupernetArguments
from zoo.architectures.genotype import DARTS_OPS, NB201_EDGES, NB201_OPS
from zoo.errors import ConfigError
from zoo.preprocessing.image import ImageInput

SIDE = 8


def supernet(size: int = SIDE, **arguments) -> Supernet:
    torch.manual_seed(0)
    return Supernet(SupernetArguments(**arguments), ImageInput(size=(size, size)))


# -- the supernet ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("depth", "partial", "thousands"),
    [(5, 1, 1276), (8, 1, 1931), (11, 1, 2585), (17, 1, 3894), (5, 4, 188), (8, 4, 300), (11, 4, 411), (17, 4, 633)],
)
def test_darts_supernet_parameters(depth, partial, thousands):
    """C=16, with a 10-way classifier: methods/ssnas.md, 1b and 2."""
    net = supernet(depth=depth, partial=partial)
    assert round((sum(p.numel() for p in net.parameters()) + 10 * (net.num_features + 1)) / 1e3) == thousands
    assert net.num_features == 256 and net.alpha.shape == (2 * 14 * 8,)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("partial", [1, 2, 4])
def test_mixed_operation_is_the_weighted_sum(stride, partial):
    torch.manual_seed(0)
    space = SPACES["darts"]
    mixed = MixedOp(space, 8, stride, partial).eval()
    weights, x, c = torch.rand(8), torch.randn(2, 8, 6, 5), 8 // partial
    expected = sum(weights[o] * mixed.ops[o](x[:, :c]) for o in range(8) if DARTS_OPS[o] != "none")
    if partial > 1:
        rest = x[:, c:] if stride == 1 else nn.functional.max_pool2d(x[:, c:], 2, ceil_mode=True)
        whole = torch.cat([expected, rest], 1)
        expected = torch.stack([whole[:, (j % partial) * c + j // partial] for j in range(8)], 1)
    torch.testing.assert_close(mixed(x, weights), expected)


def test_each_space_normalises_batches_without_affine_parameters_and_after_pools():
    net = supernet(depth=3, width=4)
    norms = [m for m in net.body.cells.modules() if isinstance(m, nn.BatchNorm2d)]
    assert norms and not any(m.affine for m in norms)
    pool = net.body.cells[0].edges[0].ops[DARTS_OPS.index("max_pool_3x3")]
    assert isinstance(pool[1], nn.BatchNorm2d)


def test_supernet_decided_by_alpha_is_the_discrete_cell():
    """With all weight on one operation per edge, a NAS-Bench-201 supernet computes that cell."""
    net = supernet(space="nb201", width=4, depth=1).eval()
    ops = ["nor_conv_3x3", "skip_connect", "nor_conv_1x1", "avg_pool_3x3", "none", "nor_conv_3x3"]
    table = torch.full((6, 5), -1e4)
    for edge, op in enumerate(ops):
        table[edge, NB201_OPS.index(op)] = 1e4
    net.alpha.copy_(table.flatten())
    cell, x = net.body.cells[0], torch.randn(2, 4, 6, 6)

    def run(edge: int, value: Tensor) -> Tensor:
        op = ops[edge]
        return torch.zeros_like(value) if op == "none" else cell.edges[edge].ops[NB201_OPS.index(op)](value)

    states = [x]
    for node in (1, 2, 3):
        states.append(sum(run(e, states[j]) for e, (i, j) in enumerate(NB201_EDGES) if i == node))
    torch.testing.assert_close(cell(x, net.tables()), states[3])
    assert derive(net.space, net.tables()).edges[:4] == tuple(ops[:4]) and float(net.entropy()) < 1e-6


@pytest.mark.parametrize("space", ["darts", "nb201"])
def test_edge_normalisation_shares_a_node_among_its_edges(space):
    net = supernet(space=space, depth=3, width=4, edge_normalisation=True)
    net.alpha.normal_()
    logits, edges = net.space.split(net.alpha, True)
    for cell, table in net.tables().items():
        for node in {to for to, _ in net.space.edges}:
            rows = [e for e, (to, _) in enumerate(net.space.edges) if to == node]
            assert float(table[rows].sum()) == pytest.approx(1, abs=1e-5)
            expected = logits[cell][rows].softmax(1) * edges[cell][rows].softmax(0)[:, None]
            torch.testing.assert_close(table[rows], expected)


@pytest.mark.parametrize("size", [(15, 9), (33, 33)])
@pytest.mark.parametrize("arguments", [{"depth": 3, "partial": 2}, {"space": "nb201", "depth": 1}])
def test_supernets_take_odd_sizes(size, arguments):
    net = supernet(width=4, **arguments)
    assert net(torch.rand(2, 3, *size)).shape == (2, net.num_features)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [({"depth": 2}, "at least 3 cells"), ({"partial": 3}, "multiple of partial"), ({"space": "enas"}, "space")],
)
def test_impossible_supernets(arguments, said):
    with pytest.raises(ConfigError, match=said):
        tiny(encoder={"family": "cell_supernet", **arguments})


# -- derivation ------------------------------------------------------------------------------------


def test_derivation_keeps_two_edges_a_node_and_never_none():
    space = SPACES["darts"]
    table = torch.zeros(14, 8)
    table[:, 0] = 9.0  # none
    op = {name: i for i, name in enumerate(DARTS_OPS)}
    # Node 0 has edges 0-1, node 1 edges 2-4, node 2 edges 5-8, node 3 edges 9-13.
    for edge, name, weight in [
        (0, "sep_conv_3x3", 0.2), (1, "skip_connect", 0.3), (2, "dil_conv_3x3", 0.5), (3, "sep_conv_5x5", 0.1),
        (4, "max_pool_3x3", 0.4), (5, "skip_connect", 0.2), (8, "avg_pool_3x3", 0.9), (9, "skip_connect", 0.3),
        (13, "dil_conv_5x5", 0.2),
    ]:  # fmt: skip
        table[edge, op[name]] = weight
    table[9, op["sep_conv_3x3"]] = 0.25
    found = derive(space, {"normal": table, "reduce": table})
    expected = (
        ("sep_conv_3x3", 0), ("skip_connect", 1), ("dil_conv_3x3", 0), ("max_pool_3x3", 2), ("skip_connect", 0),
        ("avg_pool_3x3", 3), ("skip_connect", 0), ("dil_conv_5x5", 4),
    )  # fmt: skip
    assert found.normal == expected == found.reduce and skips(found) == 3
    two = derive(space, {"normal": table, "reduce": table}, skip_cap=2)
    # The lightest skip (edge 5, .2) goes; node 2 then takes the first of its edges without weight.
    assert skips(two) == 2 and two.normal[:4] == expected[:4] and two.reduce == expected
    one = derive(space, {"normal": table, "reduce": table}, skip_cap=1)
    # Edges 1 and 9 weigh .3 each: one falls back on its next operation.
    assert skips(one) == 1
    none_left = derive(space, {"normal": table, "reduce": table}, skip_cap=0)
    assert skips(none_left) == 0 and none_left.normal[6] == ("sep_conv_3x3", 0)


def test_skip_cap_in_the_other_space():
    table = torch.zeros(6, 5)
    table[:, 1], table[:, 3] = torch.arange(1.0, 7.0), 0.5
    assert derive(SPACES["nb201"], {"cell": table}).edges == ("skip_connect",) * 6
    capped = derive(SPACES["nb201"], {"cell": table}, skip_cap=2).edges
    assert capped == ("nor_conv_3x3",) * 4 + ("skip_connect",) * 2
