"""What wraps a network when it is saved: prefixes that say nothing about it come off before any layout is asked.

`module.` comes from `DataParallel` and `DistributedDataParallel`, `_orig_mod.` from `torch.compile`.
"""

from __future__ import annotations

from zoo.errors import CheckpointError
from zoo.text import quoted

#: Parts of a name that only say that something was wrapped.
WRAPPERS = ("module", "_orig_mod")
#: Attributes under which a training class holds its network; a wrapper may lie below them as well.
HOLDERS = ("model", "backbone", "encoder", "net", "network")


def unwrapped(keys: list[str]) -> dict[str, str]:
    """Key in the file -> the same key without wrappers, in whatever order they were put on.

    Raises:
        CheckpointError: two keys become the same.
    """
    plain = {key: _without(key) for key in keys}
    first: dict[str, str] = {}
    for key, name in plain.items():
        if first.setdefault(name, key) != key:
            raise CheckpointError(
                f"{quoted(first[name])} and {quoted(key)} are the same key apart from {' and '.join(WRAPPERS)}; save "
                "the state dict of one of them"
            )
    return plain


def _without(key: str) -> str:
    parts = [part for part in key.split(".") if part != "_orig_mod"]
    kept: list[str] = []
    for at, part in enumerate(parts):
        if part not in (*WRAPPERS, *HOLDERS):
            return ".".join((*kept, *parts[at:]))
        if part not in WRAPPERS:
            kept.append(part)
    return key  # nothing but wrappers and holders: the name of a tensor of its own
