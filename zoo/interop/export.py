"""Encoders out: `zoo export NAME --format onnx|torch-export|timm --out PATH`, each compared with the original."""

from __future__ import annotations

import json
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from zoo.architectures.image import ImageEncoder
from zoo.checkpoint.writing import check_replaceable
from zoo.encoder import Encoder
from zoo.errors import CheckpointError, ConfigError, UnknownNameError, ZooError, nearest
from zoo.files import disk_errors, replacing, replacing_folder

#: Largest difference of an exported feature, relative to the largest feature: float32 sums in another order.
TOLERANCE = 1e-4
SUFFIXES = {"onnx": ".onnx", "torch-export": ".pt2"}


def export(encoder: Encoder, out: str | Path, format: str) -> float:
    """Write `encoder` for another runtime and compare what that runtime gives.

    Args:
        encoder: a loaded image encoder.
        out: a `.onnx` or `.pt2` file, or for `timm` a folder; one that exists is replaced.
        format: `"onnx"`, `"torch-export"` or `"timm"`. The first two take float32 `(N, 3, H, W)` as
            `encoder.transform()` gives and return `(N, num_features)`; N is free.

    Returns:
        The largest difference between the original's and the export's features, relative to the largest feature.

    Raises:
        UnknownNameError: no such format.
        ConfigError: an encoder that the format cannot hold.
        CheckpointError: the export gives other features, or cannot be written; `out` is untouched then.
        ImportError: onnx or onnxruntime is missing.
    """
    if format not in FORMATS:
        raise UnknownNameError(f"unknown export format {format!r}; {nearest(format, list(FORMATS))}")
    if encoder.modality != "image" or encoder.config is None:
        raise ConfigError(f"{encoder.name}: only published image encoders can be exported, not {encoder.modality}s")
    out = Path(out)
    if format == "timm":
        check_replaceable(out)
    elif out.is_dir():
        raise ConfigError(f"{out} is a folder; give a file, such as {out / encoder.name}{SUFFIXES[format]}")
    write, run = FORMATS[format]
    encoder = encoder.cpu().eval()
    example = torch.rand(3, 3, *encoder.input.size, generator=torch.Generator().manual_seed(0))
    if format == "timm":
        with replacing_folder(out) as fresh, _said(encoder, format):
            write(encoder, fresh, example[:2])
            return _difference(encoder, run(fresh), example)
    with disk_errors(out, CheckpointError):
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as scratch:
            made = Path(scratch) / f"made{SUFFIXES[format]}"  # torch.export insists on the name's ending
            with _said(encoder, format):
                write(encoder, made, example[:2])
                worst = _difference(encoder, run(made), example)
            with replacing(out, CheckpointError) as temporary:
                made.replace(temporary)
            return worst


@contextmanager
def _said(encoder: Encoder, format: str) -> Iterator[None]:
    """What torch, ONNX or timm raise as one line: older ones cannot write or read back every network."""
    try:
        yield
    except (ZooError, ImportError, OSError):
        raise
    except Exception as error:
        import timm

        text = str(error).strip()
        why = f"{type(error).__name__}: {text.splitlines()[0][:200] if text else 'no reason given'}"
        versions = f"torch {torch.__version__} and timm {timm.__version__}"
        raise CheckpointError(f"{encoder.name}: {versions} cannot do {format} ({why}); newer ones may") from error


class _Features(nn.Module):
    """The encoder without its checks of the input, which no exported graph can hold."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, x: Tensor) -> Tensor:
        return self.encoder.pool(self.encoder._features(x, None), None).float()


def _difference(encoder: Encoder, run: Callable[[Tensor], Tensor], x: Tensor) -> float:
    with torch.inference_mode():
        ours, theirs = encoder(x), run(x)
    worst = float((ours - theirs).abs().max() / ours.abs().max()) if ours.shape == theirs.shape else float("inf")
    if not worst <= TOLERANCE:
        raise CheckpointError(f"{encoder.name}: the export gives other features (off by {worst:.1e} of the largest)")
    return worst


def facts(encoder: Encoder) -> dict[str, str]:
    """What a reader of an exported file must know: name, hash, licence, preprocessing; all as text."""
    config = encoder.config
    assert config is not None
    return {
        "name": config.name,
        "weights_sha256": config.weights.sha256,
        "licence": config.licence,
        "training_data": f"{config.training.dataset.name} ({config.training.dataset.licence})",
        "preprocessing": json.dumps(config.input.model_dump(mode="json")),
        "num_features": str(encoder.num_features),
    }


def _write_onnx(encoder: Encoder, path: Path, example: Tensor) -> None:
    _need("onnx", "onnxscript", "onnxruntime")
    import onnx

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's exporter warns of its own deprecations
        program = torch.onnx.export(
            _Features(encoder), (example,), input_names=["images"], output_names=["features"],
            dynamic_shapes={"x": {0: torch.export.Dim("N")}}, dynamo=True, verbose=False,
        )  # fmt: skip
    model = program.model_proto
    onnx.helper.set_model_props(model, facts(encoder))
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())


def _run_onnx(path: Path) -> Callable[[Tensor], Tensor]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])
    return lambda x: torch.from_numpy(session.run(["features"], {"images": x.numpy()})[0])


def _write_exported(encoder: Encoder, path: Path, example: Tensor) -> None:
    with torch.no_grad():
        program = torch.export.export(_Features(encoder), (example,), dynamic_shapes={"x": {0: torch.export.Dim("N")}})
    torch.export.save(program, path, extra_files={"encoder_zoo.json": json.dumps(facts(encoder))})


def _run_exported(path: Path) -> Callable[[Tensor], Tensor]:
    module = torch.export.load(path).module()
    return lambda x: module(x)


def _write_timm(encoder: Encoder, folder: Path, example: Tensor) -> None:
    from safetensors.torch import save_file

    if not isinstance(encoder, ImageEncoder):
        raise ConfigError(f"{encoder.name}: timm has no such network as {encoder.config.architecture.family!r}")
    arguments = encoder.config.architecture.arguments
    if arguments.get("stem") == "cifar":
        raise ConfigError(
            f"{encoder.name} has the 3x3 stem for small images, which no timm model has; export it to onnx"
        )
    state = {key: tensor.contiguous() for key, tensor in encoder.backbone.state_dict().items()}
    save_file(state, folder / "model.safetensors", metadata={"format": "pt", **facts(encoder)})
    (folder / "config.json").write_text(json.dumps(_timm_config(encoder), indent=1) + "\n", encoding="utf-8")


def _timm_config(encoder: Encoder) -> dict[str, Any]:
    """timm's own config.json (see `timm.models.load_model_config_from_hf`)."""
    config = encoder.config
    arguments, input = config.architecture.arguments, config.input
    return {
        "architecture": arguments["model"],
        "num_classes": 0,
        "num_features": encoder.num_features,
        "model_args": arguments.get("model_args", {}),
        "pretrained_cfg": {
            "tag": config.name,
            "input_size": [3, *input.size],
            "fixed_input_size": (arguments.get("timm_defaults") or {}).get("fixed_input_size", False),
            "interpolation": input.interpolation,
            "crop_pct": input.crop_fraction,
            "crop_mode": input.crop_mode or "center",
            "mean": list(input.mean),
            "std": list(input.std),
            "num_classes": 0,
            "license": config.licence,
        },
    }


def _run_timm(folder: Path) -> Callable[[Tensor], Tensor]:
    import timm

    model = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    return lambda x: model.forward_head(model.forward_features(x), pre_logits=True)


def _need(*packages: str) -> None:
    from importlib.util import find_spec

    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        raise ImportError(f"ONNX export needs {', '.join(missing)}; pip install 'encoder-zoo[onnx]'")


#: format -> (write a file or folder, make a function of a batch from it)
FORMATS: dict[str, tuple[Callable[..., None], Callable[[Path], Callable[[Tensor], Tensor]]]] = {
    "onnx": (_write_onnx, _run_onnx),
    "torch-export": (_write_exported, _run_exported),
    "timm": (_write_timm, _run_timm),
}
