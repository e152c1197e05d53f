"""What every method has: the run that it knows of, and the hooks that the loop calls."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Context:
    """What a method may know about the run.

    `image_size`: side in pixels of a view (0 for skeletons). `global_batch`: samples per step over
    all ranks. `total_steps`: optimizer steps of the whole run. `samples`: size of the training set.
    `classes`: number of classes of labelled training data, which only methods that ask for labels may use.
    `seed`: of the run.
    """

    image_size: int
    global_batch: int
    total_steps: int
    samples: int
    classes: int | None = None
    seed: int = 0
