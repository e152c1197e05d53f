"""SSNAS's controls and switches: labels in the place of views, selection by perturbation, stop by curvature."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from tests.training.test_loop import in_parts, same_state, tiny, trainer_for
from tests.training.test_ssnas import search
from training.batches import TrainingData
from training.loop import build_method
from training.search.curvature import largest_eigenvalue, rises
from training.search.derive import SPACES, derive
from training.search.history import read_history
from training.search.perturbation import select_by_perturbation
from training.search.validation import selected_alpha, validation_views
from zoo.architectures.genotype import NB201_OPS
from zoo.errors import ConfigError

# -- objectives ------------------------------------------------------------------------------------


def test_objectives_differ_in_the_labels_alone(tmp_path):
    """True labels reach one control, drawn ones the other, none the method itself."""
    found = {
        name: trainer_for(tmp_path / name, search(method={"objective": name}))
        for name in ("contrastive", "labels", "random_labels")
    }
    assert found["contrastive"].batches.labels is None and not found["contrastive"].method.uses_labels
    truth = found["labels"].data.dataset.labels
    rows = found["labels"]._local_rows(0)
    assert found["labels"].batches.get(rows)["labels"].tolist() == truth[rows].tolist()
    drawn = found["random_labels"].batches.get(rows)["labels"]
    assert drawn.tolist() == found["random_labels"].batches.get(rows)["labels"].tolist()
    everything = found["random_labels"].batches.labels.numpy()
    assert set(everything) == set(truth) and 0.03 < float((everything == truth).mean()) < 0.3
    other = trainer_for(tmp_path / "seed", search(method={"objective": "random_labels"}, seed=3))
    assert not np.array_equal(other.batches.labels.numpy(), everything)
    parts = [trainer.parts for trainer in found.values()]
    assert all(np.array_equal(parts[0][i], part[i]) for part in parts for i in (0, 1))
    assert torch.equal(found["labels"].method.encoder.alpha, found["contrastive"].method.encoder.alpha)


def test_the_labelled_objective_is_cross_entropy_of_both_views(tmp_path):
    trainer = trainer_for(tmp_path / "run", search(method={"objective": "labels"}))
    method, rows = trainer.method, trainer._local_rows(0)
    views = method.views(trainer.batches.get(rows), torch.Generator().manual_seed(0))
    *images, labels = views["b"]
    assert labels.tolist() == trainer.data.dataset.labels[rows[len(rows) // 2 :]].tolist()
    logits = method.head(method.encoder(torch.cat(images))).log_softmax(1)
    by_hand = -logits[torch.arange(2 * len(labels)), torch.cat([labels, labels])].mean()
    found = method.objective(views["b"])
    torch.testing.assert_close(found["loss"], by_hand)
    optimizer = torch.optim.SGD(method.parameters(), 0.1)
    for _ in range(8):
        optimizer.zero_grad()
        method.objective(views["b"])["loss"].backward()
        optimizer.step()
    assert float(method.objective(views["b"])["loss"].detach()) < 0.8 * float(by_hand.detach())
    trainer.run()
    assert json.loads(method.export(trainer).read_text())["search"]["objective"] == "labels"


def test_an_objective_with_labels_needs_some():
    recipe = search(method={"objective": "labels"})
    with pytest.raises(ConfigError, match=r"objective=labels trains with labels, but the data has none"):
        build_method(recipe, torch.device("cpu"), 8, 4, classes=None)


def test_the_limit_of_a_search_is_blind_to_labels():
    limited = {"dataset": "synthetic:shapes?n=160", "held_out": 0.0, "limit": 40}
    searched = TrainingData(search(data=limited))
    trained = TrainingData(tiny(data=limited))
    counts = [np.bincount(d.dataset.labels[d.train], minlength=8) for d in (searched, trained)]
    assert len(searched.train) == len(trained.train) == 40
    assert np.ptp(counts[1]) <= 1 < np.ptp(counts[0])


# -- curvature -------------------------------------------------------------------------------------


def test_largest_eigenvalue_of_a_quadratic():
    g = torch.Generator().manual_seed(0)
    basis, _ = torch.linalg.qr(torch.randn(6, 6, generator=g, dtype=torch.float64))
    for values in ([5.0, 1.0, 0.5, 0.1, 0.0, -4.9], [-5.0, 1.0, 0.5, 0.1, 0.0, -0.2], [-3.0, -2.0, -1.5, -1, -1, -1]):
        hessian = basis @ torch.diag(torch.tensor(values, dtype=torch.float64)) @ basis.T
        alpha = torch.randn(6, generator=g, dtype=torch.float64)
        found = largest_eigenvalue(lambda a, h=hessian: 0.5 * a @ h @ a, alpha, torch.Generator().manual_seed(1))
        assert found == pytest.approx(max(values), rel=1e-6)
    assert largest_eigenvalue(lambda a: (a * 0 * a).sum(), alpha, g) == 0


def test_when_curvature_rises():
    assert not rises([1, 9], 2, 1.3)  # too few
    assert rises([1, 1, 2], 2, 1.3)  # 1.5 against 1
    assert not rises([1, 1, 1.5], 2, 1.3)  # 1.25
    assert rises([1, 1, 1, 1, 4], 3, 1.9) and not rises([1, 1, 1, 1, 4], 3, 2.1)
    assert rises([9, 9, 1, 1, 2], 2, 1.3)  # only the last count
    assert not rises([-1, -1, 2], 2, 1.3)


def test_search_stops_when_curvature_rises_and_goes_back(tmp_path, monkeypatch):
    values = iter([1.0, 1.0, 1.0, 3.0, 9.0])
    monkeypatch.setattr("training.search.validation.largest_eigenvalue", lambda *_: next(values))
    method = {"early_stop_curvature": 1.3, "curvature_window": 2}
    trainer, alphas = trainer_for(tmp_path / "run", search(method=method, epochs=6)), []

    def keep(step):
        if step % trainer.steps_per_epoch == 0 and not trainer.method.finished:
            alphas.append(trainer.method.encoder.alpha.clone())

    trainer.run(on_step=keep)
    assert trainer.step == 4 * trainer.steps_per_epoch and trainer.method.finished
    assert torch.equal(trainer.method.encoder.alpha, alphas[2]) and len(alphas) == 3
    history = read_history(tmp_path / "run")
    assert [r["curvature"] for r in history] == [1, 1, 1, 3] and history[-1]["stopped"]


def test_curvature_is_that_of_the_validation_loss_and_resumes(tmp_path):
    recipe = search(method={"early_stop_curvature": 1e6, "curvature_window": 2}, epochs=3)
    whole = trainer_for(tmp_path / "whole", recipe)
    whole.run()
    second = in_parts(lambda: trainer_for(tmp_path / "parts", recipe), at=whole.steps_per_epoch + 1)
    same_state(whole.state(), second.state())
    told = [r["curvature"] for r in read_history(tmp_path / "whole")]
    assert told == [r["curvature"] for r in read_history(tmp_path / "parts")] and all(np.isfinite(told))
    # Beside the whole Hessian, by a double backward on the same batch.
    method = whole.method
    (views,) = validation_views(method, whole, 1)

    def loss(alpha):
        with method.encoder.architecture(alpha):
            return method.objective(views)["loss"]

    hessian = torch.autograd.functional.hessian(loss, method.encoder.alpha.clone())
    eigenvalues = torch.linalg.eigvalsh(hessian.double())
    assert told[-1] == pytest.approx(float(eigenvalues[-1]), rel=0.02)


# -- perturbation ----------------------------------------------------------------------------------


@pytest.mark.parametrize("space", ["darts", "nb201"])
@pytest.mark.parametrize("edges", [False, True])
def test_perturbation_keeps_what_costs_most_to_remove(space, edges):
    """A loss that is linear in the mixing weights: each edge has one operation that matters, against alpha."""
    space = SPACES[space]
    g = torch.Generator().manual_seed(0)
    worth = {cell: torch.rand(len(space.edges), len(space.ops), generator=g) for cell in space.cells}
    for table in worth.values():
        table[:, 0] = 0.0
    alpha = torch.zeros(space.size(edges))

    def loss(a):
        weights = space.weights(a, edges)
        return -sum(float((weights[cell] * worth[cell]).sum()) for cell in space.cells)

    before = alpha.clone()
    decided = select_by_perturbation(space, alpha, edges, loss, torch.Generator().manual_seed(0))
    assert torch.equal(alpha, before)
    found = derive(space, space.weights(decided, edges))
    expected = derive(space, worth)
    if space.name == "nb201":
        assert found.edges == expected.edges
        capped = derive(space, space.weights(decided, edges), skip_cap=0)
        assert "skip_connect" not in capped.edges and "none" not in capped.edges
    elif not edges:
        assert (found.normal, found.reduce) == (expected.normal, expected.reduce)
    assert float(loss(decided)) < float(loss(alpha))


def test_a_search_can_select_by_perturbation(tmp_path):
    recipe = search(method={"selection": "perturbation", "selection_batches": 2})
    trainer = trainer_for(tmp_path / "run", recipe)
    trainer.run()
    method = trainer.method
    first = json.loads(trainer.method.export(trainer).read_text())
    assert first == json.loads(trainer.method.export(trainer).read_text())
    assert first["search"]["selection"] == "perturbation"
    table = selected_alpha(method, trainer).view(6, len(NB201_OPS))
    assert bool((table.softmax(1).max(1).values > 0.999).all())
    assert [NB201_OPS[int(i)] for i in table.argmax(1)] == first["edges"]


def test_curvature_in_the_darts_space(tmp_path):
    """A double backward through every operation, with partial channels, edge normalisation and a bf16 search."""
    encoder = {"family": "cell_supernet", "space": "darts", "width": 4, "depth": 3, "partial": 2}
    recipe = search(
        method={"early_stop_curvature": 1e6, "curvature_window": 2, "skip_cap": 1},
        encoder=encoder | {"edge_normalisation": True}, epochs=1, precision="bf16", input={"size": [8, 8]},
        data={"dataset": "synthetic:shapes?n=44", "held_out": 0.2},
    )  # fmt: skip
    trainer = trainer_for(tmp_path / "run", recipe)
    trainer.run()
    (record,) = read_history(tmp_path / "run")
    assert np.isfinite(record["curvature"]) and record["curvature"] != 0
    found = json.loads(trainer.method.export(trainer).read_text())
    assert found["format"] == "darts-cell" and [op for op, _ in found["normal"]].count("skip_connect") <= 1
