"""ConRec beside its released code as the method sheet states it: three arms, decoder, loss balance, whole runs."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.training.distributed_cases import TinyEncoder
from tests.training.test_loop import in_parts, same_state, tiny, trainer_for
from training.__main__ import main
from training.augment.corrupt import PRESETS as CORRUPTIONS
from training.augment.render import denormalised, normalise_
from training.losses import nt_xent, reconstruction
from training.methods import method_class
from training.methods.base import Context
from training.methods.conrec import ConRec
from training.modules.decoder import Decoder
from training.recipe import available_recipes, read_recipe
from zoo.architectures import build
from zoo.errors import ConfigError, InputError
from zoo.preprocessing.image import ImageInput
from zoo.strict import Architecture, validate

CONTEXT = Context(image_size=16, global_batch=6, total_steps=10, samples=60)
SIMCLR = {"reconstruction": 0.0, "corrupt": None}
ARMS = {"conrec": ({}, "attention"), "simclr_attention": (SIMCLR, "attention"), "simclr": (SIMCLR, "average")}


def conrec(pool="attention", input=None, **config) -> ConRec:
    torch.manual_seed(0)
    arguments = {"width": 8, "depth": 3, "pool": pool}
    encoder = build(Architecture(family="unet", arguments=arguments), input or ImageInput(size=(16, 16)))
    return ConRec(encoder, ConRec.Config(**config), CONTEXT)


def batch(n=6, side=20) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    return {"images": torch.randint(0, 256, (n, 3, side, side), generator=generator, dtype=torch.uint8)}


def views(method, seed=1):
    return method.views(batch(), torch.Generator().manual_seed(seed))


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_registered():
    assert method_class("conrec") is ConRec


def test_parameter_counts_of_the_paper():
    encoder = build(Architecture(family="unet"), ImageInput(size=(224, 224)))
    method = ConRec(encoder, ConRec.Config(), Context(224, 16, 10, 100))
    decoder = method.decoder
    assert [count(m) for m in (encoder.levels, decoder.skips, decoder.stages, decoder.output, encoder.pooling)] == [
        4_689_216, 87_360, 3_099_264, 195, 173_441,
    ]  # fmt: skip
    assert count(method.head) == 592_000 and count(method) == 8_641_476


# -- views -----------------------------------------------------------------------------------------


def test_all_arms_see_the_same_crops_and_only_conrec_corrupts_them():
    found = {name: views(conrec(pool, **config)) for name, (config, pool) in ARMS.items()}
    for side in "ab":
        for name in ("simclr", "simclr_attention"):
            assert torch.equal(found[name][f"x_{side}"], found["conrec"][f"y_{side}"])
        assert not torch.equal(found["conrec"][f"x_{side}"], found["conrec"][f"y_{side}"])
    assert not torch.equal(found["conrec"]["y_a"], found["conrec"]["y_b"])


def test_the_target_stays_in_range_when_the_encoder_wants_normalised_input():
    normal = ImageInput(size=(16, 16), mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))
    method, plain = conrec(input=normal), conrec()
    ours, theirs = views(method), views(plain)
    assert torch.equal(ours["y_a"], theirs["y_a"]) and ours["y_a"].min() >= 0 and ours["y_a"].max() <= 1
    torch.testing.assert_close(denormalised(ours["x_a"], method.normalisation), theirs["x_a"], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(normalise_(theirs["x_a"].clone(), method.normalisation), ours["x_a"])


def test_view_size_can_change_while_training():
    method = conrec()
    method.set_view_size(24)
    assert views(method)["x_a"].shape == (6, 3, 24, 24)
    method.loss(views(method))["loss"].backward()


# -- losses ----------------------------------------------------------------------------------------


def test_loss_is_the_sum_of_both_cross_entropies_and_a_hundred_times_the_error():
    method = conrec().eval()  # no dropout, so that a second forward gives the same
    x = views(method)
    terms = method.loss(x)
    both = torch.cat([x["x_a"], x["x_b"]])
    method.encoder.strict_input = False
    z = method.head(method.encoder(both))
    restored = method.decoder(method.encoder.maps(both), (16, 16))
    error = (restored - torch.cat([x["y_a"], x["y_b"]])).square().mean()
    # The released form: cross-entropy of a against [b, a] plus that of b against [a, b], each the mean over N.
    normal = F.normalize(z, dim=1)
    a, b = normal.chunk(2)
    masked = torch.eye(6) * 1e9
    labels = torch.arange(6)
    loss_a = F.cross_entropy(torch.cat([a @ b.T, a @ a.T - masked], 1) / 0.5, labels)
    loss_b = F.cross_entropy(torch.cat([b @ a.T, b @ b.T - masked], 1) / 0.5, labels)
    torch.testing.assert_close(terms["contrastive"], loss_a + loss_b)
    torch.testing.assert_close(terms["contrastive"], 2 * nt_xent(*z.chunk(2), 0.5))
    torch.testing.assert_close(terms["reconstruction"], error)
    torch.testing.assert_close(terms["loss"], loss_a + loss_b + 100 * error)
    mean = conrec(nt_xent="mean", contrastive=2.0, reconstruction=50.0).eval().loss(x)
    torch.testing.assert_close(mean["loss"], terms["loss"] - 50 * error)


def test_a_fresh_network_starts_where_the_balance_was_made_for():
    """About 2 ln 31 = 6.9 for 16 images, against an error of some 0.01 to 0.1 times 100."""
    method = conrec()
    images = torch.randint(0, 256, (16, 3, 20, 20), dtype=torch.uint8)
    terms = method.loss(method.views({"images": images}, torch.Generator().manual_seed(0)))
    assert abs(float(terms["contrastive"]) - 2 * math.log(31)) < 1.5
    assert 0.01 < float(terms["reconstruction"]) < 0.3


def test_reconstruction_errors():
    a, b = torch.tensor([[[[0.0, 3.0]]]]), torch.tensor([[[[1.0, 1.0]]]])
    assert reconstruction(a, b) == 2.5 and reconstruction(a, b, "huber") == (0.5 + 1.5) / 2
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert reconstruction(a.bfloat16(), b).dtype == torch.float32
    with pytest.raises(InputError, match="equal shapes"):
        reconstruction(a, b[..., :1])
    with pytest.raises(InputError, match="mse, huber"):
        reconstruction(a, b, "l1")


@pytest.mark.parametrize("arm", list(ARMS))
def test_every_parameter_of_an_arm_is_trained(arm):
    config, pool = ARMS[arm]
    method = conrec(pool, **config)
    assert hasattr(method, "decoder") == (arm == "conrec")
    titles = {"simclr": "SimCLR", "simclr_attention": "SimCLR with attention pooling", "conrec": "ConRec"}
    assert method.title == titles[arm]
    method.loss(views(method))["loss"].backward()
    assert all(p.grad is not None for p in method.parameters())


def test_without_skips_the_decoder_teaches_the_deepest_level():
    """With skips it may go around it: only the corruption keeps the task from being the identity."""
    method = conrec(skips=0)
    assert len(method.decoder.skips) == 0
    x = views(method)
    # Leaves of their own, as the deeper maps are made of the finer ones.
    maps = [m.detach().requires_grad_() for m in method.encoder.maps(torch.cat([x["x_a"], x["x_b"]]))]
    error = reconstruction(method.decoder(maps, (16, 16)), torch.cat([x["y_a"], x["y_b"]]))
    grads = torch.autograd.grad(error, maps, allow_unused=True)
    assert grads[-1].abs().max() > 0 and all(g is None for g in grads[:-1])
    full = conrec()
    grads = torch.autograd.grad(full.decoder(maps, (16, 16)).sum(), maps)
    assert all(g.abs().max() > 0 for g in grads)


@pytest.mark.parametrize(
    ("channels", "strides", "sides"), [([4, 8], [1, 2], [16, 8]), ([8, 16], [4, 8], [4, 2]), ([12], [16], [1])]
)
def test_decoder_reaches_the_image_from_any_pyramid(channels, strides, sides):
    decoder = Decoder(channels, strides)
    maps = [torch.rand(2, c, s, s) for c, s in zip(channels, sides, strict=True)]
    out = decoder(maps, (16, 16))
    assert out.shape == (2, 3, 16, 16) and out.min() >= 0 and out.max() <= 1


def test_a_scaled_decoder_is_narrower_and_its_default_is_the_released_one():
    released, half = conrec(), conrec(decoder_scale=0.5)
    stages = [
        [m.out_channels for m in d.modules() if isinstance(m, nn.Conv2d)] for d in (released.decoder, half.decoder)
    ]
    assert stages[1] == [c // 2 for c in stages[0][:-1]] + [3]
    assert half.restore(torch.rand(2, 3, 16, 16)).shape == (2, 3, 16, 16)
    half.loss(views(half))["loss"].backward()
    assert all(p.grad is not None for p in half.parameters())


def test_any_timm_backbone_with_maps():
    torch.manual_seed(0)
    arguments = {"model": "resnet10t", "model_args": {"channels": [8, 8, 16, 16], "stem_width": 8}}
    encoder = build(Architecture(family="timm_maps", arguments=arguments), ImageInput(size=(32, 32)))
    method = ConRec(encoder, ConRec.Config(), Context(32, 6, 10, 60))
    terms = method.loss(method.views(batch(), torch.Generator().manual_seed(0)))
    terms["loss"].backward()
    assert all(p.grad is not None for p in method.parameters())


def test_an_encoder_without_maps():
    with pytest.raises(ConfigError, match=r"encoder\.family 'unet', or 'timm_maps'"):
        ConRec(TinyEncoder(nn.BatchNorm2d), ConRec.Config(), Context(8, 6, 10, 60))
    method = ConRec(TinyEncoder(nn.BatchNorm2d), ConRec.Config(**SIMCLR), Context(8, 6, 10, 60))
    assert "reconstruction" not in method.loss(views(method))
    with pytest.raises(ConfigError, match="no decoder to restore with"):
        method.restore(torch.rand(2, 3, 8, 8))


def test_bfloat16_autocast_keeps_losses_in_float32():
    method = conrec()
    x = views(method)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        terms = method(x)
    terms["loss"].backward()
    assert all(t.dtype == torch.float32 for t in terms.values())
    assert all(torch.isfinite(p.grad).all() for p in method.parameters())


def test_training_restores_and_tells_apart():
    method = conrec(augment={"preset": "imagenet", "strength": 0.1, "greyscale_p": 0, "crop_scale": [0.6, 1.0]})
    optimizer = torch.optim.Adam(method.parameters(), lr=0.01)
    generator = torch.Generator().manual_seed(1)
    data = {"images": batch()["images"][:, :, :5, :5].repeat_interleave(4, 2).repeat_interleave(4, 3)}
    seen = []
    for _ in range(50):
        terms = method.loss(method.views(data, generator))
        optimizer.zero_grad()
        terms["loss"].backward()
        optimizer.step()
        seen.append((float(terms["contrastive"].detach()), float(terms["reconstruction"])))
    first, last = (torch.tensor(part).mean(0) for part in (seen[:5], seen[-5:]))
    assert last[0] < 0.8 * first[0] and last[1] < 0.6 * first[1]


# -- settings --------------------------------------------------------------------------------------


def test_settings_survive_the_run_folder():
    for config in (
        ConRec.Config(),
        ConRec.Config(**SIMCLR),
        ConRec.Config(corrupt={"preset": "grey", "curve_p": 0}, augment={"preset": "cifar"}),
    ):
        assert ConRec.Config.model_validate(config.model_dump(mode="json")) == config
    assert ConRec.Config(**SIMCLR).corrupt is None
    assert ConRec.Config(corrupt={"preset": "grey", "curve_p": 0}).corrupt.shuffle_p == 0.25
    assert ConRec.Config().corrupt == CORRUPTIONS["colour"]


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        ({"corrupt": "color"}, "unknown corruption preset 'color'; did you mean 'colour'"),
        ({"corrupt": {"inpaint": 1}}, "unknown key 'method.corrupt.inpaint'"),
        ({"corrupt": 3}, "takes a preset's name, settings or null, got 3"),
        ({"error": "l1"}, r"method\.error"),
        ({"skip": 1}, "did you mean 'skips'"),
    ],
)
def test_wrong_settings_are_explained(raw, said):
    with pytest.raises(ConfigError, match=said):
        validate(ConRec.Config, raw, "recipe", prefix="method")


# -- runs ------------------------------------------------------------------------------------------

ENCODER = {"family": "unet", "width": 8, "depth": 3}


@pytest.mark.parametrize("changes", [{}, {"accumulate": 2, "precision": "bf16"}])
def test_a_run_resumes_bit_for_bit(tmp_path, changes):
    recipe = tiny(method={"name": "conrec"}, encoder=ENCODER, log_every=1, epochs=2, monitor=None, **changes)
    whole = trainer_for(tmp_path / "whole", recipe)
    whole.run()
    second = in_parts(lambda: trainer_for(tmp_path / "parts", recipe), at=5)
    same_state(whole.state(), second.state())


@pytest.mark.parametrize("arm", ["conrec", "simclr"])
def test_a_run_ends_in_an_encoder_and_pictures(tmp_path, arm):
    import zoo

    changes = [] if arm == "conrec" else ["encoder.pool=average", "method.reconstruction=0", "method.corrupt=null"]
    run = tmp_path / "run"
    overrides = ["data=synthetic:shapes?n=120", "epochs=1", "encoder.width=8", "batch_size=16", *changes]
    command = ["smoke_conrec", *overrides, "--run", str(run), "--device", "cpu"]
    assert main(command) == 0
    encoder = zoo.load(f"local-dir:{run / 'encoder'}")
    assert encoder.config.method.title == ("ConRec" if arm == "conrec" else "SimCLR")
    assert not [key for key in encoder.state_dict() if "decoder" in key or "head" in key]
    drawn = {p.name for p in run.glob("*.png")} - {"curves.png"}
    assert drawn == ({"masks.png", "reconstructions.png"} if arm == "conrec" else set())


def test_a_stopped_run_can_be_exported_as_it_stands(tmp_path, capsys):
    import zoo

    run = tmp_path / "run"
    command = [
        "smoke_conrec",
        "data=synthetic:shapes?n=120",
        "epochs=2",
        "encoder.width=8",
        "batch_size=16",
        "monitor=null",
    ]
    command += ["--run", str(run), "--device", "cpu"]
    assert main([*command, "--export"]) == 1
    assert "holds no state yet; train first" in capsys.readouterr().err
    assert main([*command, "--minutes", "0"]) == 1 and not (run / "encoder").exists()
    assert main([*command, "--export"]) == 0
    trained = zoo.load(f"local-dir:{run / 'encoder'}").config.training
    assert trained.steps == 1 and trained.epochs < 1 and trained.recipe["epochs"] == 2
    assert main(command) == 0
    assert zoo.load(f"local-dir:{run / 'encoder'}").config.training.epochs == 2


def test_every_recipe_builds():
    names = [name for name in available_recipes() if "conrec" in name]
    assert names
    for name in names:
        recipe = read_recipe(name)
        encoder = build(recipe.architecture(), recipe.input)
        size = recipe.input.size[0]
        assert all(stage.size % encoder.stride == 0 for stage in recipe.view_sizes)
        ConRec(encoder, recipe.method_config(), Context(size, recipe.batch_size, 10, 100))
