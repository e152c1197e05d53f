"""The curve over shares of labels: measured once, floors beside it."""

from __future__ import annotations

from benchmarks.claims import label_fractions
from tests.data_fixtures import make_folder


def test_curve_is_measured_once_with_its_floor(tmp_path, capsys, monkeypatch):
    data = make_folder(tmp_path / "data", per_class=20)
    name = "ssnas_cell_cifar10"
    command = [
        str(data),
        "--encoders",
        name,
        "--floors",
        name,
        "--amounts",
        "0.25",
        "0.5",
        "--out",
        str(tmp_path / "o"),
    ]
    assert label_fractions.main(command) == 0
    printed = capsys.readouterr().out
    assert f"| labels | {name} | {name}, untrained |" in printed
    assert [line.split(" | ")[0] for line in printed.splitlines()[2:]] == ["| 25 %", "| 50 %", "| 100 %"]
    monkeypatch.setattr(label_fractions, "evaluate", None)
    assert label_fractions.main(command) == 0 and capsys.readouterr().out == printed
    assert label_fractions.main([str(data), "--encoders", "ssnas_cell", "--out", str(tmp_path / "p")]) == 2
    assert "did you mean" in capsys.readouterr().err
