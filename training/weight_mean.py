"""An exponential mean of the encoder's weights over the steps, which the run can end in instead of the last ones.

Copy and state are those of torch's `torch.optim.swa_utils.AveragedModel`; the step is taken here, as torch's sends its
count to the device and waits for it.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from zoo.encoder import Encoder
from zoo.strict import Strict


class WeightMeanConfig(Strict):
    """An exponential mean of the encoder's weights.

    After every step `mean = d * mean + (1 - d) * weights`. At step n = 1, 2, ... of a run d is at most
    (n - 1) / (n + 8), so that the mean covers about the last ninth of a young run: first weights do not dominate a
    short one, and the initialisation never enters.

    Running statistics of batch norms and other floating-point buffers are averaged like weights; counters are copied.
    """

    decay: float = Field(
        default=0.999, gt=0, lt=1, description="d, so that the mean covers about the last 1 / (1 - d) steps."
    )
    export: Literal["mean", "last"] = Field(
        default="mean", description="What the monitor watches and the run ends in; a resumed run may change it."
    )


class WeightMean:
    """The mean of one encoder's weights. Every process keeps its own, and all are equal, as the weights are."""

    def __init__(self, encoder: Encoder, config: WeightMeanConfig) -> None:
        self.config = config
        self._average = AveragedModel(encoder, use_buffers=True)
        self._average.requires_grad_(False)

    @property
    def encoder(self) -> Encoder:
        """The encoder that holds the mean; before the first update it holds the initial weights."""
        return self._average.module

    def update(self, encoder: nn.Module) -> None:
        """Take the weights after a step into the mean; the first call copies them."""
        groups: dict[bool, tuple[list[Tensor], list[Tensor]]] = {}
        for mean, current in zip(_tensors(self.encoder), _tensors(encoder), strict=True):
            own, new = groups.setdefault(mean.is_floating_point(), ([], []))
            own.append(mean)
            new.append(current)
        decay = self.decay()
        with torch.no_grad():
            for moves, (own, new) in groups.items():
                if moves and decay > 0:
                    torch._foreach_lerp_(own, new, 1 - decay)
                else:
                    torch._foreach_copy_(own, new)
        self._average.n_averaged += 1

    def decay(self) -> float:
        """d of the next update."""
        # Counted on the CPU: the count that torch passes on is a tensor of the device, whose value costs a wait.
        done = int(self._average.n_averaged)
        return min(self.config.decay, done / (done + 9))

    def state_dict(self) -> dict[str, Any]:
        """Mean and count of updates."""
        return self._average.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict()`. Raises RuntimeError if it is of another network."""
        self._average.load_state_dict(state, strict=True)


def _tensors(module: nn.Module) -> list[Tensor]:
    return [tensor.detach() for tensor in (*module.parameters(), *module.buffers())]
