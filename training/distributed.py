"""Processes that train together. Nothing else in the house knows of ranks.

One process needs no set-up: every function here then works on its own. `torchrun` starts more, on
one node or many, elastic or not; NCCL joins them on CUDA and Gloo on the CPU.
"""

from __future__ import annotations

import inspect
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from zoo.device import local_device, whole_number
from zoo.errors import ConfigError

#: What torchrun sets for each process.
ENVIRONMENT = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
#: Long enough for rank 0 to decode a dataset or run the online monitor while the others wait.
TIMEOUT = timedelta(minutes=60)
#: torchrun starts the processes together, so one that is not there by then never comes.
JOIN_TIMEOUT = timedelta(minutes=5)


def _together() -> bool:
    return dist.is_available() and dist.is_initialized()


def rank() -> int:
    """Number of this process, from 0."""
    return dist.get_rank() if _together() else 0


def world_size() -> int:
    """How many processes train together."""
    return dist.get_world_size() if _together() else 1


def is_main() -> bool:
    """Whether this process writes logs and states."""
    return rank() == 0


def setup(device: str = "auto") -> torch.device:
    """Join the processes that torchrun started, if it did; returns `local_device(device)`.

    Raises:
        ConfigError: some but not all of torchrun's variables are set, they contradict each other,
            or the other processes cannot be reached.
    """
    chosen = local_device(device)
    given = [name for name in ENVIRONMENT if name in os.environ]
    # A master address alone is common on clusters and says nothing about this process.
    if "RANK" not in given and "WORLD_SIZE" not in given:
        return chosen
    missing = [name for name in ENVIRONMENT if name not in given]
    if missing:
        raise ConfigError(
            f"{', '.join(given)} set but {', '.join(missing)} missing: start with "
            "`torchrun --nproc-per-node N -m training RECIPE`, or unset them to train in one process"
        )
    number, world = whole_number("RANK"), whole_number("WORLD_SIZE")
    if not 0 <= number < world:
        raise ConfigError(f"RANK={number} must lie in 0..{world - 1} as WORLD_SIZE={world}; start with torchrun")
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    try:
        store, number, world = next(dist.rendezvous("env://", timeout=JOIN_TIMEOUT))
        backend = "nccl" if chosen.type == "cuda" else "gloo"
        dist.init_process_group(backend, store=store, rank=number, world_size=world, timeout=TIMEOUT)
    except (RuntimeError, ValueError) as error:
        where = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        raise ConfigError(
            f"process {number} of {world} cannot join the others at {where}: {str(error).splitlines()[0]}; check that "
            "the address is reachable from every node and that the port is free (torchrun --rdzv-endpoint HOST:PORT)"
        ) from None
    return chosen


def teardown() -> None:
    """Leave the group that `setup` joined; harmless when there is none."""
    if _together():
        # Gloo's threads need the GIL to let go of the last tensors, and the end of the group waits for these threads;
        # torch 2.6 holds the GIL meanwhile, so that both wait without end. A pause lets them finish first.
        time.sleep(0.05)
        dist.destroy_process_group()


@contextmanager
def process_group(device: str = "auto") -> Iterator[torch.device]:
    """`setup` on entry, `teardown` on exit: `with process_group() as device:`."""
    try:
        yield setup(device)
    finally:
        teardown()


# -- collectives -----------------------------------------------------------------------------------


def gather(x: Tensor) -> Tensor:
    """Concatenate every rank's `x` `(n, ...)` along dim 0 to `(W * n, ...)`, with gradients.

    All ranks must hold the same shape. The gradient that reaches `x` is the sum over ranks of theirs
    for this slot. With a local-mean loss per rank and DistributedDataParallel's averaging, parameter
    gradients then equal those of one process with the whole batch (SimCLR's code: objective.py,
    tpu_cross_replica_concat).
    """
    return x if world_size() == 1 else _Gather.apply(x)


def gather_no_grad(x: Tensor) -> Tensor:
    """`gather` without gradients."""
    x = x.detach()
    return x if world_size() == 1 else _all_gather(x)


def all_reduce_mean(x: Tensor) -> Tensor:
    """Mean over ranks of a float tensor, without gradients; `x` itself is left alone."""
    x = x.detach()
    if world_size() == 1:
        return x
    total = x.clone(memory_format=torch.contiguous_format)
    dist.all_reduce(total)
    return total / world_size()


def all_reduce_max(values: list[int]) -> list[int]:
    """The largest over ranks of each whole number; every rank gets the same answer."""
    if world_size() == 1:
        return values
    votes = torch.tensor(values, device=_wire())
    dist.all_reduce(votes, op=dist.ReduceOp.MAX)
    return votes.tolist()


def any_rank(flag: bool) -> bool:
    """Whether `flag` holds on any rank; every rank gets the same answer."""
    return bool(all_reduce_max([int(flag)])[0])


def broadcast_object(value: Any) -> Any:
    """Rank 0's `value` on every rank. JSON types only: nothing is unpickled from the network."""
    if world_size() == 1:
        return value
    data = json.dumps(value).encode() if is_main() else b""
    length = torch.tensor([len(data)], device=_wire())
    dist.broadcast(length, src=0)
    buffer = torch.zeros(int(length.item()), dtype=torch.uint8)
    if is_main():
        buffer = torch.frombuffer(bytearray(data), dtype=torch.uint8)
    buffer = buffer.to(_wire())
    dist.broadcast(buffer, src=0)
    return json.loads(buffer.cpu().numpy().tobytes())


def barrier() -> None:
    """Wait for every rank."""
    if world_size() > 1:
        any_rank(False)


@contextmanager
def main_first() -> Iterator[None]:
    """Run the body on rank 0, then on the first rank of every other node, then on the rest.

    For work that leaves a file behind, such as a cache, on a disk that nodes may or may not share.
    """
    turn = 0 if is_main() else 1 if os.environ.get("LOCAL_RANK") == "0" else 2
    for _ in range(turn):
        barrier()
    try:
        yield
    finally:
        for _ in range(2 - turn):
            barrier()


def _wire() -> torch.device:
    return torch.device("cuda", torch.cuda.current_device()) if dist.get_backend() == "nccl" else torch.device("cpu")


def _all_gather(x: Tensor) -> Tensor:
    out = x.new_empty((world_size() * x.shape[0], *x.shape[1:]))
    dist.all_gather(list(out.chunk(world_size())), x.contiguous())
    return out


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.rows = x.shape[0]
        return _all_gather(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        total = grad.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total[rank() * ctx.rows : (rank() + 1) * ctx.rows]


class _Sum(torch.autograd.Function):
    """Sum over ranks; its gradient is again a sum over ranks, as every rank's loss depends on it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return _Sum.apply(grad)


# -- models ----------------------------------------------------------------------------------------


def data_parallel(module: nn.Module) -> DistributedDataParallel:
    """Wrap `module`, already on its device, so that `backward` averages gradients over ranks.

    Buffers are not sent in each forward: batch statistics are equal by `convert_batch_norm`, and what
    a method keeps (queues) is made from gathered tensors.
    """
    # torch renamed the argument after 2.6 and warns about the old name.
    names = inspect.signature(DistributedDataParallel.__init__).parameters
    argument = "forward_sync_buffers" if "forward_sync_buffers" in names else "broadcast_buffers"
    device = next(module.parameters()).device
    ids = [device.index] if device.type == "cuda" else None
    return DistributedDataParallel(module, device_ids=ids, **{argument: False})
