"""What is published of a checkpoint: its files, the card as README.md, the numbers in the Hub's own form."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from zoo.checkpoint.config import CheckpointConfig, parse_config
from zoo.checkpoint.reference import FILE as REFERENCE
from zoo.checkpoint.results import Results, parse_results
from zoo.checkpoint.sources import open_folder
from zoo.errors import CheckpointError
from zoo.publish.card import card_pictures, render_card
from zoo.publish.check import verify

#: dataset name in results.json -> its id on the Hub, where `.eval_results` entries point.
HUB_DATASETS = {"cifar10": "uoft-cs/cifar10", "cifar100": "uoft-cs/cifar100"}
EVAL_RESULTS = ".eval_results/"


def checkpoint_files(folder: str | Path) -> tuple[CheckpointConfig, dict[str, bytes]]:
    """What is published of a checkpoint folder: path in the repository -> content, the card as README.md.

    Raises:
        CheckpointError, ConfigError: the folder does not hold what it promises.
    """
    source = open_folder(Path(folder))
    config = parse_config(source.config, source.label)
    failed = [check.text for check in verify(source, need_results=False) if not check.ok]
    if failed:
        raise CheckpointError(f"{folder} is not ready to be published: {failed[0]}")
    content = {"config.json": source.config}
    results: Results | None = None
    for name in ("results.json", REFERENCE):
        text = source.extra(name)
        if text is not None:
            content[name] = text
    if "results.json" in content:
        results = parse_results(content["results.json"], str(folder))
    content["README.md"] = render_card(config, results).encode()
    content |= {name: picture.encode() for name, picture in card_pictures(config, results).items()}
    content |= {name: text.encode() for name, text in eval_result_files(results).items()}
    content[config.weights.file] = source.weights(config.weights).read_bytes()
    return config, content


def eval_result_files(results: Results | None) -> dict[str, str]:
    """The encoder's own numbers as `.eval_results/*.yaml`, one file per dataset, protocol and seed.

    Only datasets that the Hub has can be pointed at; the card's model-index has the main metric of every row.
    Format: https://huggingface.co/docs/hub/eval-results
    """
    import yaml

    found: dict[str, list[dict[str, Any]]] = {}
    for row in results.rows if results else ():
        dataset = HUB_DATASETS.get(row.test.name.lower())
        if row.subject != "encoder" or dataset is None:
            continue
        notes = (
            f"{row.protocol}, split {row.test.split}, {row.test.samples} test samples, seed {row.seed}; "
            f"measured on a copy with content fingerprint {row.test.fingerprint[:16]}"
        )
        path = re.sub(r"[^\w.-]", "-", f"{row.test.name.lower()}_{row.protocol}_seed{row.seed}")
        entries = found.setdefault(f"{EVAL_RESULTS}{path}.yaml", [])
        for metric, value in row.metrics.items():
            entries.append(
                {"dataset": {"id": dataset, "task_id": metric}, "value": value.value}
                | {"notes": f"{notes}; 95 % interval {value.low:.4f} to {value.high:.4f}"}
            )
    return {path: yaml.safe_dump(entries, sort_keys=False) for path, entries in found.items()}
