"""Multinomial logistic regression over a path of C: one decomposition, warm starts, a preconditioned L-BFGS.

The objective is scikit-learn's: C * sum of cross-entropies + ||W||^2 / 2, the intercept free; everything here
divides it by C * N. Three facts make a path cheap:

- The solution lies in the span of the centred samples, and the penalty does not change under rotation. So all C
  share one eigendecomposition: features are described in their principal directions, of which there are at most
  min(N, D). Exact, no direction is cut.
- In these directions the Hessian is nearly diagonal (Boehning 1992 bounds it by half the covariance), so that scaling
  each by the root of its own curvature makes L-BFGS converge in tens of steps whatever the features' conditioning.
- The solution at the C before is a good start for the next.

Features are float32 and may be a memory map larger than memory: nothing of their size is then copied.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from threadpoolctl import ThreadpoolController
from torch import Tensor

from evaluation.frozen import divisor
from zoo.errors import DataError

#: Tables up to this many bytes are copied once into principal directions; larger ones are streamed at every step.
IN_MEMORY = 1 << 30
#: Bytes of features that a streamed step holds at once.
BLOCK = 1 << 26
#: Below this loss float32 leaves `tol` nothing to be a fraction of.
FLOOR = 1e-3


@dataclass(frozen=True)
class Solution:
    """Weights for raw features: class scores are `features @ coef.T + intercept`.

    Attributes:
        c: as in scikit-learn. coef: `(K, D)` float32. intercept: `(K,)` float32.
        loss: the objective divided by C * N. iterations: of L-BFGS. converged: within `tol`.
    """

    c: float
    coef: np.ndarray
    intercept: np.ndarray
    loss: float
    iterations: int
    converged: bool

    def predict(self, features: np.ndarray, rows: np.ndarray | None = None) -> np.ndarray:
        """Class indices for raw features `(N, D)`, or for some `rows` of them, read in blocks."""
        coef, intercept = torch.from_numpy(self.coef).T, torch.from_numpy(self.intercept)
        blocks = _Table(features, rows, torch.device("cpu")).blocks()
        return torch.cat([(part @ coef + intercept).argmax(dim=1) for _, part in blocks]).numpy()


class LogisticPath:
    """Fits for one table of features and any number of C.

    Args:
        features: `(N, D)` float32 array or memory map. labels: `(N,)` class indices 0..K-1.
        classes: K; default the largest label + 1.
        standardise: divide each feature by its deviation first, which changes what the penalty means.
        rows: use only these samples, such as the part to fit on; no copy is made of a streamed table.
        max_iter: of L-BFGS, for each C.
        tol: how far a fit may stay above the least loss, as a fraction of it (estimated from the gradient).
        device: where to multiply; None is the CPU.

    Raises:
        DataError: lengths that differ, or no samples.
    """

    def __init__(
        self,
        features: np.ndarray,
        labels: np.ndarray,
        *,
        classes: int | None = None,
        standardise: bool = True,
        rows: np.ndarray | None = None,
        max_iter: int = 500,
        tol: float = 1e-4,
        device: str | torch.device | None = None,
        in_memory: int = IN_MEMORY,
    ) -> None:
        if features.ndim != 2 or len(features) != len(labels) or not len(labels):
            raise DataError(f"features {features.shape} for {len(labels)} labels; expected (N, D) and N labels, N > 0")
        self.max_iter, self.tol, self.device = max_iter, tol, torch.device(device or "cpu")
        self.table = _Table(features, rows, self.device)
        self.samples, self.dims = len(self.table), features.shape[1]
        chosen = labels if rows is None else labels[rows]
        self.labels = torch.from_numpy(np.ascontiguousarray(chosen, dtype=np.int64)).to(self.device)
        self.classes = classes or int(labels.max()) + 1
        self.mean, scale = self.table.moments()
        scale = divisor(self.mean, scale)
        self.scale = scale if standardise else np.where(np.isinf(scale), np.inf, 1.0)
        self._decompose(4 * self.samples * min(self.samples, self.dims) <= in_memory)
        self._point = np.zeros((self.rank + 1, self.classes))
        from scipy.optimize import minimize

        self._minimize, self._pools = minimize, ThreadpoolController()  # in this order: it finds what is loaded

    def fit(self, c: float, *, warm: bool = True, tol: float | None = None) -> Solution:
        """The optimum at `c`; `warm` starts from the one found last, `tol` replaces the path's own."""
        ridge, tol = 1 / (c * self.samples), self.tol if tol is None else tol
        start = self._point if warm else np.zeros_like(self._point)
        precondition = 1 / np.sqrt(self._curvature(start) + ridge * self._penalised)
        last = [0.0, math.inf]

        def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
            point = flat.reshape(start.shape) * precondition
            loss, gradient = self._loss(point)
            penalty = ridge * point * self._penalised
            loss += 0.5 * float((penalty * point).sum())
            gradient = ((gradient + penalty) * precondition).ravel()
            # Half the squared gradient, where the Hessian is near the identity, is how far the loss is from its least.
            last[:] = loss, 0.5 * float(gradient @ gradient)
            return loss, gradient

        def near(flat: np.ndarray) -> None:
            if last[1] <= tol * max(last[0], FLOOR):
                raise StopIteration

        # The threads of scipy's BLAS spin after each of its small steps and keep torch's from working (LOG.md).
        with self._pools.limit(limits=1, user_api="blas"):
            found = self._minimize(
                objective, (start / precondition).ravel(), jac=True, method="L-BFGS-B", callback=near,
                options={"maxiter": self.max_iter, "maxcor": 10, "gtol": 0, "ftol": 0},
            )  # fmt: skip
        self._point = found.x.reshape(start.shape) * precondition
        loss, _ = objective(found.x)
        # Float32 may leave the line search nothing to gain just before the tolerance.
        return self._solution(c, loss, int(found.nit), last[1] <= 10 * tol * max(loss, FLOOR))

    def start_from(self, solution: Solution) -> None:
        """Let the next `fit` start from a solution of another path, such as one on fewer samples."""
        weights = solution.coef.astype(np.float64) * np.where(np.isfinite(self.scale), self.scale, 0)
        self._point[:-1] = self.directions.double().cpu().numpy().T @ weights.T
        self._point[-1] = solution.intercept + solution.coef.astype(np.float64) @ self.mean
        self._point -= self._point.mean(axis=1, keepdims=True)  # see `_curvature`

    def path(self, cs: Sequence[float]) -> Iterator[Solution]:
        """One solution for each C, from small to large, each started from the one before."""
        for c in sorted(cs):
            yield self.fit(c)

    def _decompose(self, in_memory: bool) -> None:
        """Principal directions `(D, r)`, their variances `(r,)`, and the samples in them where they fit memory."""
        mean, scale = (torch.from_numpy(a.astype(np.float32)).to(self.device) for a in (self.mean, self.scale))
        self._mean, self._scale = mean, scale
        wide = self.samples < self.dims
        if wide:  # few samples: an orthonormal basis of their span first
            x = torch.cat([(block - mean) / scale for _, block in self.table.blocks()])
            basis, triangle = torch.linalg.qr(x.T, mode="reduced")
            gram = (triangle @ triangle.T).double()
        else:
            basis = None
            gram = torch.zeros(self.dims, self.dims, dtype=torch.float64, device=self.device)
            for _, block in self.table.blocks():
                part = (block - mean) / scale
                gram += (part.T @ part).double()
        variances, vectors = torch.linalg.eigh(gram / self.samples)
        # Rotations are exact to rounding however small a variance is, so none is cut off.
        rotation = vectors.float()
        self.directions = rotation if basis is None else basis @ rotation
        self.rank = self.directions.shape[1]
        self.variances = variances.clamp_min(0).cpu().numpy()
        self._penalised = np.ones((self.rank + 1, 1))
        self._penalised[-1] = 0  # the intercept
        self._rotated = None
        if in_memory:
            self._rotated = torch.empty(self.samples, self.rank, device=self.device)
            for rows, block in self.table.blocks():
                self._rotated[rows] = ((block - mean) / scale) @ self.directions

    def _blocks(self) -> Iterator[tuple[slice, Tensor]]:
        """Samples in principal directions if those are held, else standardised only (`_fold` then rotates weights)."""
        if self._rotated is not None:
            step = max(1, BLOCK // (4 * max(1, self.rank)))
            for start in range(0, self.samples, step):
                rows = slice(start, min(self.samples, start + step))
                yield rows, self._rotated[rows]
        else:
            for rows, block in self.table.blocks():
                yield rows, block.sub_(self._mean).div_(self._scale)

    def _fold(self, weights: Tensor) -> Tensor:
        return weights if self._rotated is not None else self.directions @ weights

    def _unfold(self, gradient: Tensor) -> Tensor:
        return gradient if self._rotated is not None else self.directions.T @ gradient

    def _loss(self, point: np.ndarray) -> tuple[float, np.ndarray]:
        """Mean cross-entropy at `(r + 1, K)` and its gradient, without the penalty."""
        weights = torch.from_numpy(point.astype(np.float32)).to(self.device)
        folded = self._fold(weights[:-1])
        total = torch.zeros((), dtype=torch.float64, device=self.device)
        gradient, intercept = torch.zeros_like(folded), torch.zeros_like(weights[-1])
        for rows, block in self._blocks():
            scores = torch.addmm(weights[-1], block, folded)
            log_p = torch.log_softmax(scores, dim=1)
            own = self.labels[rows, None]
            total -= log_p.gather(1, own).sum(dtype=torch.float64)
            error = log_p.exp_()
            error.scatter_add_(1, own, torch.full_like(own, -1, dtype=error.dtype))
            gradient.addmm_(block.T, error)
            intercept += error.sum(dim=0)
        whole = torch.cat([self._unfold(gradient), intercept[None]]).double().cpu().numpy() / self.samples
        return float(total) / self.samples, whole

    def _curvature(self, point: np.ndarray) -> np.ndarray:
        """An estimate of the Hessian's diagonal, `(r + 1, 1)`: variance of the direction times mean p (1 - p).

        The same for all classes: adding one vector to the weights of every class changes no probability, only the
        penalty. From a start without such a part a scaling that is equal over classes never brings one in.
        """
        weights = torch.from_numpy(point.astype(np.float32)).to(self.device)
        folded, spread = self._fold(weights[:-1]), 0.0
        for _, block in self._blocks() if point.any() else ():
            p = torch.softmax(torch.addmm(weights[-1], block, folded), dim=1)
            spread += float((p * (1 - p)).sum(dtype=torch.float64)) / (self.samples * self.classes)
        if not point.any():
            spread = (1 - 1 / self.classes) / self.classes
        return np.append(self.variances, 1.0)[:, None] * max(spread, 1e-6)

    def _solution(self, c: float, loss: float, iterations: int, converged: bool) -> Solution:
        weights = self.directions.double().cpu().numpy() @ self._point[:-1]
        coef = weights.T / self.scale
        intercept = self._point[-1] - coef @ self.mean
        return Solution(c, coef.astype(np.float32), intercept.astype(np.float32), loss, iterations, converged)


class _Table:
    """Rows of an array or memory map, in blocks of bounded size, as float32 tensors of their own."""

    def __init__(self, features: np.ndarray, rows: np.ndarray | None, device: torch.device) -> None:
        self.features, self.rows, self.device = features, rows, device
        self.step = max(1, BLOCK // (4 * features.shape[1]))

    def __len__(self) -> int:
        return len(self.features) if self.rows is None else len(self.rows)

    def blocks(self) -> Iterator[tuple[slice, Tensor]]:
        for start in range(0, len(self), self.step):
            rows = slice(start, min(len(self), start + self.step))
            taken = self.features[rows] if self.rows is None else self.features[self.rows[rows]]
            yield rows, torch.from_numpy(np.array(taken, dtype=np.float32)).to(self.device)

    def moments(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and deviation of each feature, float64."""
        total = sum(block.double().sum(dim=0) for _, block in self.blocks())
        mean = total / len(self)
        # A second pass: the difference of two sums would lose small deviations beside large means.
        square = sum(((block.double() - mean) ** 2).sum(dim=0) for _, block in self.blocks())
        return mean.cpu().numpy(), (square / len(self)).sqrt().cpu().numpy()
