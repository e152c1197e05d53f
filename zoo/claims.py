"""A claim between methods: arms that differ in one thing, over seeds, with paired differences."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path

from pydantic import Field, ValidationError

from zoo.config import Strict, first_problem
from zoo.errors import ConfigError


class Difference(Strict):
    """`arm` minus `other`, mean over seeds, with its 95 % interval; fractions of 1, interval None for one seed."""

    arm: str
    other: str
    mean: float
    low: float | None = None
    high: float | None = None


class Claim(Strict):
    """What was compared and what it gave.

    Attributes:
        title: in one sentence. measure: what the numbers are. setting: network, length, hardware.
        arms: name -> one value per seed, fractions of 1.
        differences: of all pairs of arms.
        command, code_commit: what repeats it.
    """

    title: str
    measure: str
    setting: str
    seeds: tuple[int, ...] = Field(min_length=1)
    arms: dict[str, tuple[float, ...]]
    differences: tuple[Difference, ...]
    command: str
    code_commit: str

    def to_json(self) -> str:
        """Text of a `claim.json`."""
        return json.dumps(self.model_dump(mode="json"), indent=1, ensure_ascii=False) + "\n"

    def table(self) -> str:
        """Markdown: each arm by seed, then the differences, in per cent."""
        lines = [
            "| arm | " + " | ".join(f"seed {seed}" for seed in self.seeds) + " | mean |",
            "|---|" + "---:|" * (len(self.seeds) + 1),
        ]
        for name, values in self.arms.items():
            cells = [*values, sum(values) / len(values)]
            lines.append(f"| {name} | " + " | ".join(f"{100 * v:.2f}" for v in cells) + " |")
        lines += ["", "| difference | points | 95 % interval |", "|---|---:|---:|"]
        for d in self.differences:
            interval = "one seed" if d.low is None else f"[{100 * d.low:+.2f}, {100 * d.high:+.2f}]"
            lines.append(f"| {d.arm} − {d.other} | {100 * d.mean:+.2f} | {interval} |")
        return "\n".join(lines)


class Interval(Strict):
    """A mean of `n` values with its 95 % interval, None for one value."""

    n: int
    mean: float
    low: float | None = None
    high: float | None = None

    def text(self, digits: int = 2) -> str:
        """`"93.10 [92.40, 93.80]"`, in the unit of the values."""
        if self.low is None or self.high is None:
            return f"{self.mean:.{digits}f}"
        return f"{self.mean:.{digits}f} [{self.low:.{digits}f}, {self.high:.{digits}f}]"


def interval(values: Sequence[float]) -> Interval:
    """Mean of independent values and Student's t interval."""
    import numpy as np
    from scipy import stats

    x = np.asarray(values, float)
    if len(x) < 2:
        return Interval(n=len(x), mean=float(x.mean()))
    half = float(stats.t.ppf(0.975, len(x) - 1) * x.std(ddof=1) / np.sqrt(len(x)))
    return Interval(n=len(x), mean=float(x.mean()), low=float(x.mean()) - half, high=float(x.mean()) + half)


def unpaired(values: Sequence[float], others: Sequence[float]) -> Interval:
    """Difference of the means of two independent groups, with Welch's t interval; `n` of the smaller group."""
    import numpy as np
    from scipy import stats

    n, mean = min(len(values), len(others)), float(np.mean(values) - np.mean(others))
    if n < 2 or np.ptp(values) + np.ptp(others) == 0:
        return Interval(n=n, mean=mean)
    low, high = stats.ttest_ind(values, others, equal_var=False).confidence_interval(0.95)
    return Interval(n=n, mean=mean, low=float(low), high=float(high))


def compare(arms: Mapping[str, Sequence[float]]) -> tuple[Difference, ...]:
    """Paired differences of all pairs, the later arm minus the earlier; intervals of Student's t over seeds."""
    import numpy as np

    found = []
    for (other, before), (arm, after) in combinations(arms.items(), 2):
        d = interval(np.subtract(after, before))
        found.append(Difference(arm=arm, other=other, mean=d.mean, low=d.low, high=d.high))
    return tuple(found)


def read_claim(path: str | Path) -> Claim:
    """Read a `claim.json`. Raises ConfigError: missing or not valid."""
    try:
        return Claim.model_validate(json.loads(Path(path).read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise ConfigError(f"{path} does not exist; a claim's benchmark writes one") from None
    except ValidationError as error:
        raise ConfigError(f"{path} is not a valid claim: {first_problem(error)}") from None
    except ValueError as error:
        raise ConfigError(f"{path} is not valid JSON ({error})") from None
