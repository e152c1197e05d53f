"""Names of timm's pretrained models: searched without the network, opened as `timm:NAME[.TAG][@revision]`."""

from __future__ import annotations

import re

from zoo.checkpoint.hub import HubSource, open_hub
from zoo.checkpoint.sources import Access
from zoo.errors import UnknownNameError, nearest

#: What people type -> timm's name of the same weights, or of the usual ones for that network.
ALIASES = {
    "dinov2_vits14": "vit_small_patch14_dinov2.lvd142m",
    "dinov2_vits14_reg": "vit_small_patch14_reg4_dinov2.lvd142m",
    "dinov2_vitb14": "vit_base_patch14_dinov2.lvd142m",
    "dinov2_vitb14_reg": "vit_base_patch14_reg4_dinov2.lvd142m",
    "dinov2_vitl14": "vit_large_patch14_dinov2.lvd142m",
    "dinov2_vitl14_reg": "vit_large_patch14_reg4_dinov2.lvd142m",
    "dinov2_vitg14": "vit_giant_patch14_dinov2.lvd142m",
    "dinov2_vitg14_reg": "vit_giant_patch14_reg4_dinov2.lvd142m",
    "dinov3_vits16": "vit_small_patch16_dinov3.lvd1689m",
    "dinov3_vitb16": "vit_base_patch16_dinov3.lvd1689m",
    "dinov3_vitl16": "vit_large_patch16_dinov3.lvd1689m",
    "dino_vits8": "vit_small_patch8_224.dino",
    "dino_vits16": "vit_small_patch16_224.dino",
    "dino_vitb8": "vit_base_patch8_224.dino",
    "dino_vitb16": "vit_base_patch16_224.dino",
    "mae_vitb16": "vit_base_patch16_224.mae",
    "mae_vitl16": "vit_large_patch16_224.mae",
    "clip_vitb32": "vit_base_patch32_clip_224.openai",
    "clip_vitb16": "vit_base_patch16_clip_224.openai",
    "clip_vitl14": "vit_large_patch14_clip_224.openai",
    "resnet18": "resnet18.a1_in1k",
    "resnet34": "resnet34.a1_in1k",
    "resnet50": "resnet50.a1_in1k",
    "resnet101": "resnet101.a1h_in1k",
    "vit_b_16": "vit_base_patch16_224.augreg_in21k",
    "vit_l_16": "vit_large_patch16_224.augreg_in21k",
    "convnext_tiny": "convnext_tiny.fb_in22k",
    "convnext_base": "convnext_base.fb_in22k",
    "swin_t": "swin_tiny_patch4_window7_224.ms_in22k",
    "efficientnet_b0": "efficientnet_b0.ra_in1k",
}


def search_timm(pattern: str = "*") -> list[str]:
    """Addresses of timm's pretrained models whose name matches, without the network.

    Args:
        pattern: shell-style, such as `"vit*dino*"`.
    """
    import timm

    return [f"timm:{name}" for name in timm.list_pretrained(pattern)]


def address_for(name: str) -> str | None:
    """The `timm:` address of a name that is none in the catalogue but that people type; None if timm has none."""
    found = ALIASES.get(name.lower().replace("-", "_").replace("/", "_"))
    if found is None and re.fullmatch(r"[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)?", name):
        import timm

        found = name if timm.is_model(name) and timm.models.is_model_pretrained(name) else None
    return None if found is None else f"timm:{found}"


def open_timm(name: str, access: Access, *, revision: str | None = None) -> HubSource:
    """Open what follows `timm:`; a name without a tag means timm's default weights.

    Raises:
        UnknownNameError: timm has no such pretrained model; names the nearest. HubError: as `open_hub`.
    """
    import timm
    from timm.models import get_pretrained_cfg

    wanted, at, pinned = name.partition("@")
    if at and not pinned:
        raise UnknownNameError(f"'timm:{name}' names no revision; write 'timm:NAME[.TAG][@revision]'")
    model = wanted.partition(".")[0]
    if not timm.is_model(model):
        near = nearest(model, timm.list_models())
        alias = ALIASES.get(wanted.lower())
        fix = f"write 'timm:{alias}'" if alias else near
        raise UnknownNameError(f"timm {timm.__version__} has no model {model!r}; {fix}")
    tags = timm.list_pretrained(f"{model}.*") or timm.list_pretrained(model)
    found = get_pretrained_cfg(wanted) if wanted in (model, *tags) else None
    if found is None or not found.has_weights:
        known = nearest(wanted, tags) if tags else "it comes without weights: build it with a recipe"
        raise UnknownNameError(f"timm has no pretrained weights {wanted!r}; {known}")
    if not found.hf_hub_id:
        raise UnknownNameError(f"timm keeps {wanted!r} as a pickle at {found.url}; the zoo never unpickles weights")
    repo, _, listed = found.hf_hub_id.partition("@")
    chosen = pinned or revision or listed
    full = wanted if "." in wanted or not found.tag else f"{wanted}.{found.tag}"
    return open_hub(f"{repo}@{chosen}" if chosen else repo, access, revision=revision, label=f"timm:{full}")
