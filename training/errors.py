"""Errors that end a training run on purpose."""

from zoo.errors import ZooError


class TrainingError(ZooError, RuntimeError):
    """A run that cannot go on; the last good state is kept."""
