"""States: damage is noticed, what does not fit the run is not used, and the one before steps in."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.training.test_loop import CPU, same_state, tiny, trainer_for
from training.state import MARK, has_state, load_state, save_state
from zoo.errors import TrainingError


def tensors(seed: int) -> dict:
    generator = torch.Generator().manual_seed(seed)
    return {"step": seed, "method": {"w": torch.randn(40, 40, generator=generator), "n": torch.tensor(seed)}}


def flipped(content: bytes, bit: int) -> bytes:
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


@pytest.mark.parametrize("older", [False, True])
def test_every_flipped_bit_is_noticed_or_harmless(tmp_path, older):
    """One bit of `last.pt` at a time, all over the file; then the state before it is used, never a damaged one.

    `older`: a file as it was written before states had a hash.
    """
    save_state(tmp_path, tensors(1))
    save_state(tmp_path, tensors(2))
    last = tmp_path / "last.pt"
    if older:
        torch.save(tensors(2), last)
    whole, noticed = last.read_bytes(), 0
    bits = np.linspace(0, 8 * len(whole) - 1, 300).astype(int).tolist()
    for bit in bits:
        last.write_bytes(flipped(whole, bit))
        state, name = load_state(tmp_path, CPU)
        same_state(state, tensors(1 if name == "previous.pt" else 2))
        noticed += name == "previous.pt"
        mark = whole.rindex(MARK) if not older else 0
        assert older or name == "previous.pt" or mark <= bit // 8 < mark + len(MARK)
    assert noticed > (0.75 if older else 0.95) * len(bits)


@pytest.mark.parametrize("keep", [0, 1, 1000, -1])
def test_a_cut_file_is_noticed(tmp_path, keep):
    save_state(tmp_path, tensors(1))
    save_state(tmp_path, tensors(2))
    last = tmp_path / "last.pt"
    last.write_bytes(last.read_bytes()[:keep])
    assert load_state(tmp_path, CPU)[1] in (("previous.pt",) if keep >= 0 else ("previous.pt", "last.pt"))


def other_keys(state):
    return {"weights": state["method"]}


def missing(state):
    return {k: v for k, v in state.items() if k != "optimizer"}


def wrong_kind(state):
    return {**state, "step": "7"}


def fewer_weights(state):
    return {**state, "method": dict(list(state["method"].items())[:-1])}


def other_shape(state):
    name = next(n for n, t in state["method"].items() if t.ndim == 4)
    return {**state, "method": {**state["method"], name: state["method"][name][:1]}}


def other_optimizer(state):
    return {**state, "optimizer": {"state": {}, "param_groups": [{"params": [0]}]}}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (other_keys, "'step' must be of type int, there is nothing"),
        (missing, "'optimizer' must be of type dict"),
        (wrong_kind, "there is str"),
        (fewer_weights, "the weights lack"),
        (other_shape, "must have the shape"),
        (other_optimizer, "parameter groups"),
        (lambda state: [state], "this is a list"),
    ],
)
def test_a_whole_file_that_is_no_state_of_this_run(tmp_path, change, said):
    """The state before it is used; if that is no better, one clear error, and nothing of the run has changed."""
    trainer = trainer_for(tmp_path / "run", tiny(epochs=1))
    trainer.step = 1
    good = trainer.state()
    folder = trainer.folder.state
    save_state(folder, good)
    save_state(folder, change(good))
    again = trainer_for(tmp_path / "run", tiny(epochs=1))
    assert again.resume() and again.step == 1
    save_state(folder, change(good))
    fresh = trainer_for(tmp_path / "run", tiny(epochs=1))
    before = {key: value.clone() for key, value in fresh.method.state_dict().items()}
    with pytest.raises(TrainingError, match="can be used") as error:
        fresh.resume()
    assert said in str(error.value) and "--fresh" in str(error.value) and "\n" not in str(error.value)
    same_state(before, dict(fresh.method.state_dict()))


def test_no_state_is_no_error(tmp_path):
    assert not has_state(tmp_path) and load_state(tmp_path, CPU) is None
