"""The example of a ground state by paths: it prints three energies with their errors, and draws what it says."""

import functools
import importlib
import re
import sys
from pathlib import Path

import pytest

from npvae.app import drift_pictures
from npvae.models import Drift


@pytest.fixture
def example(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "examples"))
    monkeypatch.setattr(drift_pictures, "N_WALKERS", 40)
    script = importlib.import_module("path_integral")
    monkeypatch.setattr(script, "STEPS_PER_EPOCH", 1)
    return script


def test_the_energies_of_a_new_drift_and_the_way_there(example, capsys):
    """Of the coupled oscillators the energy that is known before, by E_b = ½ k (x_1 − x_2)² + ω, is ω + ½ k/ω = 2."""
    model, way = example.train("coupled", {}, 3, dt=0.1, n_walkers=8, n_steps=4, hidden=(4,), backend="numpy")
    assert way[:, 0].tolist() == [1, 2, 3]
    model.theta = 0
    example.report(model, n_walkers=500)
    printed = re.findall(r"^(\w+) +([\d.]+) ± ([\d.]+)$", capsys.readouterr().out, re.MULTILINE)
    assert [name for name, *_ in printed] == ["bound", "local", "rayleigh"]
    for _, value, error in printed:
        assert abs(float(value) - 2) < 5 * float(error) < 0.5
    figure = example.draw(model, way)
    titles = [axes.get_title() for part in figure.subfigs for axes in part.axes]
    assert sum("variance" in title for title in titles) == 1


def test_the_script_writes_its_picture(example, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(example, "MEASURED", 0.2)
    monkeypatch.setattr(example, "Drift", functools.partial(Drift, n_walkers=8, n_steps=4, backend="numpy"))
    picture = tmp_path / "path_integral.png"
    monkeypatch.setattr(sys, "argv", ["path_integral.py", "--system", "quartic", "--steps", "1", "--out", str(picture)])
    example.main()
    assert picture.exists()
    assert "exact: 0.667986259" in capsys.readouterr().out
