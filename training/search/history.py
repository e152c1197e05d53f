"""What a search leaves in its run folder: a line and a picture for each epoch, and at the end the genotype."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from training.environment import code_commit
from training.methods.base import Run
from zoo.architectures.cell_picture import cell_svg
from zoo.architectures.genotype import DartsGenotype, NB201Genotype, genotype_hash, parse_genotype, to_json
from zoo.files import write_text

GENOTYPE, HISTORY, PICTURE, PICTURES = "genotype.json", "genotypes.jsonl", "cell.svg", "cells"


def read_history(folder: Path) -> list[dict[str, Any]]:
    """The records of `genotypes.jsonl`; empty when there is none."""
    path = folder / HISTORY
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def write_epoch(folder: Path, epoch: int, genotype: DartsGenotype | NB201Genotype, facts: dict[str, Any]) -> None:
    """Add one epoch's genotype and `facts`, among them `skips`, to `genotypes.jsonl`, and draw the cell.

    Records of this epoch and later ones, which a killed run left, are replaced.
    """
    record = {"epoch": epoch, "genotype": genotype.text(), "hash": genotype_hash(genotype), **facts}
    kept = [r for r in read_history(folder) if r["epoch"] < epoch]
    write_text(folder / HISTORY, "".join(json.dumps(r) + "\n" for r in [*kept, record]))
    picture = folder / PICTURES / f"epoch_{epoch:03d}.svg"
    picture.parent.mkdir(exist_ok=True)
    write_text(picture, cell_svg(genotype, f"epoch {epoch}: {facts['skips']} skips"))


def write_found(run: Run, genotype: DartsGenotype | NB201Genotype, facts: dict[str, Any]) -> Path:
    """Write `genotype.json`, with where it comes from and `facts` of the method, and `cell.svg`; returns the first."""
    recipe, dataset = run.recipe, run.data.dataset
    search = {
        "method": recipe.method["name"],
        "data": dataset.name,
        "fingerprint": dataset.fingerprint,
        "samples": len(run.data.train),
        "seed": recipe.seed,
        "epochs": run.step / run.steps_per_epoch,
        "steps": run.step,
        "code_commit": code_commit(),
        **facts,
    }
    found = parse_genotype({**genotype.model_dump(mode="json"), "search": search})
    folder = run.folder.path
    write_text(folder / PICTURE, cell_svg(found, f"{recipe.name}, {genotype_hash(found)}"))
    write_text(folder / GENOTYPE, to_json(found))
    return folder / GENOTYPE
