"""The errors that the zoo raises on purpose. Each message says what came, what was expected, the fix."""

from zoo.text import printable

#: Characters of a message; a longer one loses its middle.
LONGEST = 4000


def _shown(message: object) -> str:
    """A message may repeat what a file or a server said: written out, and no longer than a person reads."""
    text = str(message)
    if len(text) > LONGEST:
        text = f"{text[: LONGEST - 1000]} ... {text[-900:]}"
    # A list of many files that cannot be read stands in lines of its own, indented: no line looks like another message.
    return "\n  ".join(map(printable, text.split("\n  ")))


class ZooError(Exception):
    """Base of all errors the zoo raises on purpose. Its message has no control characters."""

    def __init__(self, message: object = "") -> None:
        super().__init__(_shown(message))


class TrainingError(ZooError, RuntimeError):
    """A run that cannot go on; the last good state is kept."""


class ConfigError(ZooError, ValueError):
    """A `config.json` or recipe that is missing, malformed, or of a newer format."""


class CheckpointError(ZooError, ValueError):
    """Weights that are missing, truncated, tampered with, or do not fit their config."""


class UnknownNameError(ZooError, LookupError):
    """A checkpoint, recipe, dataset or split that does not exist; the nearest names are listed."""


class HubError(ZooError, OSError):
    """A hub or mirror that cannot be reached or does not hold what was asked for."""


class InputError(ZooError, ValueError):
    """An input tensor or sample of the wrong rank, size, dtype or content."""


class DataError(ZooError, ValueError):
    """A dataset that is empty, corrupt, or too small for what was asked."""


class ChangedError(DataError):
    """Files that changed while they were read."""


class DataWarning(UserWarning):
    """What a person must know of a dataset that was opened: samples left out, copies across its splits."""

    def __init__(self, message: object = "") -> None:
        super().__init__(_shown(message))


def nearest(name: str, known: list[str]) -> str:
    """A 'did you mean' clause for an unknown name, or the list of what is known."""
    import difflib

    by_lower = {candidate.lower(): candidate for candidate in known}
    # The matcher takes quadratic time; no name is that long.
    matches = difflib.get_close_matches(name.lower()[:200], list(by_lower), n=3, cutoff=0.5)
    close = [by_lower[match] for match in matches]
    if close:
        return "did you mean " + " or ".join(repr(c) for c in close) + "?"
    shown = ", ".join(sorted(known)[:12])
    return f"known: {shown}" + (", ..." if len(known) > 12 else "") if known else "none is known"
