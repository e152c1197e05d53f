"""MS2L beside its released code as the method sheet states it: guises, the three losses, presets, whole runs."""

from __future__ import annotations

import math
from itertools import permutations

import pytest
import torch
import torch.nn.functional as F

from tests.training.distributed_cases import NO_RUN
from tests.training.test_loop import in_parts, trainer_for
from training.__main__ import main
from training.augment.skeleton_guises import seen_frames, shuffle_segments
from training.methods.base import Context
from training.methods.ms2l import MS2L
from training.modules.skeleton_tasks import guises_loss
from training.recipe import parse_recipe, read_recipe
from zoo.architectures import build
from zoo.architectures.skeleton_gru import SkeletonGRU
from zoo.errors import ConfigError
from zoo.preprocessing.image import ImageInput
from zoo.preprocessing.skeleton import SkeletonInput
from zoo.strict import Architecture

CONTEXT = Context(image_size=0, global_batch=4, total_steps=10, samples=40)


def ms2l(frames=12, **config) -> MS2L:
    torch.manual_seed(0)
    encoder = build(Architecture(family="skeleton_gru", arguments={"hidden": 6}), SkeletonInput(frames=frames))
    return MS2L(encoder, MS2L.Config(**{"hidden_dim": 16, "out_dim": 8, **config}), CONTEXT)


def batch(frames=(12, 9, 4, 2)):
    torch.manual_seed(3)
    lengths = torch.tensor(frames)
    x = torch.randn(len(frames), max(frames), 20, 3)
    return {"skeletons": x * (torch.arange(max(frames)) < lengths[:, None])[..., None, None], "lengths": lengths}


def guises(method, seed=0, frames=(12, 9, 4, 2)):
    return method.views(batch(frames), torch.Generator().manual_seed(seed))


# -- guises ----------------------------------------------------------------------------------------


def test_the_tail_that_is_hidden():
    lengths = torch.tensor([1, 2, 3, 4, 7, 10, 100, 201])
    expected = [sum(i < 0.7 * n - 1e-9 for i in range(n)) for n in lengths.tolist()]
    assert seen_frames(lengths, 0.3).tolist() == expected == [1, 2, 3, 3, 5, 7, 70, 141]


@pytest.mark.parametrize("n", [1, 2, 3, 4, 7, 12])
def test_shuffling_permutes_segments_and_nothing_else(n):
    orders = torch.tensor(list(permutations(range(3))))
    x = torch.zeros(6, 15, 1, 1)
    x[:, :n, 0, 0] = torch.arange(1.0, n + 1)
    lengths = torch.full((6,), n)
    before = x.clone()
    got = shuffle_segments(x, lengths, orders)[..., 0, 0]
    assert torch.equal(x, before) and lengths.eq(n).all()
    size = n // 3
    for row, order in zip(got.tolist(), orders.tolist(), strict=True):
        segments = [list(range(1 + k * size, 1 + (k + 1) * size)) for k in range(3)]
        expected = [value for k in order for value in segments[k]] + list(range(3 * size + 1, n + 1))
        assert row == expected + [0] * (15 - n)
    inverse = orders.argsort(dim=1)
    assert torch.equal(shuffle_segments(got[..., None, None], lengths, inverse), x)


def test_views_as_released_are_one_sequence_in_three_guises():
    method = ms2l()
    data = batch()
    found = method.views(data, torch.Generator().manual_seed(1))
    assert torch.equal(found["original"], data["skeletons"]) and torch.equal(found["moving"], data["skeletons"])
    expected = shuffle_segments(data["skeletons"], data["lengths"], method.orders[found["order"]])
    assert torch.equal(found["shuffled"], expected)
    assert found["order"][3] == 0, "two frames cannot be cut into three"
    assert torch.equal(data["lengths"], torch.tensor([12, 9, 4, 2]))
    seen = {int(i) for s in range(60) for i in guises(method, s)["order"]}
    assert seen == set(range(6))


def test_each_guise_is_a_view_of_its_own_with_augmentation():
    found = guises(ms2l(augment={"frames": 8}))
    assert found["original"].shape == found["shuffled"].shape == (4, 8, 20, 3)
    assert not torch.equal(found["original"], found["moving"])


# -- losses ----------------------------------------------------------------------------------------


def motion_by_hand(method, found, tail, padded):
    """Frame by frame, as the sheet says."""
    lengths = found["moving_lengths"].tolist()
    hidden = found["moving"].clone()
    total = count = 0
    for i, n in enumerate(lengths):
        hidden[i, math.ceil(0.7 * n - 1e-9) :] = 0
    frames = method.encoder.forward_features(hidden, found["moving_lengths"])
    predicted = method.decoder(frames, found["moving_lengths"])
    for i, n in enumerate(lengths):
        for t in range(math.ceil(0.7 * n - 1e-9) if tail else 0, n):
            total = total + (predicted[i, t] - found["moving"][i, t].flatten()).square().sum()
            count += 60
    return total / (len(lengths) * 12 * 60 if padded else count)


@pytest.mark.parametrize("tail", [True, False])
@pytest.mark.parametrize("padded", [True, False])
def test_motion_loss(tail, padded):
    method = ms2l(
        jigsaw=0, contrastive=0, motion_target="tail" if tail else "all", motion_mean="padded" if padded else "valid"
    )
    found = guises(method)
    terms = method.loss(found)
    torch.testing.assert_close(terms["loss"], motion_by_hand(method, found, tail, padded))
    assert terms.keys() == {"loss", "motion"}


def test_garbage_beyond_the_end_reaches_neither_loss_nor_gradient():
    method = ms2l(motion_mean="valid")
    clean = guises(method)
    dirty = {name: value.clone() for name, value in clean.items()}
    for name in ("original", "moving", "shuffled"):
        dirty[name][2, 4:] = 1e6
    for found in (clean, dirty):
        method.zero_grad()
        method.loss(found)["loss"].backward()
        found["gradient"] = method.encoder.gru.weight_hh_l0.grad.clone()
    torch.testing.assert_close(clean["gradient"], dirty["gradient"])


def test_jigsaw_loss():
    method = ms2l(motion=0, contrastive=0)
    found = guises(method)
    terms = method.loss(found)
    frames = method.encoder.forward_features(found["shuffled"], found["shuffled_lengths"])
    pooled = method.encoder.pool(frames, found["shuffled_lengths"])
    torch.testing.assert_close(terms["loss"], F.cross_entropy(method.puzzle(pooled), found["order"]))


def contrast_by_hand(z_k, centre, temperature, self_similarity):
    """NT-Xent between two sets of embeddings, one similarity at a time."""
    rows = [*F.normalize(z_k, dim=1), *F.normalize(centre, dim=1)]
    n, losses = len(z_k), []
    for i, anchor in enumerate(rows):
        total = 0.0
        for j, other in enumerate(rows):
            similarity = torch.tensor(-1.0) if i == j and self_similarity == "minus_one" else anchor @ other
            if i != j or self_similarity == "minus_one":
                total = total + torch.exp(similarity / temperature)
        losses.append(-torch.log(torch.exp(anchor @ rows[(i + n) % (2 * n)] / temperature) / total))
    return torch.stack(losses).mean()


@pytest.mark.parametrize("self_similarity", ["minus_one", "excluded"])
def test_contrastive_loss_against_the_mean(self_similarity):
    method = ms2l(motion=0, jigsaw=0, self_similarity=self_similarity)
    torch.manual_seed(5)
    pooled = [torch.randn(2, 12, requires_grad=True) for _ in range(3)]
    z = [method.projector(h) for h in pooled]
    centre = (z[0] + z[1] + z[2]) / 3
    expected = sum(contrast_by_hand(one, centre, 0.9, self_similarity) for one in z) / 3
    got = method.contrast(pooled)["contrastive"]
    torch.testing.assert_close(got, expected)
    wanted = torch.autograd.grad(expected, pooled[0], retain_graph=True)[0]
    torch.testing.assert_close(torch.autograd.grad(got, pooled[0])[0], wanted, rtol=1e-4, atol=1e-6)


def test_contrastive_loss_against_the_others():
    method = ms2l(motion=0, jigsaw=0, positives="others", self_similarity="excluded", temperature=0.2)
    pooled = [torch.randn(3, 12) for _ in range(3)]
    z = [method.projector(h) for h in pooled]
    expected = sum(contrast_by_hand(z[i], z[j], 0.2, "excluded") for i, j in ((1, 0), (2, 0), (2, 1))) / 3
    torch.testing.assert_close(method.contrast(pooled)["contrastive"], expected)


@pytest.mark.parametrize("off", ["motion", "jigsaw", "contrastive"])
def test_a_task_with_weight_zero_has_no_head_and_no_term(off):
    method = ms2l(**{off: 0})
    terms = method.loss(guises(method))
    heads = {"motion": "decoder", "jigsaw": "puzzle", "contrastive": "projector"}
    assert off not in terms and not hasattr(method, heads[off])
    parts = [terms[name] for name in heads if name != off]
    torch.testing.assert_close(terms["loss"].detach(), sum(parts))
    terms["loss"].backward()
    assert all(p.grad is not None for p in method.parameters())


def test_presets():
    assert MS2L.Config(preset="released") == MS2L.Config()
    corrected = MS2L.Config(preset="corrected", temperature=0.2)
    assert (corrected.motion_target, corrected.self_similarity, corrected.temperature) == ("tail", "excluded", 0.2)
    assert MS2L.Config(**corrected.model_dump()) == corrected
    with pytest.raises(ValueError, match="'released'"):
        MS2L.Config(preset="relesed")
    with pytest.raises(ValueError, match="at least one"):
        MS2L.Config(motion=0, jigsaw=0, contrastive=0)


def test_wrong_encoders_are_refused():
    with pytest.raises(ConfigError, match=r"input\.frames"):
        ms2l(frames=None)
    image = build(Architecture(family="timm", arguments={"model": "resnet10t"}), ImageInput())
    with pytest.raises(ConfigError, match="takes image input"):
        MS2L(image, MS2L.Config(), CONTEXT)


def test_the_released_structure():
    recipe = read_recipe("ms2l_bigru_nucla_released")
    encoder = build(recipe.architecture(), recipe.input)
    assert isinstance(encoder, SkeletonGRU) and encoder.num_features == 600 and encoder.gru.num_layers == 2
    method = MS2L(encoder, recipe.method_config(), CONTEXT)
    assert method.projector[0].out_features == 2048 and method.projector[3].out_features == 1024
    assert method.puzzle[3].out_features == 6 and method.decoder.gru.num_layers == 2
    assert method.config.temperature == 0.9 and recipe.optim.step_epochs == 30


# -- runs ------------------------------------------------------------------------------------------


def tiny(**changes):
    raw = {
        "name": "ms2l_tiny_motion",
        "method": {"name": "ms2l", "preset": "corrected", "hidden_dim": 16, "out_dim": 8, "augment": {"frames": 12}},
        "encoder": {"family": "skeleton_gru", "hidden": 8, "layers": 1},
        "input": {"modality": "skeleton", "steps": ["centre_frames", "resample:16"]},
        "data": {"dataset": "synthetic:motion?n=48", "held_out_groups": [0, 1]},
        "optim": {"name": "adamw", "lr": 0.003, "lr_scaling": "none"},
        "epochs": 3,
        "batch_size": 8,
        "log_every": 2,
        "precision": "fp32",
        "monitor": {"every_epochs": 1, "k": 3},
        **changes,
    }
    return parse_recipe(raw, "tiny")


def test_a_run_resumes_bit_for_bit_and_publishes(tmp_path):
    import zoo
    from training.export import export_encoder

    whole = trainer_for(tmp_path / "whole", tiny())
    groups = whole.data.dataset.groups["person"]
    assert set(groups[whole.data.held]) == {0, 1} and not set(groups[whole.data.train]) & {0, 1}
    whole.run()
    assert any("held_out_knn" in record for record in whole.folder.records())
    second = in_parts(lambda: trainer_for(tmp_path / "parts", tiny()), at=5)
    for key, value in whole.method.state_dict().items():
        assert torch.equal(value, second.method.state_dict()[key]), key
    encoder = zoo.load(f"local-dir:{export_encoder(second)}")
    x = encoder.transform()(whole.data.dataset.sample(0))[None]
    torch.testing.assert_close(encoder(x), second.method.encoder.eval()(x), rtol=1e-2, atol=1e-3)
    assert encoder.config.modality == "skeleton"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data=synthetic:shapes?n=200"], "takes skeletons"),
        (["data.held_out_groups=[99]"], "no sample of group 99"),
        (["input.layout=kinect_v2"], "joint layout"),
        (["method.preset=relesed"], "'released'"),
        (["method.augment={crops: 1}"], "'crop'"),
        (["encoder.streams=[bones]"], "encoder.streams"),
    ],
)
def test_bad_settings_are_one_line(tmp_path, capsys, overrides, message):
    assert main(["smoke_ms2l", *overrides, "--run", str(tmp_path / "run"), "--device", "cpu"]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ") and message in error


# -- strategies ------------------------------------------------------------------------------------


def labelled(**config) -> MS2L:
    torch.manual_seed(0)
    encoder = build(Architecture(family="skeleton_gru", arguments={"hidden": 6}), SkeletonInput(frames=12))
    context = Context(image_size=0, global_batch=4, total_steps=10, samples=40, classes=3)
    return MS2L(encoder, MS2L.Config(**{"hidden_dim": 16, "out_dim": 8, **config}), context)


def labelled_views(method):
    return method.views(batch() | {"labels": torch.tensor([0, 2, 1, 2])}, torch.Generator().manual_seed(0))


def test_joint_training_adds_a_classifier_and_counts_the_tasks_by_scale():
    method = labelled(strategy="joint", scale=0.3)
    views = labelled_views(method)
    terms = method.loss(views)
    tasks = terms["motion"] + terms["jigsaw"] + terms["contrastive"]
    torch.testing.assert_close(terms["loss"].detach(), terms["classification"] + 0.3 * tasks)
    pooled = method.encoder(views["original"], views["original_lengths"])
    expected = F.cross_entropy(method.classifier(pooled), views["labels"])
    torch.testing.assert_close(terms["classification"], expected.detach())


def test_moving_weights_go_from_the_tasks_to_the_labels():
    method = labelled(strategy="moving", scale=0.2)
    assert method.weights() == (1.0, 0.0)
    method.after_step(4, NO_RUN)
    assert method.weights() == (pytest.approx(0.6), 0.5)
    resumed = labelled(strategy="moving", scale=0.2)
    resumed.load_state_dict(method.state_dict())
    assert resumed.weights() == method.weights()
    method.after_step(9, NO_RUN)
    assert method.weights() == (pytest.approx(0.2), 1.0)


def test_pretraining_cannot_see_labels(tmp_path):
    with_labels = tiny(method={"name": "ms2l", "preset": "corrected", "hidden_dim": 16, "strategy": "joint"})
    trainer = trainer_for(tmp_path / "joint", with_labels)
    rows = trainer.data.train[:4]
    assert torch.equal(trainer.batches.get(rows)["labels"], torch.from_numpy(trainer.data.dataset.labels[rows]))
    assert "labels" not in trainer_for(tmp_path / "pretrain", tiny()).batches.get(rows)
    assert not hasattr(ms2l(), "classifier")
    with pytest.raises(ConfigError, match="the data has none"):
        ms2l(strategy="moving")


def test_without_projection_the_features_themselves_are_compared():
    method = ms2l(projection=False, motion=0, jigsaw=0)
    assert not any("projector" in name for name in method.state_dict())
    made = [torch.randn(4, 12) for _ in range(3)]
    head = MS2L.Config(projection=False)
    expected, _ = guises_loss(made, head.temperature)
    torch.testing.assert_close(method.contrast(made)["contrastive"], expected)
    assert method.loss(guises(method))["loss"].requires_grad


@pytest.mark.parametrize(("motion", "jigsaw", "passes"), [(0, 0, 3), (1, 0, 4), (1, 1, 5)])
def test_whole_views_are_compared_in_their_own_order(motion, jigsaw, passes):
    method = ms2l(compare="views", projection=False, motion=motion, jigsaw=jigsaw)
    views = guises(method)
    encoded, contrasted = [], []
    encode, contrast = method._encode, method.contrast
    method._encode = lambda guises, lengths: encoded.append(guises) or encode(guises, lengths)
    method.contrast = lambda pooled: contrasted.append(pooled) or contrast(pooled)
    terms = method.loss(views)
    assert len(encoded[0]) == passes and {"motion", "jigsaw"} & set(terms) == {
        name for name, weight in (("motion", motion), ("jigsaw", jigsaw)) if weight
    }
    for found, (name, lengths) in zip(
        contrasted[0], (("original", "original"), ("moving", "moving"), ("straight", "shuffled")), strict=True
    ):
        expected = method.encoder(views[name], views[f"{lengths}_lengths"])
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
