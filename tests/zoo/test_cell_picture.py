"""The picture of a cell: every edge drawn once, in bounds, and shown by the cards of searched networks."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from zoo.architectures.cell_picture import cell_svg
from zoo.architectures.genotype import DARTS_OPS, NB201_OPS, DartsGenotype, NB201Genotype, parse_genotype
from zoo.checkpoint import catalog
from zoo.publish.card import card_pictures, render_card
from zoo.publish.check import verify
from zoo.publish.contents import checkpoint_files

SVG = "{http://www.w3.org/2000/svg}"


def texts(svg: str) -> list[str]:
    return [t.text or "" for t in ElementTree.fromstring(svg).iter(f"{SVG}text")]


@pytest.mark.parametrize(
    ("name", "arrows", "labels"),
    [("nb201_all_conv3x3", 6, ["conv 3x3"] * 6), ("darts_v2", 2 * 12, None), ("darts_v1", 2 * 12, None)],
)
def test_every_edge_is_drawn_once(name, arrows, labels):
    genotype = parse_genotype(name)
    svg = cell_svg(genotype, "a <title> & more")
    found = texts(svg)
    assert len(list(ElementTree.fromstring(svg).iter(f"{SVG}path"))) == arrows and found[0] == "a <title> & more"
    if labels:
        assert [t for t in found if "conv" in t] == labels
    else:
        ops = [op for op, _ in (*genotype.normal, *genotype.reduce)]
        assert sum(t == "skip" for t in found) == ops.count("skip_connect")
        assert sum(t == "sep 3x3" for t in found) == ops.count("sep_conv_3x3")
        assert "normal cell" in found and "reduction cell" in found
    assert len(svg) < 20_000


@pytest.mark.parametrize("op", [*DARTS_OPS, *NB201_OPS])
def test_every_operation_has_a_look_within_the_picture(op):
    if op in NB201_OPS:
        svg = cell_svg(NB201Genotype(edges=(op,) * 6))
    else:
        pairs = tuple((op, source) for _ in range(4) for source in (0, 1))
        svg = cell_svg(DartsGenotype(normal=pairs, reduce=pairs, normal_concat=(4, 5)))
    root = ElementTree.fromstring(svg)
    width, height = float(root.get("width")), float(root.get("height"))
    for path in root.iter(f"{SVG}path"):
        numbers = [float(n) for n in re.findall(r"-?\d+\.?\d*", path.get("d"))]
        assert all(0 <= x <= width for x in numbers[::2]) and all(-20 <= y <= height for y in numbers[1::2])
    assert len([t for t in texts(svg) if op.split("_")[-1] in t or op[:4] in t]) >= 6
    assert ("stroke-dasharray" in svg) == (op == "none")


def test_cards_of_searched_networks_show_the_cell():
    config = catalog.config("ssnas_cell_cifar10")
    pictures = card_pictures(config)
    assert list(pictures) == ["ssnas_cell_cifar10_cell.svg"]
    assert "(ssnas_cell_cifar10_cell.svg)" in render_card(config, catalog.results(config.name))
    assert card_pictures(catalog.config("simclr_airbench95_cifar10")) == {}
    _, content = checkpoint_files(catalog.find("ssnas_cell_cifar10"))
    assert content["ssnas_cell_cifar10_cell.svg"].decode() == pictures["ssnas_cell_cifar10_cell.svg"]


def test_a_missing_picture_is_a_stale_card(tmp_path, monkeypatch):
    name = "ssnas_cell_cifar10"
    monkeypatch.setattr("zoo.publish.check.CARDS", tmp_path)
    config, results = catalog.config(name), catalog.results(name)
    (tmp_path / f"{name}.md").write_text(render_card(config, results))
    pictures = card_pictures(config, results)
    (tmp_path / f"{name}_results.svg").write_text(pictures[f"{name}_results.svg"])
    (failed,) = [check.text for check in verify(name) if not check.ok]
    assert f"the picture {name}_cell.svg of the model card is missing" in failed
    (tmp_path / f"{name}_cell.svg").write_text(pictures[f"{name}_cell.svg"])
    assert all(check.ok for check in verify(name))
