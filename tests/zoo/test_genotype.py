"""Genotypes: every form is read without being evaluated, and nothing malformed passes."""

from __future__ import annotations

import json

import pytest

from zoo.architectures.genotype import (
    NB201_EDGES,
    NB201_OPS,
    PUBLISHED,
    NB201Genotype,
    genotype_hash,
    parse_genotype,
    to_json,
)
from zoo.errors import ConfigError

V2 = PUBLISHED["darts_v2"]
PRINTED = V2.text()


@pytest.mark.parametrize("genotype", PUBLISHED.values(), ids=PUBLISHED)
def test_every_form_comes_back(genotype):
    for form in (genotype, genotype.model_dump(), genotype.model_dump(mode="json"), to_json(genotype), genotype.text()):
        assert parse_genotype(form) == genotype
    with pytest.raises(ValueError, match="frozen"):
        genotype.version = 2


def test_printed_forms_that_people_have():
    """A `range` for the concat, double quotes, line breaks, another order of the fields, a trailing comma."""
    variants = [
        PRINTED.replace("[2, 3, 4, 5]", "range(2, 6)"),
        PRINTED.replace("'", '"'),
        PRINTED.replace("), (", "),\n   ("),
        f"Genotype(reduce={list(V2.reduce)!r}, normal={list(V2.normal)!r})",
        PRINTED[:-1] + ",)",
    ]
    for text in variants:
        assert parse_genotype(text) == V2
    other = parse_genotype(PRINTED.replace("normal_concat=[2, 3, 4, 5]", "normal_concat=[2, 4, 5]"))
    assert other.normal_concat == (2, 4, 5) and other.reduce_concat == (2, 3, 4, 5)


@pytest.mark.parametrize(
    "text",
    [
        "Genotype(normal=__import__('os').system('true'), reduce=[])",
        PRINTED + "; import os",
        PRINTED.replace("reduce=", "normal=", 1),
        PRINTED.replace("normal=[", "normal=[('skip_connect', 0)] + ["),
        PRINTED.replace("reduce=", "lambda=", 1),
        PRINTED[:-20],
        "Genotype()",
        PRINTED.replace("('skip_connect', 0)", "('skip_connect', -1)", 1),
        PRINTED.replace("('skip_connect', 0)", "('skip_connect', True)", 1),
        PRINTED.replace("'skip_connect'", "'skip' 'connect'"),
    ],
)
def test_printed_text_is_never_evaluated(text):
    with pytest.raises(ConfigError, match="not a printed DARTS genotype"):
        parse_genotype(text)


def changed(**fields):
    return {**V2.model_dump(mode="json"), **fields}


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (changed(normal=[["sep_conv_9x9", 0], *list(V2.normal)[1:]]), "unknown operation 'sep_conv_9x9'; did you mean"),
        (changed(normal=[["none", 2], *list(V2.normal)[1:]]), r"node 0 reads inputs 0\.\.1, not 2"),
        (changed(normal=list(V2.normal)[:7]), "8 .operation, input. pairs, two per node, got 7"),
        (changed(normal=[["none", 1], ["none", 1], *list(V2.normal)[2:]]), "node 0 reads input 1 twice"),
        (changed(normal=[["none", True], *list(V2.normal)[1:]]), "valid integer"),
        (changed(normal=[["none", 0, 1], *list(V2.normal)[1:]]), "genotype"),
        (changed(reduce_concat=[]), "ascending order"),
        (changed(normal_concat=[5, 2]), "ascending order"),
        (changed(normal_concat=[2, 6]), "ascending order"),
        (changed(version=2), "version 2 is newer"),
        (changed(version="1"), "version"),
        (changed(format="enas"), "format must be 'darts-cell' or 'nas-bench-201-cell', got 'enas'"),
        (changed(nodes=4), "nodes"),
        (changed(search={"loss": [1]}), "search"),
        ({}, "format must be"),
        (7, "got int"),
        ("pc_darts", "unknown genotype 'pc_darts'"),
        ("{'format': 1}", "not valid JSON"),
        ('{"format": "darts-cell", "format": "darts-cell"}', "occurs twice"),
        ("|nor_conv_3x3~0|+|nor_conv_3x3~0|", "no NAS-Bench-201 cell"),
        ("|nor_conv_7x7~0|+|none~0|none~1|+|none~0|none~1|none~2|", "unknown operation 'nor_conv_7x7'"),
        ("|" + "none~0|none~0|" * 2000, "at most 16384 characters"),
        ({"format": "nas-bench-201-cell", "edges": ["none"] * 5}, "6 edges, got 5"),
        ({"format": "nas-bench-201-cell", "edges": "none"}, "edges"),
    ],
)
def test_malformed_genotypes_are_refused(value, said):
    with pytest.raises(ConfigError, match=said) as caught:
        parse_genotype(value)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500


def test_nb201_string_is_the_benchmarks():
    text = "|avg_pool_3x3~0|+|nor_conv_1x1~0|skip_connect~1|+|none~0|skip_connect~1|nor_conv_3x3~2|"
    genotype = parse_genotype(text)
    assert dict(zip(NB201_EDGES, genotype.edges, strict=True))[(2, 0)] == "nor_conv_1x1"
    assert dict(zip(NB201_EDGES, genotype.edges, strict=True))[(3, 2)] == "nor_conv_3x3"
    assert genotype.text() == text and set(genotype.edges) <= set(NB201_OPS)


def test_hash_tells_networks_apart_and_ignores_provenance():
    first, second, *rest = V2.normal
    swapped = changed(normal=[second, first, *rest], search={"seed": 3})
    assert genotype_hash(parse_genotype(swapped)) == genotype_hash(V2)
    assert genotype_hash(PUBLISHED["darts_v1"]) != genotype_hash(V2)
    assert genotype_hash(NB201Genotype(edges=("none",) * 6)) != genotype_hash(PUBLISHED["nb201_all_conv3x3"])
    assert json.loads(to_json(parse_genotype(swapped)))["search"] == {"seed": 3}
