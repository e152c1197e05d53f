"""Batch norm over groups of a batch: each group as if it were alone, statistics averaged."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from training.modules.batch_norm import SplitBatchNorm, split_batch_norm
from zoo.errors import ConfigError


@pytest.mark.parametrize("make", [lambda: nn.BatchNorm2d(3), lambda: nn.BatchNorm2d(3, momentum=None, affine=False)])
def test_split_batch_norm_equals_one_batch_norm_per_group(make):
    torch.manual_seed(0)
    reference, source = make(), make()
    for norm in (reference, source):
        for p in norm.parameters():
            nn.init.constant_(p, 0.7)
    split = SplitBatchNorm(source, 2)
    assert list(split.state_dict()) == list(reference.state_dict())
    x = torch.randn(6, 3, 4, 5)
    means = []
    for part, ours in zip(x.split(2), split(x).split(2), strict=True):
        fresh = make()
        fresh.load_state_dict(reference.state_dict())
        torch.testing.assert_close(ours, fresh(part))
        means.append(fresh.running_mean)
    torch.testing.assert_close(split.running_mean, torch.stack(means).mean(0))
    reference.load_state_dict(split.state_dict())
    torch.testing.assert_close(split.eval()(x), reference.eval()(x))
    with pytest.raises(ConfigError, match=r"5 samples.*groups of 2"):
        split.train()(x[:5])


def test_split_batch_norm_takes_timms_activation_and_norms_without_statistics():
    from timm.layers import BatchNormAct2d

    torch.manual_seed(0)
    plain = nn.BatchNorm2d(3, track_running_stats=False)
    module = split_batch_norm(nn.Sequential(nn.Conv2d(3, 3, 1), BatchNormAct2d(3), nn.Sequential(plain)), 2)
    assert [type(m).__name__ for m in module.modules()].count("SplitBatchNorm") == 2
    assert (module[1](torch.randn(4, 3, 2, 2)) >= 0).all()
    x = torch.randn(4, 3, 2, 2)
    torch.testing.assert_close(module[2].eval()(x), torch.cat([plain(p) for p in x.split(2)]))
