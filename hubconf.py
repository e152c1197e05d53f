"""The torch.hub door: one entry point per published checkpoint, made from the catalogue.

    torch.hub.list(repo), torch.hub.help(repo, name), torch.hub.load(repo, name, pretrained=True, device=None)

Everything `load` needs is imported here and from `zoo` alone: torch.hub takes this folder off
`sys.path` once it returns. Every name that is no entry point starts with an underscore.
"""

from pathlib import Path as _Path

dependencies = ["torch", "timm", "huggingface_hub", "safetensors", "pydantic", "PIL", "numpy"]

import zoo as _zoo  # noqa: E402

_here, _there = _Path(__file__).resolve().parent / "zoo", getattr(_zoo, "__file__", None)
if _there is None or _Path(_there).resolve().parent != _here:
    raise ImportError(
        f"another package called 'zoo' is loaded already, from {_there or list(_zoo.__path__)}; the Encoder Zoo is in "
        f"{_here}. Start a fresh Python process and call torch.hub.load before importing the other one"
    )

import zoo.architectures.attention as _attention  # noqa: E402, F401
import zoo.architectures.cell_network as _cell_network  # noqa: E402, F401
import zoo.architectures.image as _image  # noqa: E402, F401
import zoo.architectures.unet as _unet  # noqa: E402, F401
import zoo.checkpoint.catalog as _catalog  # noqa: E402
import zoo.checkpoint.hub as _hub  # noqa: E402, F401
import zoo.checkpoint.loading as _loading  # noqa: E402
import zoo.preprocessing.image as _transforms  # noqa: E402, F401
import zoo.publish.card as _card  # noqa: E402


def _entry_point(name):
    def entry(pretrained=True, device=None):
        return _loading.load(name, pretrained=pretrained, device=device)

    entry.__name__ = entry.__qualname__ = name
    entry.__doc__ = (
        _card.show(name)
        + "\n\nArguments: pretrained (False: random weights), device (such as 'cuda'; default: the CPU).\n"
        + "Returns an Encoder in eval mode: encoder(x) is (N, num_features); encoder.transform() preprocesses."
    )
    return entry


globals().update({_name: _entry_point(_name) for _name in _catalog.list_models()})
