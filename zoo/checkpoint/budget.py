"""Networks that a file describes, built under a budget of bytes, modules and processor time.

A config.json of 3 kB can name a network of a million layers, or one whose positions alone take gigabytes. The budget
ends the building of such a network in seconds, whatever family it is of, pretrained or not.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_module_registration_hook
from torch.overrides import TorchFunctionMode

from zoo.architectures import build, family_class
from zoo.encoder import Encoder
from zoo.errors import CheckpointError
from zoo.strict import Architecture

#: Modules within a network: half as many again as the deepest that a genotype can name.
MODULES = 16_000
#: Seconds of this thread's processor time, drawing of initial values apart: a busy machine takes no more of them.
SECONDS = 4.0
#: Bytes that building may take beside the network itself: tables of positions and the like.
SPARE = 64 << 20
#: Bytes of weights that a config.json may claim without showing them, for a network with random values.
UNSEEN = 1 << 28

_RANDOM = frozenset(
    {"uniform_", "normal_", "trunc_normal_", "erfinv_", "random_", "bernoulli_"}
    | {"kaiming_uniform_", "kaiming_normal_", "xavier_uniform_", "xavier_normal_", "orthogonal_"}
)
#: Functions that are called with the shape of what they make.
_SHAPED = frozenset({"empty", "zeros", "ones", "full", "rand", "randn"})


def build_within(architecture: Architecture, input: Any, stored_bytes: int, *, fill: bool = False) -> Encoder:
    """An encoder as a file describes it, no larger than its weights can be.

    Args:
        architecture, input: as `zoo.architectures.build`.
        stored_bytes: how many bytes of tensors the file holds.
        fill: draw the random initial values; otherwise they are left as memory held them, for a caller who loads
            others over them. Drawing takes most of the time of a load, and would move the caller's random state.

    Raises:
        ConfigError: the network cannot be built.
        CheckpointError: it is too large, too deep or too slow to build.
    """
    # A first import takes seconds of a slow machine, and is no fault of the file.
    for library in family_class(architecture.family).libraries:
        import_module(library)
    with within(stored_bytes, fill=fill):
        return build(architecture, input)


def within(stored_bytes: int, *, fill: bool = False) -> _Budget:
    """The budget as a context, for what builds a network in another way; arguments and errors as `build_within`."""
    # Twice for float16 files that become float32, and twice again for a copy in another layout.
    return _Budget(4 * stored_bytes + SPARE, fill)


class _Budget(TorchFunctionMode):
    """Counts what a constructor makes in this thread.

    Meta tensors would be cheaper but lose buffers that no file holds.
    """

    def __init__(self, limit: int, fill: bool, clock: Callable[[], float] = time.thread_time) -> None:
        super().__init__()
        self.left, self.modules, self.fill, self.clock = limit, 0, fill, clock
        self.thread = threading.get_ident()

    def __enter__(self) -> Any:
        self.until = self.clock() + SECONDS
        self.hook = register_module_module_registration_hook(self._registered)
        return super().__enter__()

    def __exit__(self, *exception: Any) -> None:
        self.hook.remove()
        super().__exit__(*exception)

    def _registered(self, module: nn.Module, name: str, child: nn.Module | None) -> None:
        if threading.get_ident() != self.thread:  # the hook is torch's own, for every thread
            return
        self.modules += 1
        if self.modules > MODULES:
            raise CheckpointError(
                f"config.json describes a network of more than {MODULES:,} modules; none is that deep"
            )
        self._check_time()

    def _check_time(self) -> None:
        if self.clock() > self.until:
            raise CheckpointError(f"config.json describes a network that takes more than {SECONDS:g} s to build")

    def _take(self, count: int) -> None:
        self.left -= count
        if self.left < 0:
            raise CheckpointError("config.json describes a far larger network than the weights file holds")

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None) -> Any:
        name = getattr(func, "__name__", "")
        kwargs = kwargs or {}
        self._check_time()
        if name in _RANDOM:
            return self._draw(func, args, kwargs)
        if name == "to" and kwargs.get("memory_format") is not None and isinstance(args[0], nn.Parameter):
            if not self.fill:
                # Another layout of values that are none yet: the copy would be the most costly part of a load.
                return torch.empty_like(args[0], memory_format=kwargs["memory_format"])
            return func(*args, **kwargs)
        foreseen = _foreseen(name, args, kwargs)
        if foreseen > self.left:
            self._take(foreseen)
        result = func(*args, **kwargs)
        if isinstance(result, Tensor) and not result._is_view() and not any(result is value for value in args):
            self._take(result.numel() * result.element_size())
        return result

    def _draw(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        if not self.fill:
            return args[0] if args else kwargs["tensor"]
        started = self.clock()
        result = func(*args, **kwargs)
        self.until += self.clock() - started  # how much is drawn is bounded in bytes
        return result


def _foreseen(name: str, args: Any, kwargs: dict[str, Any]) -> int:
    """Bytes that a call is about to take, where its arguments tell: a shape, or tensors that stretch each other.

    One byte an element, so that nothing is refused that the count after the call would let pass.
    """
    tensors = [value for value in args if isinstance(value, Tensor)]
    if len(tensors) > 1:
        try:
            return math.prod(torch.broadcast_shapes(*(value.shape for value in tensors)))
        except RuntimeError:  # no function that stretches
            return 0
    if name in _SHAPED:
        shape = kwargs.get("size", args[0] if args and isinstance(args[0], list | tuple) else args)
        sides = [side for side in shape if isinstance(side, int)]
        return math.prod(sides) if sides else 0
    return 0
