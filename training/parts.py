"""Parts of a trained encoder that learn at a rate of their own, or not at all: for training on from public weights."""

from __future__ import annotations

from torch import nn

from training.optim import OptimConfig
from zoo.encoder import Encoder
from zoo.errors import ConfigError, nearest


def hold_still(encoder: Encoder, config: OptimConfig) -> None:
    """Take gradients from what `config.freeze` names, and keep it, and maybe all batch norms, in eval mode.

    Call it before a method copies the encoder. Raises ConfigError: the encoder has no such part, or nothing is left.
    """
    still = []
    known = [name for name, _ in encoder.named_modules() if name]
    for part in config.freeze:
        if part not in known:
            depth = part.count(".") + 1
            choice = [name for name in known if name.count(".") < depth] or known
            raise ConfigError(f"optim.freeze: the encoder has no part {part!r}; {nearest(part, choice)}")
        encoder.get_submodule(part).requires_grad_(False)
        still.append(part)
    if config.freeze and not any(parameter.requires_grad for parameter in encoder.parameters()):
        raise ConfigError(
            f"optim.freeze={list(config.freeze)} leaves nothing of the encoder to train; name fewer parts"
        )
    if config.batch_norm == "eval":
        still += [name for name, each in encoder.named_modules() if isinstance(each, nn.modules.batchnorm._BatchNorm)]
    encoder.still = tuple(still)


def lr_scales(encoder: nn.Module, config: OptimConfig) -> dict[nn.Parameter, float]:
    """Factor on the learning rate of each of the encoder's parameters; empty where all learn alike.

    With `layer_decay` d, what lies n layers below the output takes d^n, by timm's own order of the network's layers
    (BEiT, arXiv 2106.08254, appendix, and MAE's fine-tuning do so).

    Raises:
        ConfigError: `layer_decay` for a network whose order of layers is not known.
    """
    if config.encoder_lr_scale == 1 and config.layer_decay is None:
        return {}
    scales = dict.fromkeys(encoder.parameters(), config.encoder_lr_scale)
    if config.layer_decay is not None:
        backbone = next((each for each in encoder.children() if callable(getattr(each, "group_matcher", None))), None)
        if backbone is None:
            raise ConfigError(
                f"optim.layer_decay needs a network of timm, which says how its layers follow each other; "
                f"{type(encoder).__name__} does not: use optim.encoder_lr_scale"
            )
        from timm.models import group_parameters

        layers = group_parameters(backbone, backbone.group_matcher(coarse=False), reverse=True)
        named, last = dict(backbone.named_parameters()), max(layers.values())
        for name, layer in layers.items():
            scales[named[name]] *= config.layer_decay ** (last - layer)
    return scales
