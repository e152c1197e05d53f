"""Checkpoints in timm's own layout, with random weights: small networks of the families that people load."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors.torch import save_file
from torch import nn

#: family -> timm's name, the arguments that make it small, and what its pretrained_cfg says.
SMALL: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "resnet": ("test_resnet", {}, {"input_size": [3, 40, 40], "crop_pct": 0.95}),
    "convnext": ("test_convnext", {}, {"input_size": [3, 64, 64], "crop_pct": 0.875, "interpolation": "bilinear"}),
    "vit_registers": (
        "vit_tiny_patch16_224",
        {"embed_dim": 24, "depth": 3, "num_heads": 2, "reg_tokens": 4, "patch_size": 8, "class_token": True},
        {"input_size": [3, 48, 48], "fixed_input_size": True, "crop_pct": 1.0, "crop_mode": "squash"},
    ),
    "swin": (
        "swin_tiny_patch4_window7_224",
        {"embed_dim": 16, "depths": [1, 1], "num_heads": [1, 2], "window_size": 4},
        {"input_size": [3, 64, 64], "fixed_input_size": True, "crop_pct": 0.9, "crop_mode": "border"},
    ),
    "eva": (
        "eva02_tiny_patch14_224",
        {"img_size": 32, "embed_dim": 24, "depth": 2, "num_heads": 2, "patch_size": 8, "mlp_ratio": 2.0},
        {"input_size": [3, 32, 32], "fixed_input_size": True, "crop_pct": 1.0},
    ),
}


def write_timm(folder: Path, family: str, seed: int = 0) -> nn.Module:
    """Write `config.json` and `model.safetensors` as `timm.models.save_for_hf` lays them out; returns the network."""
    name, arguments, cfg = SMALL[family]
    cfg = {"tag": "toys", "num_classes": 7, "mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4], **cfg}
    torch.manual_seed(seed)
    model = timm.create_model(name, pretrained_cfg=cfg, **arguments)
    with torch.no_grad():
        for parameter in model.parameters():  # many start at zero or one, which would hide an exchange
            parameter.add_(0.02 * torch.randn_like(parameter))
        model.train()(torch.rand(4, *cfg["input_size"]))
    record = {
        "architecture": name,
        "num_classes": 7,
        "num_features": model.num_features,
        "model_args": arguments,
        "pretrained_cfg": {
            **{k: v for k, v in model.pretrained_cfg.items() if k not in ("architecture", "num_classes")},
            **cfg,
            "license": "cc-by-nc-4.0",
            "origin_url": "https://example.com/toys",
        },
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(record))
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, folder / "model.safetensors")
    return model.eval()
