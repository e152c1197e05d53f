"""Genotypes: which operations a searched cell is made of. Frozen, validated, versioned, plain JSON.

Two cell spaces: DARTS (Liu, Simonyan, Yang, 2019, arXiv 1806.09055) and NAS-Bench-201 (Dong, Yang, 2020,
arXiv 2001.00326). Nothing here is ever evaluated as code.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError, field_validator

from zoo.errors import ConfigError, nearest
from zoo.strict import Strict, first_problem, unique_keys
from zoo.text import quoted

#: The DARTS operations in the order of the architecture parameters.
DARTS_OPS = (
    "none",
    "max_pool_3x3",
    "avg_pool_3x3",
    "skip_connect",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "dil_conv_3x3",
    "dil_conv_5x5",
)
NB201_OPS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
#: Nodes of a DARTS cell; node i (0-based) may read the two cell inputs and the nodes before it.
NODES = 4
#: (to, from) of the six edges of a NAS-Bench-201 cell.
NB201_EDGES = ((1, 0), (2, 0), (2, 1), (3, 0), (3, 1), (3, 2))
MAX_TEXT = 1 << 14

Pair = tuple[str, Annotated[int, Field(ge=0, strict=True)]]
Provenance = Annotated[dict[str, str | int | float | bool | None], Field(max_length=32)]


class DartsGenotype(Strict):
    """A pair of DARTS cells.

    `normal`, `reduce`: eight `(operation, input)`, two per node in order; inputs 0 and 1 are the two cells
    before, 2.. the nodes. `normal_concat`, `reduce_concat`: the states whose channels make the output.
    `search`: where the genotype comes from (seed, loss, data, commit); it does not change the network.
    """

    format: Literal["darts-cell"] = "darts-cell"
    version: Literal[1] = 1
    normal: tuple[Pair, ...]
    normal_concat: tuple[int, ...] = (2, 3, 4, 5)
    reduce: tuple[Pair, ...]
    reduce_concat: tuple[int, ...] = (2, 3, 4, 5)
    search: Provenance = {}

    @field_validator("normal", "reduce")
    @classmethod
    def _cell(cls, pairs: tuple[Pair, ...]) -> tuple[Pair, ...]:
        if len(pairs) != 2 * NODES:
            raise ValueError(f"a cell lists {2 * NODES} (operation, input) pairs, two per node, got {len(pairs)}")
        for position, (op, source) in enumerate(pairs):
            node = position // 2
            if op not in DARTS_OPS:
                raise ValueError(f"pair {position}: unknown operation {quoted(op)}; {nearest(op, list(DARTS_OPS))}")
            if source >= node + 2:
                raise ValueError(f"pair {position}: node {node} reads inputs 0..{node + 1}, not {source}")
        for node in range(NODES):
            if pairs[2 * node][1] == pairs[2 * node + 1][1]:
                raise ValueError(f"node {node} reads input {pairs[2 * node][1]} twice; its two inputs must differ")
        return pairs

    @field_validator("normal_concat", "reduce_concat")
    @classmethod
    def _concat(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if not value or list(value) != sorted(set(value)) or not 2 <= value[0] <= value[-1] < NODES + 2:
            raise ValueError(f"concat lists states 2..{NODES + 1} in ascending order, each once, got {value}")
        return value

    def canonical(self) -> dict[str, Any]:
        """What decides the network: the two inputs of a node in ascending order, no provenance."""

        def cell(pairs: tuple[Pair, ...]) -> list[list[Any]]:
            ordered = (p for n in range(NODES) for p in sorted(pairs[2 * n : 2 * n + 2], key=lambda pair: pair[1]))
            return [list(p) for p in ordered]

        return {
            "format": self.format,
            "normal": cell(self.normal),
            "normal_concat": list(self.normal_concat),
            "reduce": cell(self.reduce),
            "reduce_concat": list(self.reduce_concat),
        }

    def text(self) -> str:
        """DARTS's printed form, which `parse_genotype` reads back."""
        parts = (f"{k}={v!r}" for k, v in self.canonical_order().items())
        return f"Genotype({', '.join(parts)})"

    def canonical_order(self) -> dict[str, list[Any]]:
        """The four fields as DARTS prints them."""
        return {
            "normal": list(self.normal),
            "normal_concat": list(self.normal_concat),
            "reduce": list(self.reduce),
            "reduce_concat": list(self.reduce_concat),
        }


class NB201Genotype(Strict):
    """A NAS-Bench-201 cell: one operation per edge, in the order of `NB201_EDGES`; `search` as in DARTS's."""

    format: Literal["nas-bench-201-cell"] = "nas-bench-201-cell"
    version: Literal[1] = 1
    edges: tuple[str, ...]
    search: Provenance = {}

    @field_validator("edges")
    @classmethod
    def _edges(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(value) != len(NB201_EDGES):
            raise ValueError(f"a cell has {len(NB201_EDGES)} edges, got {len(value)}")
        for op in value:
            if op not in NB201_OPS:
                raise ValueError(f"unknown operation {quoted(op)}; {nearest(op, list(NB201_OPS))}")
        return value

    def canonical(self) -> dict[str, Any]:
        """What decides the network."""
        return {"format": self.format, "edges": list(self.edges)}

    def text(self) -> str:
        """The benchmark's string, such as `|nor_conv_3x3~0|+|...|`."""
        nodes = ("".join(f"{op}~{j}|" for op, (i, j) in zip(self.edges, NB201_EDGES, strict=True) if i == node)
                 for node in (1, 2, 3))  # fmt: skip
        return "+".join("|" + node for node in nodes)


Genotype = Annotated[DartsGenotype | NB201Genotype, Field(discriminator="format")]
_ADAPTER: TypeAdapter[DartsGenotype | NB201Genotype] = TypeAdapter(Genotype)


def parse_genotype(value: Any) -> DartsGenotype | NB201Genotype:
    """A genotype from any form that people have.

    Args:
        value: a genotype; the mapping that its JSON holds, or that JSON as text; DARTS's printed
            `Genotype(normal=[...], ...)`; a NAS-Bench-201 string `|op~0|+|op~0|op~1|+...`; or a name of
            `PUBLISHED`.

    Raises:
        ConfigError: none of these, an unknown operation, an impossible edge, a newer version.
    """
    if isinstance(value, DartsGenotype | NB201Genotype):
        return value
    if isinstance(value, str):
        value = _from_text(value.strip())
    if not isinstance(value, dict):
        raise ConfigError(f"a genotype is a mapping, a name or a printed genotype, got {type(value).__name__}")
    known = [f.model_fields["format"].default for f in (DartsGenotype, NB201Genotype)]
    if value.get("format") not in known:
        raise ConfigError(
            f"genotype: format must be {' or '.join(map(repr, known))}, got {quoted(value.get('format'))}"
        )
    version = value.get("version", 1)
    if type(version) is int and version > 1:
        raise ConfigError(f"genotype: version {version} is newer than this zoo reads (1); pip install -U encoder-zoo")
    try:
        return _ADAPTER.validate_python(value)
    except ValidationError as error:
        raise ConfigError(f"genotype: {first_problem(error)}") from None


def to_json(genotype: DartsGenotype | NB201Genotype) -> str:
    """The text of a genotype file."""
    return json.dumps(genotype.model_dump(mode="json"), indent=1) + "\n"


def genotype_hash(genotype: DartsGenotype | NB201Genotype) -> str:
    """Twelve hex digits, equal for genotypes that build the same network from the same lists of edges."""
    return hashlib.sha256(json.dumps(genotype.canonical(), sort_keys=True).encode()).hexdigest()[:12]


def _from_text(text: str) -> dict[str, Any]:
    if len(text) > MAX_TEXT:
        raise ConfigError(f"a genotype's text has at most {MAX_TEXT} characters, got {len(text)}")
    if text.startswith("{"):
        try:
            return json.loads(text, object_pairs_hook=unique_keys)
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"genotype: not valid JSON ({error})") from None
    if text.startswith("|"):
        return _from_nb201(text)
    if text.startswith("Genotype"):
        return _from_printed(text)
    if text in PUBLISHED:
        return PUBLISHED[text].model_dump()
    raise ConfigError(
        f"unknown genotype {text[:60]!r}; {nearest(text, list(PUBLISHED))} (or JSON, DARTS's printed "
        "Genotype(...), or a NAS-Bench-201 string)"
    )


def _from_nb201(text: str) -> dict[str, Any]:
    op = r"([a-z0-9_]+)"
    shape = rf"\|{op}~0\|\+\|{op}~0\|{op}~1\|\+\|{op}~0\|{op}~1\|{op}~2\|"
    found = re.fullmatch(shape, text, re.ASCII)
    if found is None:
        raise ConfigError(f"{text[:80]!r} is no NAS-Bench-201 cell; expected |op~0|+|op~0|op~1|+|op~0|op~1|op~2|")
    return {"format": "nas-bench-201-cell", "edges": found.groups()}


_PAIR = r"\(\s*(?:'[a-z0-9_]+'|\"[a-z0-9_]+\")\s*,\s*\d+\s*\)"
_LISTS = {
    "normal": rf"\[\s*{_PAIR}(?:\s*,\s*{_PAIR})*\s*,?\s*\]",
    "normal_concat": r"(?:range\(\s*\d+\s*,\s*\d+\s*\)|\[\s*\d+(?:\s*,\s*\d+)*\s*,?\s*\])",
}
_LISTS |= {"reduce": _LISTS["normal"], "reduce_concat": _LISTS["normal_concat"]}


def _from_printed(text: str) -> dict[str, Any]:
    """DARTS's `Genotype(...)` by a strict grammar: four lists by name, nothing else."""
    body = re.fullmatch(r"Genotype\(\s*(.*?)\s*,?\s*\)", text, re.DOTALL | re.ASCII)
    rest, found = (body.group(1) if body else ""), {}
    while rest:
        head = re.match(r"([a-z_]+)\s*=\s*", rest)
        key = head.group(1) if head else ""
        value = re.match(_LISTS[key], rest[head.end() :], re.ASCII) if head and key in _LISTS else None
        if head is None or value is None or key in found:
            break
        found[key] = value.group(0)
        rest = rest[head.end() + value.end() :]
        comma = re.match(r"\s*,\s*", rest)
        if rest and comma is None:
            break
        rest = rest[comma.end() :] if comma else rest
    if rest or not {"normal", "reduce"} <= set(found):
        where = f" near {rest[:40]!r}" if rest else ""
        raise ConfigError(
            f"not a printed DARTS genotype{where}; expected Genotype(normal=[('op', 0), ...], "
            "normal_concat=[2, 3, 4, 5], reduce=[...], reduce_concat=[...])"
        )
    made: dict[str, Any] = {"format": "darts-cell"}
    for key, value in found.items():
        if key.endswith("concat"):
            numbers = [int(n) for n in re.findall(r"\d{1,3}", value)]
            made[key] = tuple(range(*numbers)) if value.startswith("range") else tuple(numbers)
        else:
            made[key] = [
                (op, int(i)) for op, i in re.findall(r"\(\s*['\"]([a-z0-9_]+)['\"]\s*,\s*(\d{1,3})\s*\)", value)
            ]
    return made


def _darts(normal: str, reduce: str) -> DartsGenotype:
    return DartsGenotype(normal=_short(normal), reduce=_short(reduce))


def _short(text: str) -> tuple[Pair, ...]:
    names = {"sep3": "sep_conv_3x3", "skip": "skip_connect", "dil3": "dil_conv_3x3", "max": "max_pool_3x3"}
    names |= {"avg": "avg_pool_3x3"}
    return tuple((names[word[:-1]], int(word[-1])) for word in text.split())


#: Genotypes that have a name of their own.
PUBLISHED: dict[str, DartsGenotype | NB201Genotype] = {
    "darts_v1": _darts("sep31 sep30 skip0 sep31 skip0 sep31 sep30 skip2", "max0 max1 skip2 max0 max0 skip2 skip2 avg0"),
    "darts_v2": _darts("sep30 sep31 sep30 sep31 sep31 skip0 skip0 dil32", "max0 max1 skip2 max1 max0 skip2 skip2 max1"),
    "nb201_all_conv3x3": NB201Genotype(edges=("nor_conv_3x3",) * 6),
}
