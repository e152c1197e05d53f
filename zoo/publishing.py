"""From a trained encoder to a checkpoint folder and its model card; nothing is ever half-written."""

from __future__ import annotations

import ctypes
import errno
import hashlib
import json
import os
import re
import shutil
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import torch
from pydantic import ValidationError
from torch import Tensor

from zoo.catalog import EMBEDDED
from zoo.claims import Claim
from zoo.config import Architecture, CheckpointConfig, Method, Training, Weights, check_name, first_problem
from zoo.encoder import Encoder
from zoo.errors import CheckpointError, ConfigError
from zoo.loading import FolderFiles, load_checked, locate
from zoo.reference import FILE as REFERENCE
from zoo.reference import Reference, check_reference, make_reference, parse_reference
from zoo.results import Results, read_results
from zoo.weights import NETWORK_KEY, network_digest

#: What a checkpoint folder holds; anything else in one was put there by a person.
_OWN = re.compile(r"config\.json|results\.json|reference\.json|README\.md|[\w.-]+\.safetensors|\.eval_results")
_FLOATS = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}


def write_checkpoint(
    encoder: Encoder,
    folder: str | Path,
    *,
    name: str,
    architecture: Architecture,
    method: Method,
    training: Training,
    dtype: str = "float16",
    licence: str = "MIT",
    results: Results | None = None,
) -> CheckpointConfig:
    """Write `encoder` as a checkpoint folder: config.json, weights, reference outputs, and results.json if given.

    The folder appears whole or not at all: it is written under a temporary name, loaded back as a
    user would, and only then exchanged with an older one.

    Args:
        encoder: the trained encoder; its `input` and `num_features` go into config.json.
        folder: where; an existing checkpoint there is replaced.
        architecture: what `zoo.architectures.build` makes the same network from.
        dtype: `"float16"`, `"bfloat16"` or `"float32"` on disk. Integer buffers stay as they are. Values
            beyond the range of float16 make it float32, with a warning.
        results: measurements of these very weights.

    Returns:
        The config that was written.

    Raises:
        CheckpointError: NaN or infinite weights, weights that do not fit `architecture`, results of
            other weights, or a disk that is full.
        ConfigError: a name or dtype that cannot be.
    """
    folder = Path(folder)
    state, dtype = _stored_state(encoder, dtype)
    shared = {
        "architecture": architecture.model_dump(mode="json"),
        "input": encoder.input.model_dump(mode="json"),
        "num_features": encoder.num_features,
    }
    content = _serialise(state, {"format": "pt", NETWORK_KEY: network_digest(shared)})
    try:
        config = CheckpointConfig(
            name=name,
            architecture=architecture,
            input=encoder.input,
            num_features=encoder.num_features,
            method=method,
            weights=Weights(
                sha256=hashlib.sha256(content).hexdigest(),
                bytes=len(content),
                dtype=dtype,
                parameters=sum(parameter.numel() for parameter in encoder.parameters()),
            ),
            training=training,
            licence=licence,
        )
    except ValidationError as error:
        raise ConfigError(f"checkpoint {name!r}: {first_problem(error)}") from None
    _write_folder(
        folder, config.to_json(), config.weights.file, content, _measured_on(results, config, allow_unset=True)
    )
    return config


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
        out: folder of checkpoints; None for `zoo/checkpoints` of a source checkout.
        results: measurements of these weights; None takes the `results.json` of the run, if there is one.
        cards_dir: folder of model cards; None for `model_cards/` of a checkout, else `out`.
        mirrors: addresses (`https://host/.../NAME`, `hf-hub:org/name@COMMIT`) that hold the same weights, tried
            in this order where the weights file is not in the folder; None keeps those of the run.
        claims: comparisons of the method that the card shows; None keeps those of the run's `results.json`.
        overwrite: replace a published checkpoint of that name.

    Returns:
        The new checkpoint folder.

    Raises:
        CheckpointError: nothing to publish, weights that do not load, results of other weights, an
            existing checkpoint, a full disk.
        ConfigError: a malformed config, results file or name.
    """
    from zoo.cards import card_pictures, render_card

    try:
        check_name(name)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    out, cards = _destinations(out, cards_dir)
    source, target = _encoder_folder(Path(run_folder)), out / name
    if target.exists() and not overwrite:
        raise CheckpointError(f"{target} is published already; choose another name or pass overwrite=True")
    for mirror in mirrors or ():
        if isinstance(locate(mirror), FolderFiles):
            raise ConfigError(f"mirror {mirror!r} is on this machine only; give hf-hub:org/name@COMMIT or https://...")
    files = FolderFiles(source)
    text = files.config()
    config = load_checked(files, text).config
    assert config is not None
    # Editing the JSON as written keeps every other key, and with it the network digest, as it is.
    changes = {"name": name} if mirrors is None else {"name": name, "mirrors": list(mirrors)}
    renamed = json.dumps({**json.loads(text), **changes}, indent=1, ensure_ascii=False) + "\n"
    stored = read_results(source / "results.json") if (source / "results.json").exists() else None
    results = _measured_on(results or stored, config)
    kept = tuple(claims) if claims is not None else stored.claims if stored else ()
    if kept:
        measured = results or Results(weights_sha256=config.weights.sha256)
        results = measured.model_copy(update={"claims": kept})
    shown = config.model_copy(update={"name": name})
    card, pictures = render_card(shown, results), card_pictures(shown)
    content = files.weights(config.weights.file).read_bytes()
    reference = _kept_reference(files, config)
    _write_folder(target, renamed, config.weights.file, content, results, reference)
    for file, picture in pictures.items():
        _write_card(cards / file, picture)
    _write_card(cards / f"{name}.md", card)
    return target


def _stored_state(encoder: Encoder, dtype: str) -> tuple[dict[str, Tensor], str]:
    if dtype not in _FLOATS:
        raise ConfigError(f"weights can be stored as {', '.join(_FLOATS)}, not {dtype!r}")
    state = {key: tensor.detach().cpu() for key, tensor in encoder.state_dict().items()}
    for key, tensor in state.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise CheckpointError(f"tensor {key!r} holds NaN or infinite values; publish an earlier state of the run")
    if not _fits(state, dtype):
        warnings.warn(f"weights exceed the range of {dtype}; they are stored as float32", stacklevel=3)
        dtype = "float32"
    target = _FLOATS[dtype]
    # A copy of each: tied tensors share memory, which the format cannot express.
    return {
        key: tensor.to(target if tensor.is_floating_point() else tensor.dtype, copy=True).contiguous()
        for key, tensor in state.items()
    }, dtype


def _fits(state: dict[str, Tensor], dtype: str) -> bool:
    return all(bool(t.to(_FLOATS[dtype]).isfinite().all()) for t in state.values() if t.is_floating_point())


def _serialise(state: dict[str, Tensor], metadata: dict[str, str]) -> bytes:
    """A safetensors file. The library writes metadata in a random order; ours makes equal weights equal bytes."""
    import safetensors.torch

    content = safetensors.torch.save(state)
    start = 8 + int.from_bytes(content[:8], "little")
    header = {"__metadata__": metadata, **json.loads(content[8:start])}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + content[start:]


def _measured_on(results: Results | None, config: CheckpointConfig, allow_unset: bool = False) -> Results | None:
    if results is None or results.weights_sha256 == config.weights.sha256:
        return results
    if allow_unset and results.weights_sha256 is None:
        return results.model_copy(update={"weights_sha256": config.weights.sha256})
    raise CheckpointError(
        f"the results were measured on weights {str(results.weights_sha256)[:12]}..., the checkpoint holds "
        f"{config.weights.sha256[:12]}...; evaluate this checkpoint and publish again"
    )


def _encoder_folder(run: Path) -> Path:
    for folder in (run / "encoder", run):
        if (folder / "config.json").is_file():
            return folder
    raise CheckpointError(f"{run} holds no encoder/config.json; is it the folder of a finished training run?")


def _destinations(out: str | Path | None, cards_dir: str | Path | None) -> tuple[Path, Path]:
    checkout = EMBEDDED.parent.parent
    if out is None and not (checkout / "pyproject.toml").is_file():
        raise CheckpointError("this zoo is installed, not a checkout; say where to publish with out=FOLDER")
    cards = Path(cards_dir) if cards_dir is not None else Path(out) if out is not None else checkout / "model_cards"
    return (Path(out) if out is not None else EMBEDDED), cards


def _kept_reference(files: FolderFiles, config: CheckpointConfig) -> Reference | None:
    """The outputs stored when these weights were first written: the older evidence is the better one."""
    text = files.extra(REFERENCE)
    found = parse_reference(text, files.label) if text is not None else None
    return found if found is not None and found.weights_sha256 == config.weights.sha256 else None


def _write_folder(
    folder: Path, config: str, file: str, content: bytes, results: Results | None, reference: Reference | None = None
) -> None:
    with disk_errors(folder):
        check_replaceable(folder)
        folder.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(folder)
        fresh = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        with disk_errors(folder):
            fresh.chmod(0o755)
            write_synced(fresh / file, content)
            if results is not None:
                write_synced(fresh / "results.json", results.to_json().encode())
            write_synced(fresh / "config.json", config.encode())
        made = _check_loads(fresh, folder, config, reference)
        with disk_errors(folder):
            write_synced(fresh / REFERENCE, made.to_json().encode())
            replace_folder(fresh, folder)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _check_loads(fresh: Path, folder: Path, config: str, reference: Reference | None) -> Reference:
    """Load the new folder as a user would and run it; returns its outputs on the reference inputs."""
    try:
        encoder = load_checked(FolderFiles(fresh), config.encode()).eval()
        assert encoder.config is not None
        if reference is None:
            return make_reference(encoder, encoder.config.weights.sha256)
        check_reference(reference, encoder)
        return reference
    except (CheckpointError, ConfigError) as error:
        message = str(error).replace(str(fresh), str(folder))
        raise type(error)(f"not written, because it would not load: {message}") from None


def check_replaceable(folder: Path) -> None:
    """Refuse to replace a folder that holds anything but a checkpoint: someone may have given the wrong path.

    Raises:
        CheckpointError: names what is in the way.
    """
    if not folder.exists():
        return
    if not folder.is_dir():
        raise CheckpointError(f"{folder} is a file; give the path of a folder")
    foreign = sorted(entry.name for entry in folder.iterdir() if not _OWN.fullmatch(entry.name))
    if foreign:
        more = " and more" if len(foreign) > 1 else ""
        raise CheckpointError(
            f"{folder} holds {foreign[0]!r}{more}, which is no part of a checkpoint; it is not replaced: "
            "move that away, or choose another folder"
        )


def _remove_leftovers(path: Path) -> None:
    """Remove what killed writers of `path` left; recent ones may belong to a writer that is still at work."""
    if not path.exists():
        return
    for leftover in path.parent.glob(f".{path.name}[-.]*"):
        with suppress(FileNotFoundError):
            if time.time() - leftover.stat().st_mtime > 3600:
                shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()


@contextmanager
def disk_errors(target: Path) -> Iterator[None]:
    """Turn an OSError of writing `target` into a CheckpointError with its fix."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        fix = "free some space and write it again" if full else "check the path and its permissions"
        raise CheckpointError(
            f"{target} could not be written ({error.strerror or error}); what was there is untouched; {fix}"
        ) from error


def write_synced(path: Path, content: bytes) -> None:
    """Write a file and wait until the disk has it. Raises OSError."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace_folder(fresh: Path, folder: Path) -> None:
    """Put `fresh` at `folder`; an older folder ends up under the name of `fresh`, for the caller to remove."""
    _sync_folder(fresh)
    if not folder.exists():
        fresh.rename(folder)
    elif not _exchange(fresh, folder):
        aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}-old-", dir=folder.parent))
        folder.rename(aside)
        try:
            fresh.rename(folder)
        except OSError:
            aside.rename(folder)
            raise
        shutil.rmtree(aside, ignore_errors=True)
    _sync_folder(folder.parent)


def _exchange(a: Path, b: Path) -> bool:
    """Swap two paths in one step (Linux renameat2 with RENAME_EXCHANGE); False where that does not exist."""
    with suppress(AttributeError, OSError):
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
        here, exchange = -100, 2
        return renameat2(here, os.fsencode(a), here, os.fsencode(b), exchange) == 0
    return False


def _write_card(path: Path, text: str) -> None:
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(path)
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            write_synced(temporary, text.encode())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
