"""How other projects name what is in their checkpoint files. `LAYOUTS` is the one registry.

A layout says which keys are the encoder's and what all others are. A key that it does not explain is an
error: a file of another layout must not come in by halves.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from zoo.checkpoint.config import Method
from zoo.errors import CheckpointError, UnknownNameError, nearest
from zoo.preprocessing.image import ImageInput

#: Preprocessing of nearly every published ImageNet encoder.
IMAGENET = ImageInput(
    size=(224, 224),
    crop_fraction=0.875,
    interpolation="bilinear",
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
)


@dataclass(frozen=True)
class Layout:
    """One project's way to save an encoder.

    Attributes:
        what: for whom reads the help.
        method: what the weights were trained with.
        encoder: patterns of the encoder's keys, tried in order; group `key` is the name inside the network. The
            first pattern that occurs in the file is the one that counts.
        left: pattern of a whole key -> what it is and why the encoder does without it.
        container: entry of the file that holds the state dict, with dots for entries within entries; without it
            the file itself is one.
        renames: pattern within a key inside the network -> what timm calls it; all are applied, in order.
        input: preprocessing that the weights expect.
        architectures: the project's name of a network -> timm's name and arguments, where they differ.
    """

    what: str
    method: Method
    encoder: tuple[str, ...]
    left: dict[str, str]
    container: str | None = "state_dict"
    renames: dict[str, str] = field(default_factory=dict)
    input: ImageInput = IMAGENET
    architectures: dict[str, tuple[str, dict[str, Any]]] = field(default_factory=dict)

    def _reason(self, key: str, pattern: str) -> str | None:
        """Why a key is left; the encoder's tensors under a second name are as well."""
        reason = next((why for p, why in self.left.items() if re.fullmatch(p, key)), None)
        if reason is None and not re.fullmatch(pattern, key) and any(re.fullmatch(p, key) for p in self.encoder[:-1]):
            return "the encoder once more, under a second name"
        return reason

    def sort(self, keys: list[str]) -> tuple[dict[str, str], dict[str, str]]:
        """Key without wrappers -> key inside the network, and key without wrappers -> why it is left.

        Raises:
            CheckpointError: no key is the encoder's, or one is not explained.
        """
        pattern = next((p for p in self.encoder if any(re.fullmatch(p, key) for key in keys)), None)
        if pattern is None:
            raise CheckpointError(f"no key is an encoder's in the layout {self.what}; the file has {_some(keys)}")
        used: dict[str, str] = {}
        left: dict[str, str] = {}
        for key in keys:
            reason = self._reason(key, pattern)
            match = re.fullmatch(pattern, key)
            if reason is not None:
                left[key] = reason
            elif match is not None:
                used[key] = self._renamed(match["key"])
        unknown = [key for key in keys if key not in used and key not in left]
        if unknown:
            raise CheckpointError(f"{len(unknown)} keys are unknown to the layout {self.what}: {_some(unknown)}")
        return used, left

    def _renamed(self, key: str) -> str:
        for old, new in self.renames.items():
            key = re.sub(old, new, key)
        return key


_MOCO_LEFT = {
    r"encoder_q\.fc\..*": "projection head of the query encoder",
    r"encoder_k\..*": "momentum encoder, which follows the query encoder",
    r"queue.*": "queue of keys",
}
_MOCO_ENCODER = (r"encoder_q\.(?P<key>.*)",)

#: DINO resizes with bicubic interpolation (eval_linear.py of facebookresearch/dino).
BICUBIC = IMAGENET.model_copy(update={"interpolation": "bicubic"})


def _not_stated(project: str) -> Method:
    """For projects that hold many methods: the file does not say which one made the weights."""
    return Method(name="imported", title=f"Imported ({project})", paper="The file does not state its method.")


_HELD = r"((model|backbone|encoder|net|network)\.)"
#: A network alone, maybe held by a training class.
_NETWORK = (rf"{_HELD}+(?P<key>.*)", r"(?P<key>.*)")
_CLASSIFIER = {rf"{_HELD}*(fc|head|classifier|head\.fc)\.(weight|bias)": "classifier"}
#: children of torchvision's ResNet in order, as `nn.Sequential(*list(resnet.children())[:-1])` numbers them
_NUMBERED = {r"^0\.": "conv1.", r"^1\.": "bn1."} | {rf"^{i}\.": f"layer{i - 3}." for i in range(4, 8)}
_LIGHTLY_LEFT = {
    r"(projection_head|prediction_head|prototypes)(_momentum|_student|_teacher)?\..*": "projection or prediction head",
    r"(backbone_momentum|teacher(_backbone)?)\..*": "momentum encoder, which follows the encoder",
    r"(online_classifier|criterion|loss|memory_bank)\..*": "part of the training loss or its monitor",
}

#: `zoo import --from NAME` -> the layout.
LAYOUTS: dict[str, Layout] = {
    "moco": Layout(
        "of facebookresearch/moco (encoder_q, encoder_k, queue)",
        Method(
            name="moco",
            title="MoCo v2",
            paper="Improved Baselines with Momentum Contrastive Learning (Chen et al., 2020)",
            url="https://arxiv.org/abs/2003.04297",
        ),
        _MOCO_ENCODER,
        _MOCO_LEFT,
    ),
    "clsa": Layout(
        "of maple-research-lab/CLSA (MoCo's: encoder_q, encoder_k, queue)",
        Method(
            name="clsa",
            title="CLSA",
            paper="Contrastive Learning with Stronger Augmentations (Wang and Qi, 2021)",
            url="https://arxiv.org/abs/2104.07713",
        ),
        _MOCO_ENCODER,
        _MOCO_LEFT,
    ),
    "solo-learn": Layout(
        "of vturrisi/solo-learn (backbone or encoder, projector, classifier)",
        _not_stated("solo-learn"),
        (r"backbone\.(?P<key>.*)", r"encoder\.(?P<key>.*)"),
        {
            r"(backbone|encoder)\.fc\..*": "classifier",
            r"(classifier|online_classifier)\..*": "online classifier",
            r"(momentum_)?(projector|predictor|prototypes|head)\d*\..*": "projection or prediction head",
            r"momentum_(backbone|encoder|classifier)\..*": "momentum encoder, which follows the encoder",
            r"(queue|queue_y|queue_ptr|\w+_loss_func\..*|\w+_loss\..*)": "state of the training loss",
        },
    ),
    "lightly": Layout(
        "of lightly (backbone: a torchvision ResNet, by name or as a numbered Sequential; projection_head)",
        _not_stated("lightly"),
        (r"(model\.)?backbone\.(?P<key>.*)",),
        {r"(model\.)?backbone\.fc\..*": "classifier", **_LIGHTLY_LEFT},
        renames=_NUMBERED,
    ),
    "vissl": Layout(
        "of facebookresearch/vissl (trunk._feature_blocks, heads)",
        _not_stated("VISSL"),
        (r"trunk\.(base_model\.)?_feature_blocks\.(?P<key>.*)", r"_feature_blocks\.(?P<key>.*)"),
        {r"(trunk\.)?(base_model\.)?_feature_blocks\.fc\..*": "classifier", r"heads\..*": "projection head"},
        container="classy_state_dict.base_model.model",
    ),
    "dino": Layout(
        "of facebookresearch/dino (teacher: backbone, head; or a released backbone alone)",
        Method(
            name="dino",
            title="DINO",
            paper="Emerging Properties in Self-Supervised Vision Transformers (Caron et al., 2021)",
            url="https://arxiv.org/abs/2104.14294",
        ),
        (r"backbone\.(?P<key>.*)", r"(?P<key>.*)"),
        {r"(backbone\.fc|head)\..*": "projection head or classifier"},
        container="teacher",
        input=BICUBIC,
    ),
    "timm": Layout("of a timm model's state dict", _not_stated("timm"), _NETWORK, _CLASSIFIER, input=BICUBIC),
    "swav": Layout(
        "of facebookresearch/swav (a ResNet with projection_head and prototypes)",
        Method(
            name="swav",
            title="SwAV",
            paper="Unsupervised Learning of Visual Features by Contrasting Cluster Assignments (Caron et al., 2020)",
            url="https://arxiv.org/abs/2006.09882",
        ),
        (r"(?P<key>(conv1|bn1|layer\d)\..*)",),
        {r"projection_head\..*": "projection head", r"prototypes\..*": "prototypes"},
    ),
    "moco-v3": Layout(
        "of facebookresearch/moco-v3 (base_encoder, momentum_encoder, predictor)",
        Method(
            name="moco_v3",
            title="MoCo v3",
            paper="An Empirical Study of Training Self-Supervised Vision Transformers (Chen et al., 2021)",
            url="https://arxiv.org/abs/2104.02057",
        ),
        (r"base_encoder\.(?P<key>.*)",),
        {
            r"base_encoder\.(fc|head)\..*": "projection head",
            r"momentum_encoder\..*": "momentum encoder, which follows the base encoder",
            r"predictor\..*": "prediction head",
        },
        # Its ViT-S has 12 heads (vits.py), timm's has 6; weights of both have the same shapes.
        architectures={
            "vit_small": ("vit_small_patch16_224", {"num_heads": 12}),
            "vit_base": ("vit_base_patch16_224", {}),
            "vit_large": ("vit_large_patch16_224", {}),
        },
    ),
    "mmselfsup": Layout(
        "of open-mmlab/mmselfsup (backbone, neck, head; or a backbone that its tools extracted)",
        _not_stated("mmselfsup"),
        (r"backbone\.(?P<key>.*)", r"encoder_q\.0\.(?P<key>.*)", r"(?P<key>(conv1|bn1|layer\d)\..*)"),
        {
            r"encoder_q\.1\..*": "projection head",
            r"(neck|head|projector|predictor|queue|queue_ptr|loss)(\..*)?": "projection head or state of the loss",
            r"(encoder_k|target_net|momentum_encoder|teacher)\..*": "momentum encoder, which follows the backbone",
            r"(data_preprocessor|img_norm|preprocess)\..*": "constants of its own preprocessing",
        },
    ),
    "simclr-pytorch": Layout(
        "of sthalles/SimCLR (backbone, with the projection head as its fc)",
        Method(
            name="simclr",
            title="SimCLR",
            paper="A Simple Framework for Contrastive Learning of Visual Representations (Chen et al., 2020)",
            url="https://arxiv.org/abs/2002.05709",
        ),
        (r"backbone\.(?P<key>.*)",),
        {r"backbone\.fc\..*": "projection head"},
        # data_aug/contrastive_learning_dataset.py: STL-10 at 96 pixels by default, ToTensor without normalisation.
        input=ImageInput(size=(96, 96), interpolation="bilinear"),
    ),
    "torchvision": Layout(
        "of a torchvision ResNet's state dict",
        _not_stated("torchvision"),
        _NETWORK,
        _CLASSIFIER,
        container="model",
    ),
}


def layout(name: str) -> Layout:
    """The layout of that name. Raises UnknownNameError, naming the nearest."""
    if name not in LAYOUTS:
        raise UnknownNameError(f"unknown layout {name!r}; {nearest(name, list(LAYOUTS))}")
    return LAYOUTS[name]


def _some(keys: list[str]) -> str:
    return ", ".join(repr(key) for key in keys[:3]) + (f" and {len(keys) - 3} more" if len(keys) > 3 else "")
