"""The curves of a run: whole epochs across, fractions in per cent."""

from __future__ import annotations

import matplotlib.pyplot as plt

from training.pictures import draw_curves


def test_curves_show_whole_epochs_and_per_cent(tmp_path, monkeypatch):
    kept = []
    monkeypatch.setattr(plt, "close", kept.append)
    records = [
        {"step": s, "epoch": s / 20, "loss": 5 - s / 40, "held_out_knn": 0.3 + s / 200, "accuracy": 0.5, "lr": 0.1}
        for s in range(1, 61)
    ]
    draw_curves(records, tmp_path / "curves.png", "three epochs")
    panels = {axis.get_title(): axis for axis in kept[0].axes}
    assert list(panels) == ["loss", "held out knn, %", "lr", "accuracy, %"]
    for axis in panels.values():
        low, high = axis.get_xlim()
        ticks = [tick for tick in axis.get_xticks() if low <= tick <= high]
        assert ticks and all(tick == int(tick) for tick in ticks)
    assert max(panels["held out knn, %"].lines[0].get_ydata()) == 60
    assert max(panels["loss"].lines[0].get_ydata()) < 5
    assert (tmp_path / "curves.png").stat().st_size > 1000
