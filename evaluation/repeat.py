"""Measure a card's numbers again and compare."""

from __future__ import annotations

from dataclasses import replace

from evaluation.command import ProbeOptions, probe, read_command, splits
from evaluation.protocols import short_name
from zoo.checkpoint import catalog
from zoo.checkpoint.results import Result, variant_of
from zoo.checkpoint.verify import Check
from zoo.errors import ZooError

#: Another processor rounds differently; this much is allowed, as a fraction of 1.
TOLERANCE = 0.005


def repeat(
    name: str,
    data: str | None = None,
    *,
    device: str | None = None,
    batch_size: int = 256,
    workers: int | None = None,
    quiet: bool = True,
) -> list[Check]:
    """Run every stored command of a checkpoint again and compare each metric.

    Args:
        name: a published checkpoint.
        data: where its dataset lies on this machine; None for where each command says, and commands whose
            dataset is not there are left out with a line that says so.
        device, batch_size, workers: of the forward pass, see `zoo.extract`.
        quiet: show no progress.

    Raises:
        UnknownNameError, DataError: as the evaluation itself.
    """
    results = catalog.results(name)
    rows = () if results is None else results.rows
    checks: list[Check] = []
    for command in dict.fromkeys(row.command for row in rows):
        found = read_command(command)
        if found is None:
            checks.append(Check(False, f"cannot repeat {command!r}: it is no `zoo probe` command"))
            continue
        encoder, address, options = found
        options = replace(options, download=False, device=device, batch_size=batch_size, workers=workers)
        if options.suite or address is None:
            checks.append(Check(True, f"not repeated: `{command}` (a suite of many datasets; run it by hand)"))
            continue
        address = data or address
        if data is None and (missing := _not_at_hand(address, options)) is not None:
            checks.append(Check(True, f"not repeated: `{command}` ({missing})"))
            continue
        # Not those of the command: what "logreg" stands for may have become another version since.
        names = dict.fromkeys(short_name(row.protocol) for row in rows if row.command == command)
        stored = [row.spread for row in rows if row.command == command and row.subject == "untrained"]
        options = replace(
            options,
            protocol=",".join(name for name in names if name is not None),
            initialisations=max((len(v) for spread in stored for v in spread.values()), default=1),
        )
        measured = probe(encoder, address, options, command=command, quiet=quiet).rows if options.protocol else ()
        again = {_key(row): row for row in measured}
        checks += [_compare(row, again.get(_key(row))) for row in rows if row.command == command]
    return checks


def _not_at_hand(address: str, options: ProbeOptions) -> str | None:
    """Why the dataset of a command cannot be opened here, None if it can. Never downloads."""
    try:
        splits(address, options)
    except (ZooError, ImportError) as error:
        return str(error)
    return None


def _key(row: Result) -> tuple[str, ...]:
    """What tells the rows of one command apart: one protocol may give several, as of several amounts of labels."""
    return row.protocol, row.subject, variant_of(row)


def _compare(stored: Result, again: Result | None) -> Check:
    what = ", ".join(part for part in (stored.protocol, variant_of(stored), stored.subject) if part)
    if again is None:
        return Check(False, f"{what}: not measured again")
    for side in ("train", "test"):
        before, now = getattr(stored, side), getattr(again, side)
        if before.fingerprint != now.fingerprint:
            return Check(
                False,
                f"{what}: other data ({side} {now.fingerprint[:12]}..., the card's is {before.fingerprint[:12]}...)",
            )
    worst = max(abs(again.metrics[key].value - metric.value) for key, metric in stored.metrics.items())
    numbers = ", ".join(
        f"{key} {100 * again.metrics[key].value:.2f} (card {100 * metric.value:.2f})"
        for key, metric in stored.metrics.items()
    )
    return Check(worst <= TOLERANCE, f"{what}: {numbers}")
