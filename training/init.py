"""`encoder.init=ADDRESS`: a training that starts from an encoder of the zoo instead of random weights.

The address is opened once, before anything is written (`resolve_init`); the run folder's recipe then holds the
architecture, the preprocessing and the sha256 of the weights. A resumed run takes its own state and opens no address.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

import zoo
from training import distributed
from training.recipe import Recipe, Start, parse_recipe
from training.run_folder import RunFolder, is_training
from zoo.architectures import build, family_class
from zoo.checkpoint.config import LICENCE, CheckpointConfig, Input, StartedFrom
from zoo.encoder import Encoder
from zoo.errors import ConfigError, ZooError
from zoo.strict import Architecture

#: What a recipe may say of its input although the encoder was trained otherwise; all else belongs to the weights.
FREE_INPUT = ("size", "crop_fraction", "interpolation", "frames")


def resolve_init(recipe: Recipe, folder: RunFolder | None = None, fresh: bool = False) -> Recipe:
    """`recipe` with the architecture, input and sha256 of the encoder that it starts from; equal on every rank.

    Nothing is written. A run in `folder` that has a state and started from the same address keeps what it recorded,
    whatever has become of the source; `fresh` says that this state is about to be deleted.

    Raises:
        UnknownNameError, ConfigError, CheckpointError, HubError: as `zoo.load`; an encoder of another architecture,
            modality or normalisation than the recipe names; one that is being trained at this moment; one that lies in
            the run's own folder; weights that are not those of `encoder.init_sha256`.
    """
    if recipe.init is None:
        return recipe
    made = _resolve(recipe, folder, fresh).dump() if distributed.is_main() else None
    return parse_recipe(distributed.broadcast_object(made), recipe.name)


def resolve_method(recipe: Recipe) -> Recipe:
    """`recipe` with what its method names pinned (`Method.Config.resolved`); equal on every rank. Raises as that."""
    made = None
    if distributed.is_main():
        raw = recipe.dump()
        raw["method"] |= recipe.method_config().resolved().model_dump(mode="json")
        made = raw
    return parse_recipe(distributed.broadcast_object(made), recipe.name)


def initial_weights(recipe: Recipe, folder: RunFolder) -> tuple[dict[str, Tensor] | None, StartedFrom | None]:
    """The weights that a resolved recipe starts from, and their record; Nones without `init`, or if a state follows.

    Raises:
        ConfigError: the address now holds other weights than were resolved. Else as `zoo.load`.
    """
    if recipe.init is None or distributed.broadcast_object(folder.has_state()):
        return None, None
    if recipe.encoder.get("init_sha256") is None:
        raise ConfigError(f"recipe {recipe.name}: call training.init.resolve_init(recipe) before training starts")
    with distributed.main_first():  # the main process downloads, the others find the cache
        encoder = _load(recipe, folder)
    return encoder.state_dict(), started_from(recipe.init, encoder.config)


def started_from(address: str, config: CheckpointConfig) -> StartedFrom:
    """The record of a training that starts from the checkpoint of `config`."""
    training = config.training
    return StartedFrom(
        name=config.name,
        address=address,
        sha256=config.weights.sha256,
        method=config.method.title,
        dataset=training.dataset,
        epochs=training.epochs,
        samples_seen=training.samples_seen,
        started_from=training.started_from,
        licence=None if config.licence == LICENCE else config.licence,
    )


def _resolve(recipe: Recipe, folder: RunFolder | None, fresh: bool) -> Recipe:
    kept = None if folder is None or fresh else _kept(recipe, folder)
    if kept is not None:
        sha256 = recipe.encoder.get("init_sha256") or kept.encoder["init_sha256"]
        return _fitted(recipe, kept.architecture(), kept.input, sha256, "the encoder it started from")
    encoder = _load(recipe, folder)
    config = encoder.config
    fitted = _fitted(recipe, config.architecture, config.input, config.weights.sha256, config.name)
    _check_size(fitted, encoder)
    return fitted


def _kept(recipe: Recipe, folder: RunFolder) -> Recipe | None:
    """The recipe in a run folder whose state goes on from the same address."""
    written = folder.path / "recipe.yaml"
    if not folder.has_state() or not written.exists():
        return None
    kept = parse_recipe(yaml.safe_load(written.read_text(encoding="utf-8")), str(written))
    return kept if kept.init == recipe.init and kept.encoder.get("init_sha256") else None


def _load(recipe: Recipe, folder: RunFolder | None) -> Encoder:
    address = recipe.init
    if address.startswith("local-dir:"):
        address = f"local-dir:{_checkpoint_folder(address, folder)}"
    try:
        encoder = zoo.load(address)
    except ZooError as error:
        raise type(error)(f"encoder.init: {error}") from None
    wanted, found = recipe.encoder.get("init_sha256"), encoder.config.weights.sha256
    if wanted not in (None, found):
        raise ConfigError(
            f"encoder.init={recipe.init} holds weights with sha256 {found[:12]}..., the recipe wants {wanted[:12]}...; "
            "give the address of those, or leave init_sha256 out to take what is there"
        )
    return encoder


def _checkpoint_folder(address: str, folder: RunFolder | None) -> Path:
    """The folder behind `local-dir:...`: a checkpoint, or the `encoder/` of a run that is not going on. Raises
    ConfigError."""
    path = Path(address.removeprefix("local-dir:")).expanduser()
    if not (path / "config.json").exists() and (path / "recipe.yaml").exists():
        path = path / "encoder"
        if not path.exists() and not is_training(path.parent):
            raise ConfigError(
                f"encoder.init: the run {path.parent} has no encoder yet; train it to its end, or write the encoder of "
                f"its last state with `python -m training {path.parent}/recipe.yaml --out {path.parent} --export`"
            )
    own = None if folder is None else folder.path.resolve()
    if own is not None and own in (path.resolve(), *path.resolve().parents):
        raise ConfigError(
            f"encoder.init={address} lies in {folder.path}, the run's own folder; give --out another folder "
            "(to continue a stopped run, give its first command again)"
        )
    for run in (path, path.parent):
        if is_training(run):
            raise ConfigError(
                f"encoder.init={address}: the run in {run} is being trained at this moment; wait until it ends, or "
                "start from a copy of its encoder folder"
            )
    return path


def _fitted(recipe: Recipe, architecture: Architecture, given: Input, sha256: str, name: str) -> Recipe:
    """`recipe` with what it leaves to the encoder filled in. Raises ConfigError where the two differ."""
    theirs = _flat(architecture)
    if any(key not in Start.model_fields for key in recipe.encoder):
        ours = _flat(recipe.architecture())
        keys = [key for key in {**ours, **theirs} if ours.get(key) != theirs.get(key)]
        if keys:
            raise ConfigError(
                f"encoder.init={recipe.init}: {name} has another architecture than the recipe: "
                f"{_both('encoder', keys, theirs, ours)}; to take the architecture of {name}, give "
                f"'encoder={{init: \"{recipe.init}\"}}' alone"
            )
    raw = recipe.dump()
    raw["encoder"] = {**theirs, "init": recipe.init, "init_sha256": sha256}
    raw["input"] = _input(recipe, given, name)
    return parse_recipe(raw, recipe.name)


def _input(recipe: Recipe, given: Input, name: str) -> dict[str, Any]:
    theirs, ours = given.model_dump(mode="json"), recipe.input.model_dump(mode="json")
    said = recipe.input.model_fields_set if "input" in recipe.model_fields_set else set()
    if "modality" in said and ours["modality"] != theirs["modality"]:
        raise ConfigError(
            f"encoder.init={recipe.init}: {name} takes {theirs['modality']}s, the recipe trains on "
            f"{ours['modality']}s; choose an encoder of {ours['modality']}s"
        )
    keys = [key for key in theirs if key in said and key not in FREE_INPUT and ours[key] != theirs[key]]
    if keys:
        raise ConfigError(
            f"encoder.init={recipe.init}: {name} has other preprocessing than the recipe: "
            f"{_both('input', keys, theirs, ours)}; give {' '.join(f'input.{k}={theirs[k]}' for k in keys)}"
        )
    return {**theirs, **{key: ours[key] for key in said if key in ours}}


def _both(group: str, keys: list[str], theirs: dict[str, Any], ours: dict[str, Any]) -> str:
    return ", ".join(f"{group}.{k} is {theirs.get(k)!r} there, {ours.get(k)!r} in the recipe" for k in keys[:3])


def _flat(architecture: Architecture) -> dict[str, Any]:
    """Family and arguments with all defaults, so that equal networks compare equal."""
    arguments = family_class(architecture.family).Arguments.model_validate(architecture.arguments)
    return {"family": architecture.family, **arguments.model_dump(mode="json")}


def _check_size(recipe: Recipe, encoder: Encoder) -> None:
    """Refuse a view size at which the network cannot take the weights, or cannot run. Raises ConfigError."""
    if recipe.input == encoder.input:
        return
    network = build(recipe.architecture(), recipe.input).eval()
    try:
        network.load_state_dict(encoder.state_dict(), strict=True)
        if recipe.input.modality == "image":
            network(torch.zeros(1, 3, *recipe.input.size))
    except (RuntimeError, AssertionError, ZooError) as error:
        raise ConfigError(
            f"encoder.init={recipe.init}: {encoder.name} was trained on {_size(encoder.input)} and its network does "
            f"not take {_size(recipe.input)} ({str(error).splitlines()[-1].strip()}); use the size it was trained on"
        ) from None


def _size(value: Input) -> str:
    return f"{value.size[0]}x{value.size[1]} px" if value.modality == "image" else f"{value.frames} frames"
