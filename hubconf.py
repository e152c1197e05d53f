"""The torch.hub door: one entry point per published checkpoint, made from the catalogue.

    torch.hub.list(repo), torch.hub.help(repo, name), torch.hub.load(repo, name, pretrained=True, device=None)

Every name that is no entry point starts with an underscore.
"""

import sys as _sys
from pathlib import Path as _Path

dependencies = ["torch", "timm", "huggingface_hub", "safetensors", "pydantic", "PIL", "numpy"]

import zoo as _zoo  # noqa: E402

# torch.hub takes this folder off the path again; a worker that Python spawns, as a DataLoader's may be, inherits the
# path and has to find the package there. Last, so that it hides nothing of anybody's.
_root = str(_Path(__file__).resolve().parent)
if _sys.path[-1:] != [_root]:
    _sys.path.append(_root)

_here, _there = _Path(__file__).resolve().parent / "zoo", getattr(_zoo, "__file__", None)
if _there is None or _Path(_there).resolve().parent != _here:
    raise ImportError(
        f"another package called 'zoo' is loaded already, from {_there or list(_zoo.__path__)}; the Encoder Zoo is in "
        f"{_here}. Start a fresh Python process and call torch.hub.load before importing the other one"
    )


def _entry_point(name):
    def entry(pretrained=True, device=None):
        return _zoo.load(name, pretrained=pretrained, device=device)

    entry.__name__ = entry.__qualname__ = name
    entry.__doc__ = (
        _zoo.show(name)
        + "\n\nArguments: pretrained (False: random weights), device (such as 'cuda'; default: the CPU).\n"
        + "Returns an Encoder in eval mode: encoder(x) is (N, num_features); encoder.transform() preprocesses."
    )
    return entry


globals().update({_name: _entry_point(_name) for _name in _zoo.list_models()})
