"""From a trained encoder to a checkpoint folder and its model card; nothing is ever half-written."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from zoo.checkpoint.catalog import EMBEDDED, roots
from zoo.checkpoint.config import CheckpointConfig, check_name, read_config
from zoo.checkpoint.loading import load_source
from zoo.checkpoint.opening import check_mirror
from zoo.checkpoint.reference import FILE as REFERENCE
from zoo.checkpoint.reference import Reference, parse_reference
from zoo.checkpoint.results import Claim, Results, parse_results, read_results
from zoo.checkpoint.sources import FolderSource, open_folder
from zoo.checkpoint.writing import _measured_on, _write_folder
from zoo.errors import CheckpointError, ConfigError
from zoo.files import disk_errors, write_text


def publish(
    run_folder: str | Path,
    name: str,
    *,
    out: str | Path | None = None,
    results: Results | None = None,
    cards_dir: str | Path | None = None,
    mirrors: Sequence[str] | None = None,
    claims: Sequence[Claim] | None = None,
    overwrite: bool = False,
) -> Path:
    """Publish the encoder of a training run: checkpoint folder `out/NAME` and model card `NAME.md`.

    Args:
        run_folder: a run of `python -m training`, which holds `encoder/`; or a checkpoint folder itself.
        name: `method_architecture_dataset`, lower case.
        out: folder of checkpoints; None for the first one of `ZOO_CHECKPOINTS`, else `zoo/checkpoints` of a source
            checkout, else `checkpoints` in the working directory.
        results: measurements of these weights; None takes the `results.json` of the run, if there is one.
        cards_dir: folder of model cards; None for `model_cards/` if the checkpoint goes into a checkout, else beside
            the checkpoint.
        mirrors: addresses (`https://host/.../NAME`, `hf-hub:org/name@COMMIT`) that hold the same weights, tried
            in this order where the weights file is not in the folder; None keeps those of the run.
        claims: comparisons of the method that the card shows, besides those of the run's `results.json`, or else of a
            checkpoint that is replaced, if its method is the same. One of the same title, measure and setting replaces
            the older one; an empty sequence removes them all.
        overwrite: replace a published checkpoint of that name.

    Returns:
        The new checkpoint folder.

    Raises:
        CheckpointError: nothing to publish, weights that do not load, results of other weights, an
            existing checkpoint, a full disk.
        ConfigError: a malformed config, results file or name.
    """
    from zoo.publish.card import card_pictures, render_card

    try:
        check_name(name)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    out, cards = _destinations(out, cards_dir)
    for mirror in mirrors or ():
        check_mirror(mirror)
    source, target = _encoder_folder(Path(run_folder)), out / name
    if target.exists() and not overwrite:
        raise CheckpointError(f"{target} is published already; choose another name or pass overwrite=True")
    config = load_source(source).config
    assert config is not None
    # Editing the JSON as written keeps every other key, and with it the network digest, as it is.
    changes = {"name": name} if mirrors is None else {"name": name, "mirrors": list(mirrors)}
    renamed = json.dumps({**json.loads(source.config), **changes}, indent=1, ensure_ascii=False) + "\n"
    text = source.extra("results.json")
    stored = None if text is None else parse_results(text, f"{source.label}: results.json")
    results = _measured_on(results or stored, config)
    kept = _joined(stored.claims if stored else _claims_of(target, config), claims)
    if kept:
        measured = results or Results(weights_sha256=config.weights.sha256)
        results = measured.model_copy(update={"claims": kept})
    shown = config.model_copy(update={"name": name})
    card, pictures = render_card(shown, results), card_pictures(shown, results)
    content = source.weights(config.weights).read_bytes()
    reference = _kept_reference(source, config)
    _write_folder(target, renamed, config.weights.file, content, results, reference)
    for file, picture in pictures.items():
        _write_card(cards / file, picture)
    _write_card(cards / f"{name}.md", card)
    return target


def _encoder_folder(run: Path) -> FolderSource:
    for folder in (run / "encoder", run):
        if (folder / "config.json").is_file():
            return open_folder(folder)
    raise CheckpointError(f"{run} holds no encoder/config.json; is it the folder of a finished training run?")


def _claims_of(replaced: Path, config: CheckpointConfig) -> tuple[Claim, ...]:
    """Claims compare methods, not weights, so newer weights keep them. A damaged checkpoint has none to keep."""
    try:
        before, results = read_config(replaced), read_results(replaced / "results.json")
    except (ConfigError, CheckpointError):
        return ()
    return results.claims if before.method == config.method else ()


def _joined(before: Sequence[Claim], claims: Sequence[Claim] | None) -> tuple[Claim, ...]:
    if claims is None:
        return tuple(before)
    if not claims:
        return ()
    new = {(claim.title, claim.measure, claim.setting) for claim in claims}
    return (*(old for old in before if (old.title, old.measure, old.setting) not in new), *claims)


def _destinations(out: str | Path | None, cards_dir: str | Path | None) -> tuple[Path, Path]:
    checkout = EMBEDDED.parent.parent
    found = roots()[0] if out is None else Path(out)
    if out is None and found == EMBEDDED and not (checkout / "pyproject.toml").is_file():
        found = Path("checkpoints")  # an installed package is no place for anybody's work
    beside = checkout / "model_cards" if found == EMBEDDED else found
    return found, Path(cards_dir) if cards_dir is not None else beside


def _kept_reference(source: FolderSource, config: CheckpointConfig) -> Reference | None:
    """The outputs stored when these weights were first written: the older evidence is the better one."""
    text = source.extra(REFERENCE)
    found = parse_reference(text, source.label) if text is not None else None
    return found if found is not None and found.weights_sha256 == config.weights.sha256 else None


def _write_card(path: Path, text: str) -> None:
    with disk_errors(path, CheckpointError):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, text, CheckpointError)
