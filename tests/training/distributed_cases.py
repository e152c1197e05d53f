"""One process against W: the check that every method goes through. A new method is one line in `CASES`."""

from __future__ import annotations

import contextlib
import multiprocessing
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing
from torch import Tensor, nn

from training import distributed
from training.methods import method_class
from training.methods.base import Context
from training.modules.batch_norm import convert_batch_norm
from zoo.architectures import build
from zoo.encoder import Encoder
from zoo.preprocessing.image import ImageInput
from zoo.preprocessing.skeleton import SkeletonInput
from zoo.strict import Architecture

BATCH = 8
SIDE = 8


class TinyEncoder(Encoder):
    """Two convolutions with the given norm: `(N, 3, 8, 8)` -> `(N, 12)`, in float64 if its weights are."""

    def __init__(self, norm: Callable[[int], nn.Module]) -> None:
        super().__init__()
        self.input = ImageInput(size=(SIDE, SIDE))
        self.num_features = 12
        self.network = nn.Sequential(
            nn.Conv2d(3, 8, 3, bias=False), norm(8), nn.ReLU(), nn.Conv2d(8, 12, 3, stride=2, bias=False), norm(12)
        )

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        return self.pool(self._features(x, lengths), lengths)

    def _features(self, x: Tensor, lengths: Tensor | None) -> Tensor:
        return self.network(x).relu()

    def pool(self, features: Tensor, lengths: Tensor | None = None) -> Tensor:
        return features.mean((2, 3))

    def check_input(self, x: Tensor, lengths: Tensor | None) -> None:
        assert x.shape[1:] == (3, SIDE, SIDE)


def tiny_skeleton_encoder(norm: Callable[[int], nn.Module]) -> Encoder:
    """One layer of 4 units per direction over joints and motion; it has no norm."""
    architecture = Architecture(
        family="skeleton_gru", arguments={"hidden": 4, "layers": 1, "streams": ["joint", "motion"]}
    )
    return build(architecture, SkeletonInput(frames=SIDE))


def tiny_unet(norm: Callable[[int], nn.Module]) -> Encoder:
    """Two levels of 8 and 16 channels. No dropout: each rank draws its own."""
    arguments = {"width": 8, "depth": 2, "dropout": 0.0}
    return build(Architecture(family="unet", arguments=arguments), ImageInput(size=(SIDE, SIDE)))


def tiny_supernet(norm: Callable[[int], nn.Module]) -> Encoder:
    """The NAS-Bench-201 cell at 2 channels, its features in float64 if its weights are."""
    from training.search.supernet import Supernet, SupernetArguments

    class Double(Supernet):
        def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
            return self.pool(self._features(x, lengths))

    return Double(SupernetArguments(space="nb201", width=2, depth=1), ImageInput(size=(SIDE, SIDE)))


class NoRun:
    """What hooks may ask of a run, where there is none: full precision."""

    autocast = staticmethod(contextlib.nullcontext)


NO_RUN: Any = NoRun()


def group_norm(channels: int) -> nn.Module:
    return nn.GroupNorm(2, channels)


@dataclass(frozen=True)
class Case:
    """A method, its settings, and fixed views of the global batch: tensors with samples along dim 0."""

    method: str
    config: dict[str, Any]
    views: Callable[[torch.Generator], Any]
    norm: Callable[[int], nn.Module] = nn.BatchNorm2d
    encoder: Callable[[Callable[[int], nn.Module]], Encoder] = TinyEncoder

    def build(self) -> nn.Module:
        cls = method_class(self.method)
        context = Context(image_size=SIDE, global_batch=BATCH, total_steps=4, samples=4 * BATCH)
        return cls(self.encoder(self.norm), cls.Config(**self.config), context)


def images(count: int, generator: torch.Generator) -> list[Tensor]:
    return [torch.rand(BATCH, 3, SIDE, SIDE, generator=generator, dtype=torch.float64) for _ in range(count)]


def simclr_views(generator: torch.Generator) -> list[Tensor]:
    """Two large views and two small ones."""
    first, second, *small = images(4, generator)
    return [first, second, *(x[..., 2:, 2:] for x in small)]


def moco_more_views(generator: torch.Generator) -> dict[str, Any]:
    """Two further queries, the last one smaller."""
    views = moco_views(generator)
    same, small = images(2, generator)
    return {**views, "more": [same, small[..., 1:, 1:]]}


def moco_views(generator: torch.Generator) -> dict[str, Tensor]:
    x_q, x_k = images(2, generator)
    return {"x_q": x_q, "x_k": x_k, "shuffle": torch.rand(BATCH, 2, generator=generator)}


def clsa_views(generator: torch.Generator) -> dict[str, Any]:
    """One key, two weak and two strong views, the last of each smaller."""
    key, weak, strong, *small = images(5, generator)
    weak_small, strong_small = (x[..., 1:, 1:] for x in small)
    shuffle = torch.rand(BATCH, 1, generator=generator)
    return {"key": key, "weak": [weak, weak_small], "strong": [strong, strong_small], "shuffle": shuffle}


def ms2l_views(generator: torch.Generator) -> dict[str, Tensor]:
    """Three guises of their own lengths, as ranks see them: unequal numbers of true frames."""
    names = ("original", "moving", "shuffled")
    views = {name: torch.randn(BATCH, SIDE, 20, 3, generator=generator, dtype=torch.float64) for name in names}
    for name in names:
        views[f"{name}_lengths"] = torch.randint(1, SIDE + 1, (BATCH,), generator=generator)
    return {**views, "order": torch.randint(6, (BATCH,), generator=generator)}


def conrec_views(generator: torch.Generator) -> dict[str, Tensor]:
    return dict(zip(("x_a", "x_b", "y_a", "y_b"), images(4, generator), strict=True))


def ssnas_views(generator: torch.Generator) -> dict[str, list[Tensor]]:
    """Two views of each half."""
    return {"a": images(2, generator), "b": images(2, generator)}


def distill_views(generator: torch.Generator) -> dict[str, Any]:
    """Two views, the second one smaller, and the teacher's features of the whole images."""
    same, small = images(2, generator)
    targets = torch.randn(BATCH, 256, generator=generator, dtype=torch.float64)
    return {"views": [same, small[..., 1:, 1:]], "targets": targets}


DISTILL = {"teacher": "simclr_airbench94_cifar10", "queue_size": 2 * BATCH}
MOMENTUM = {"queue_size": 2 * BATCH, "momentum": 0.9, "out_dim": 6, "bn_groups": 4}
MS2L = {"hidden_dim": 8, "out_dim": 6}

CASES: dict[str, Case] = {
    "simclr": Case("simclr", {"temperature": 0.2, "out_dim": 6}, partial(images, 2), group_norm),
    "simclr_batch_norm": Case("simclr", {"head": "official", "out_dim": 6}, partial(images, 2)),
    "simclr_views": Case("simclr", {"temperature": 0.2, "head": "official", "out_dim": 6}, simclr_views),
    "simclr_views_mean": Case("simclr", {"positives": "mean", "out_dim": 6}, simclr_views),
    "simclr_views_dcl": Case("simclr", {"positives": "mean", "loss": "dcl", "out_dim": 6}, simclr_views),
    "simclr_dcl": Case("simclr", {"loss": "dcl", "out_dim": 6}, partial(images, 2)),
    "moco": Case("moco", MOMENTUM, moco_views),
    "moco_more_queries": Case("moco", MOMENTUM, moco_more_views),
    "moco_more_symmetric": Case("moco", {**MOMENTUM, "symmetric": True}, moco_more_views),
    "moco_symmetric": Case("moco", {**MOMENTUM, "symmetric": True, "head": "official"}, moco_views),
    "moco_plus": Case(
        "moco", {**MOMENTUM, "symmetric": True, "final_momentum": 1.0, "negatives": "batch_and_queue"}, moco_views
    ),
    "moco_shared_batch_norm": Case("moco", {**MOMENTUM, "bn_groups": 1}, moco_views),
    "clsa": Case("clsa", MOMENTUM, clsa_views),
    "clsa_queue": Case("clsa", {**MOMENTUM, "negatives": "queue", "ddm_weak_temperature": 0.1}, clsa_views),
    "clsa_naive": Case("clsa", {**MOMENTUM, "strong_loss": "contrastive", "negatives": "queue"}, clsa_views),
    "conrec": Case("conrec", {"out_dim": 6}, conrec_views, encoder=tiny_unet),
    "conrec_simclr": Case(
        "conrec", {"reconstruction": 0.0, "corrupt": None, "out_dim": 6}, conrec_views, encoder=tiny_unet
    ),
    "distill": Case("distill", DISTILL, distill_views),
    "distill_cosine": Case("distill", {**DISTILL, "loss": "cosine", "head": "official"}, distill_views),
    "ssnas": Case("ssnas", {"out_dim": 6, "alpha_lr": 0.1}, ssnas_views, encoder=tiny_supernet),
    "ms2l": Case("ms2l", MS2L, ms2l_views, encoder=tiny_skeleton_encoder),
    "ms2l_corrected": Case(
        "ms2l", {**MS2L, "preset": "corrected", "positives": "others"}, ms2l_views, encoder=tiny_skeleton_encoder
    ),
}


def train(case: Case, steps: int = 2) -> dict[str, Tensor]:
    """Train as the loop does; gradients of the first step, and loss, parameters and buffers of the last.

    In float64, where a wrong gradient cannot hide behind rounding.
    """
    torch.manual_seed(0)
    method = case.build().double()
    module: nn.Module = method
    if distributed.world_size() > 1:
        method = convert_batch_norm(method)
        module = distributed.data_parallel(method)
    optimizer = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=0.1)
    generator = torch.Generator().manual_seed(1)
    seen: dict[str, Tensor] = {}
    for step in range(steps):
        optimizer.zero_grad()
        out = module(_own_share(case.views(generator)))
        out["loss"].backward()
        if step == 0:
            seen.update({f"gradient {n}": p.grad.clone() for n, p in method.named_parameters() if p.requires_grad})
        optimizer.step()
        method.after_step(step, NO_RUN)
        seen["loss"] = distributed.all_reduce_mean(out["loss"])
    return {**seen, **{f"state {n}": t.clone() for n, t in method.state_dict().items()}}


def _own_share(views: Any) -> Any:
    if isinstance(views, dict):
        return {key: _own_share(value) for key, value in views.items()}
    if isinstance(views, Tensor):
        return views.chunk(distributed.world_size())[distributed.rank()].contiguous()
    return [_own_share(value) for value in views]


def all_cases() -> dict[str, dict[str, Tensor]]:
    return {name: train(case) for name, case in CASES.items()}


def difference(ours: Tensor, expected: Tensor) -> float:
    """Relative to the norm of what is expected; 0 where both are rounding noise, as the gradient of a bias is that a
    batch norm takes away again."""
    ours, expected = ours.double(), expected.double()
    if max(ours.abs().max(), expected.abs().max()) < 1e-12:
        return 0.0
    return float((ours - expected).norm() / expected.norm().clamp_min(1e-12))


def spawn(work: Callable[[], Any], world: int, folder: Path) -> list[Any]:
    """Run `work()` in `world` Gloo processes; what each returned (tensors, numbers, containers), by rank.

    `work` must be importable by name, `folder` new for each call. A process that fails ends the others and raises here.
    """
    multiprocessing.set_forkserver_preload(["torch", "training.distributed"])
    torch.multiprocessing.start_processes(_child, (work, world, str(folder)), nprocs=world, start_method="forkserver")
    return [torch.load(folder / f"rank{r}.pt", weights_only=True) for r in range(world)]


def _child(rank: int, work: Callable[[], Any], world: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/init", rank=rank, world_size=world)
    try:
        torch.save(work(), f"{folder}/rank{rank}.pt")
    finally:
        distributed.teardown()
