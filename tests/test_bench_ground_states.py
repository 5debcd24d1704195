"""The benchmark of ground states: a row is trained and measured, goes on where it was stopped, and stands in the table."""

import importlib
import json
import sys
from pathlib import Path

import pytest


@pytest.fixture
def bench(monkeypatch, tmp_path):
    """The script with one row that takes no time, and results and checkpoints of its own."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    script = importlib.import_module("ground_states")
    options = {"dt": 0.1, "n_steps": 4, "n_walkers": 8, "hidden": (4,), "backend": "numpy"}
    row = script.Row("two oscillators", "coupled", {}, 3, 1e-2, (0.2, 0.1), 1.0, 30, options)
    monkeypatch.setattr(script, "ROWS", {"row": row})
    monkeypatch.setattr(script, "STEPS_PER_EPOCH", 2)
    monkeypatch.setattr(script, "FILE", tmp_path / "ground_states.json")
    monkeypatch.setattr(script, "PICTURE", tmp_path / "ground_states.png")
    monkeypatch.chdir(tmp_path)
    return script


def run(script, monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["ground_states.py", *arguments])
    script.main()


def test_a_row_is_trained_measured_and_written(bench, monkeypatch, capsys):
    run(bench, monkeypatch, "--only", "row", "--workers", "1")
    row = json.loads(bench.FILE.read_text())["rows"]["row"]
    assert bench.PICTURE.exists()
    assert [line[0] for line in row["way"]] == [4]  # the mean of steps 2, 4 and 6
    assert row["exact"] == pytest.approx((1 + 5**0.5) / 2)
    assert abs(row["energy"] - row["exact"]) < 8 * row["error"]
    assert set(row["at"]) == {"0.2", "0.1"}
    capsys.readouterr()
    run(bench, monkeypatch, "--markdown")
    header, _, line = capsys.readouterr().out.strip().splitlines()
    assert header.startswith("| system | exact | paper | npvae |")
    assert line.startswith("| two oscillators | 1.61803 | – | ")
    assert line.count("|") == header.count("|")


def test_a_row_that_was_stopped_goes_on_at_its_last_epoch(bench, monkeypatch):
    whole = bench.ROWS["row"]
    monkeypatch.setattr(bench, "ROWS", {"row": whole._replace(epochs=1)})
    run(bench, monkeypatch, "--only", "row", "--workers", "1")
    monkeypatch.setattr(bench, "ROWS", {"row": whole})
    run(bench, monkeypatch, "--only", "row", "--workers", "1")
    row = json.loads(bench.FILE.read_text())["rows"]["row"]
    assert [line[0] for line in row["way"]] == [4]  # the mean of steps 2, 4 and 6
