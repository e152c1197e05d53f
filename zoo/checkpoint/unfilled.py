"""Networks without random initial values, and no larger than the weights that will fill them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from zoo.errors import CheckpointError


class Unfilled(TorchFunctionMode):
    """Builds a network without random initial values, and no larger than its weights file allows.

    Drawing values that the checkpoint overwrites takes most of the time of a load, and would move the
    caller's random state. Meta tensors would be as quick but lose buffers that no state dict holds.
    The limit keeps an absurd architecture argument from taking the machine's memory.
    """

    _RANDOM = frozenset(
        {"uniform_", "normal_", "trunc_normal_", "erfinv_", "random_", "bernoulli_"}
        | {"kaiming_uniform_", "kaiming_normal_", "xavier_uniform_", "xavier_normal_", "orthogonal_"}
    )
    _ALLOCATING = frozenset({"empty", "zeros", "ones", "full", "rand", "randn", "linspace", "arange", "eye"})

    def __init__(self, stored_bytes: int) -> None:
        """`stored_bytes`: size of the tensors in the weights file."""
        super().__init__()
        self.left = 4 * stored_bytes + (16 << 20)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None) -> Any:
        name = getattr(func, "__name__", "")
        kwargs = kwargs or {}
        if name in self._RANDOM:
            return args[0] if args else kwargs["tensor"]
        if name == "to" and kwargs.get("memory_format") is not None and isinstance(args[0], torch.nn.Parameter):
            # Another layout of values that are none yet: the copy would be the most costly part of a load.
            return torch.empty_like(args[0], memory_format=kwargs["memory_format"])
        result = func(*args, **kwargs)
        if name in self._ALLOCATING and isinstance(result, Tensor):
            self.left -= result.numel() * result.element_size()
            if self.left < 0:
                raise CheckpointError("config.json describes a far larger network than the weights file holds")
        return result
