"""Gloo processes on the CPU: collectives, batch norm across ranks, and 1 against W for every method."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.training.distributed_cases import CASES, all_cases, difference, spawn
from training import distributed
from training.methods import METHODS
from training.modules.batch_norm import convert_batch_norm
from zoo.device import local_device
from zoo.errors import ConfigError


@pytest.fixture(scope="module")
def one() -> dict:
    return all_cases()


@pytest.fixture(scope="module", params=[2, 4])
def many(request, tmp_path_factory) -> list:
    return spawn(all_cases, request.param, tmp_path_factory.mktemp("ranks"))


def test_every_method_has_a_case():
    assert {case.method for case in CASES.values()} == set(METHODS)


@pytest.mark.parametrize("name", list(CASES))
def test_processes_train_as_one(name, one, many):
    """Same global batch, any number of processes: equal gradients, and equal weights two steps later."""
    expected = one[name]
    assert any(key.startswith("gradient") and value.abs().max() > 1e-6 for key, value in expected.items())
    for rank, result in enumerate(many):
        assert result[name].keys() == expected.keys()
        for key, value in expected.items():
            assert difference(result[name][key], value) <= 1e-10, (key, rank)


@pytest.mark.parametrize("name", list(CASES))
def test_ranks_hold_equal_weights(name, many):
    for result in many[1:]:
        for key, value in many[0][name].items():
            if key.startswith("state"):
                assert torch.equal(result[name][key], value), key


# -- collectives -----------------------------------------------------------------------------------


def collectives(log: Path) -> dict:
    """What the collectives give on this rank; `log` is a file that both ranks see."""
    r = distributed.rank()
    x = (torch.arange(6.0).view(2, 3) + 10 * r).requires_grad_()
    everyone = distributed.gather(x)
    # Rank-dependent weights: the gradient must be the sum over ranks of each rank's weight for this slot.
    (everyone * (r + 1) * torch.arange(12.0).view(4, 3)).sum().backward()
    os.environ["LOCAL_RANK"] = str(r)
    with distributed.main_first():
        before_me = log.read_text() if log.exists() else ""
        log.write_text(f"{before_me}{r}")
    mean_of = torch.tensor([float(r)])
    return {
        "gathered": everyone.detach(),
        "gradient": x.grad,
        "no_grad": distributed.gather_no_grad(x),
        "mean": distributed.all_reduce_mean(mean_of),
        "mean_of": mean_of,
        "any": [distributed.any_rank(r == 1), distributed.any_rank(False)],
        "object": distributed.broadcast_object({"rank": r, "text": "ä", "list": [1, None]}),
        "empty": distributed.broadcast_object([]),
        "main": distributed.is_main(),
        "before_me": before_me,
    }


def test_collectives(tmp_path):
    results = spawn(partial(collectives, tmp_path / "log"), 2, tmp_path)
    rows = torch.arange(6.0).view(2, 3)
    for r, result in enumerate(results):
        assert torch.equal(result["gathered"], torch.cat([rows, rows + 10]))
        assert torch.equal(result["no_grad"], result["gathered"])
        assert torch.equal(result["gradient"], (1 + 2) * torch.arange(12.0).view(4, 3)[2 * r : 2 * r + 2])
        assert result["mean"].tolist() == [0.5] and result["mean_of"].tolist() == [r]
        assert result["any"] == [True, False]
        assert result["object"] == {"rank": 0, "text": "ä", "list": [1, None]} and result["empty"] == []
        assert result["main"] == (r == 0)
        assert result["before_me"] == ["", "0"][r]


def test_one_process_needs_no_set_up():
    x = torch.ones(2, 3, requires_grad=True)
    assert distributed.gather(x) is x
    assert not distributed.gather_no_grad(x).requires_grad
    assert torch.equal(distributed.all_reduce_mean(x), x)
    assert (distributed.rank(), distributed.world_size(), distributed.is_main()) == (0, 1, True)
    assert distributed.any_rank(True) and distributed.broadcast_object([1]) == [1]
    with distributed.main_first():
        distributed.barrier()


# -- batch normalisation ---------------------------------------------------------------------------


def norms() -> list[nn.Module]:
    """The batch norms to compare, with non-trivial parameters; the third has no beta, the last no running mean."""
    torch.manual_seed(3)
    made = [
        nn.BatchNorm2d(3),
        nn.BatchNorm2d(3, momentum=None, eps=1e-3),
        nn.BatchNorm2d(3, affine=True),
        nn.BatchNorm2d(3, affine=False),
        nn.BatchNorm2d(3, track_running_stats=False),
    ]
    made[2].register_parameter("bias", None)
    for norm in made:
        for p in norm.parameters():
            nn.init.normal_(p)
    return made


def normalise(own: slice) -> list[dict[str, torch.Tensor]]:
    """Two training batches and one evaluation batch through each norm; outputs, gradients and buffers."""
    results = []
    for norm in norms():
        norm = convert_batch_norm(norm) if distributed.world_size() > 1 else norm
        torch.manual_seed(4)
        for _ in range(2):
            # A mean far from 0 shows cancellation in a one-pass variance.
            x = (torch.randn(6, 3, 4, 5) * 0.5 + 30)[own].requires_grad_()
            weights = torch.randn(6, 3, 4, 5)[own]
            norm.zero_grad()
            out = norm(x)
            (out * weights).sum().backward()
        result = {"out": out.detach(), "input gradient": x.grad, **norm.state_dict()}
        if norm.affine:
            result["weight gradient"] = norm.weight.grad
        norm.eval()
        if norm.track_running_stats:
            result["eval"] = norm(x).detach()
        result["bfloat16"] = norm.train()(x.detach().bfloat16()).detach()
        results.append(result)
    return results


def normalise_unequal_shares() -> list[dict[str, torch.Tensor]]:
    return normalise(slice(0, 4) if distributed.rank() == 0 else slice(4, 6))


def test_batch_norm_across_ranks_equals_the_whole_batch(tmp_path):
    whole = normalise(slice(0, 6))
    shares = spawn(normalise_unequal_shares, 2, tmp_path)
    for number, expected in enumerate(whole):
        first, second = (share[number] for share in shares)
        assert first.keys() == expected.keys()
        for key, value in expected.items():
            if key in ("out", "input gradient", "eval", "bfloat16"):
                ours = torch.cat([first[key], second[key]])
                assert ours.dtype == value.dtype
            elif key == "weight gradient":
                ours = first[key] + second[key]
            else:
                ours = first[key]
                assert torch.equal(ours, second[key]), key
            tolerance = 1e-2 if key == "bfloat16" else 2e-5
            torch.testing.assert_close(ours, value, rtol=tolerance, atol=tolerance, msg=lambda m, k=key: f"{k}: {m}")


def test_conversion_keeps_keys_parameters_and_activation():
    from timm.layers import BatchNormAct2d

    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), BatchNormAct2d(4), nn.Sequential(nn.BatchNorm2d(4)))
    module[2].weight.data.fill_(2.0)
    keys, parameters = list(module.state_dict()), list(module.parameters())
    x = torch.randn(2, 3, 5, 5)
    module.eval()
    expected = module(x)
    converted = convert_batch_norm(module)
    assert converted is module
    assert [type(m).__name__ for m in module.modules()].count("CrossRankBatchNorm") == 3
    assert list(module.state_dict()) == keys
    assert all(a is b for a, b in zip(module.parameters(), parameters, strict=True))
    assert not module[1].training
    torch.testing.assert_close(module(x), expected)
    assert (module[2](x.new_full((1, 4, 2, 2), -5.0)) == 0).all()


# -- set-up ----------------------------------------------------------------------------------------

TORCHRUN = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29507"}


@pytest.fixture
def environment(monkeypatch):
    for name in distributed.ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)

    def put(**changes: str | None) -> None:
        for name, value in {**TORCHRUN, **changes}.items():
            if value is None:
                monkeypatch.delenv(name, raising=False)
            else:
                monkeypatch.setenv(name, value)

    return put


def test_set_up_without_torchrun_joins_nothing(environment):
    environment(**dict.fromkeys(TORCHRUN))
    with distributed.process_group("cpu") as device:
        assert device == torch.device("cpu")
        assert not torch.distributed.is_initialized()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"MASTER_PORT": None, "LOCAL_RANK": None}, r"LOCAL_RANK, MASTER_PORT missing.*torchrun"),
        ({"RANK": None}, r"RANK missing"),
        ({"RANK": "3", "WORLD_SIZE": "2"}, r"RANK=3 must lie in 0..1"),
        ({"WORLD_SIZE": "two"}, r"WORLD_SIZE='two' must be a whole number"),
        ({"RANK": "1", "WORLD_SIZE": "2", "MASTER_PORT": "1"}, r"cannot join the others at 127.0.0.1:1"),
    ],
)
def test_broken_environment_is_explained(environment, monkeypatch, changes, said):
    monkeypatch.setattr(distributed, "JOIN_TIMEOUT", timedelta(seconds=1))
    environment(**changes)
    with pytest.raises(ConfigError, match=said), distributed.process_group("cpu"):
        pass
    assert not torch.distributed.is_initialized()


def test_unknown_and_missing_devices_are_explained():
    with pytest.raises(ConfigError, match="unknown device 'gpu'"):
        local_device("gpu")
    missing = torch.cuda.device_count()
    with pytest.raises(ConfigError, match=f"no GPU: {missing} are visible"):
        local_device(f"cuda:{missing}")


SCRIPT = """
import json, sys, torch
from training import distributed
with distributed.process_group("cpu") as device:
    total = distributed.gather_no_grad(torch.tensor([float(distributed.rank())]))
    seen = {"world": distributed.world_size(), "total": total.tolist(), "device": str(device)}
    open(f"{sys.argv[1]}/{distributed.rank()}.json", "w").write(json.dumps(seen))
"""


@pytest.mark.slow
def test_under_torchrun(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    root = Path(__file__).parents[2]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    subprocess.run([*command, str(tmp_path)], check=True, env=environment, timeout=300)
    for r in range(2):
        seen = json.loads((tmp_path / f"{r}.json").read_text())
        assert seen == {"world": 2, "total": [0.0, 1.0], "device": "cpu"}
