"""The Markdown of `benchmarks.speed.gpu`: what was checked and measured, and the ratios beside their targets."""

from __future__ import annotations

from typing import Any

from benchmarks.speed.extract import BARE

WHOLE_TARGET, LIGHTLY_TARGET, EXTRACT_TARGET, LOAD_TARGET_MS = 0.9, 3.0, 0.95, 50.0
#: 200 epochs of CIFAR-10's 50,000 training images, minutes.
EPOCHS, IMAGES, TARGET_MINUTES = 200, 50_000, 6.0


def show(found: dict[str, Any]) -> str:
    """All tables."""
    lines = [f"# {found['device']}, torch {found['torch']}, commit {found['code_commit'][:12]}", ""]
    if found["tiny"]:
        lines += ["Small networks and short runs: these numbers show that the script works, and nothing else.", ""]
    lines += ["| check | measured | allowed | |", "|---|---:|---:|---|"]
    for check in found["checks"]:
        sign, word = ("<=" if check["at_most"] else ">="), ("passed" if check["passed"] else "FAILED")
        lines.append(f"| {check['name']} | {check['value']:.3g} | {sign} {check['allowed']:g} | {word} |")
    lines += ["", "| ceiling | |", "|---|---:|"]
    lines += [f"| {name} | {value:,.1f} |" for name, value in found["ceilings"].items()]
    for name, case in found["cases"].items():
        lines += ["", f"## SimCLR, {name}, batch {case['batch']}", "", "| | views/s | peak GiB |", "|---|---:|---:|"]
        lines += [_row(title, row) for title, row in case["rows"].items()]
        lines += [
            f"| augmentation alone, {title} | {rate:,.0f} | |"
            for title, rate in case["augmentation_views_per_s"].items()
        ]
        if not found["lightly"]:
            lines.append("| lightly | not installed: `pip install 'lightly>=1.5'` | |")
        lines += ["", "| extraction | images/s |", "|---|---:|"]
        lines += [f"| {title} | {rate:,.0f} |" for title, rate in case["extraction_images_per_s"].items()]
    lines += ["", "| ratio | measured | target | |", "|---|---:|---:|---|"]
    lines += [_target(*target, judge=not found["tiny"]) for target in targets(found)]
    return "\n".join(lines) + "\n"


def targets(found: dict[str, Any]) -> list[tuple[str, float, float, bool]]:
    """Title, measured, target, and whether more is better."""
    rows: list[tuple[str, float, float, bool]] = []
    for name, case in found["cases"].items():
        speed = {title: row["views_per_s"] for title, row in case["rows"].items() if "views_per_s" in row}
        whole = {title: rate for title, rate in speed.items() if title.startswith("whole step")}
        for title, rate in whole.items():
            model = speed[title.replace("whole step", "model only")]
            rows.append((f"{name}: {title} / model only", rate / model, WHOLE_TARGET, True))
        best = max(whole.values(), default=float("nan"))
        for title, rate in speed.items():
            if title.startswith("lightly"):
                rows.append((f"{name}: our best whole step / {title}", best / rate, LIGHTLY_TARGET, True))
        if name == "ResNet-18, 32 px" and whole:
            minutes = EPOCHS * IMAGES * 2 / best / 60
            rows.append((f"{name}: {EPOCHS} epochs of CIFAR-10 at this speed, minutes", minutes, TARGET_MINUTES, False))
        rates = case["extraction_images_per_s"]
        ratio = rates["stored pixels"] / rates[BARE]
        rows.append((f"{name}: extraction from stored pixels / bare forward", ratio, EXTRACT_TARGET, True))
    rows.append(("cached load, ms per 20 MB", found["load"]["ms_per_20_mb"], LOAD_TARGET_MS, False))
    return rows


def _row(title: str, row: dict[str, Any]) -> str:
    if "error" in row:
        return f"| {title} | {row['error']} | |"
    peak = "–" if row["peak_gib"] is None else f"{row['peak_gib']:.2f}"
    return f"| {title} | {row['views_per_s']:,.0f} | {peak} |"


def _target(title: str, value: float, target: float, more: bool, *, judge: bool) -> str:
    met = value >= target if more else value <= target
    verdict = ("met" if met else "MISSED") if judge else "not judged"
    return f"| {title} | {value:.2f} | {'>=' if more else '<='} {target:g} | {verdict} |"
