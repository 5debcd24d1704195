"""How the lessons keep their pictures: as files, and in a notebook under their cell, once."""

import importlib
import sys
import types
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread

LEARN = Path(__file__).parents[1] / "examples" / "learn"


@pytest.fixture
def showing(monkeypatch, tmp_path):
    """The module, called by a script whose argument is a new folder; no IPython."""
    monkeypatch.syspath_prepend(LEARN)
    monkeypatch.setattr(sys, "argv", ["lesson.py", str(tmp_path)])
    monkeypatch.delitem(sys.modules, "IPython", raising=False)
    return importlib.import_module("showing")


@pytest.fixture
def shown(monkeypatch):
    """A stand-in for IPython in a notebook, and the names of the files that it was asked to show."""
    names = []
    display = types.SimpleNamespace(Image=lambda filename: Path(filename).name, display=names.append)
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: "a shell", display=display))
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    return names


def test_a_picture_is_saved_in_the_folder_that_is_given(showing, tmp_path):
    showing.keep(Figure(figsize=(2, 1)), "01_lesson")
    assert [path.name for path in tmp_path.iterdir()] == ["01_lesson.png"]
    assert imread(tmp_path / "01_lesson.png").shape[:2] == (100, 200)


@pytest.mark.parametrize("argv", [[], ["no such folder"], ["-f", "kernel.json"]])
def test_by_default_it_is_saved_beside_the_lessons(showing, tmp_path, monkeypatch, argv):
    monkeypatch.setattr(showing, "HERE", tmp_path)
    monkeypatch.setattr(sys, "argv", ["lesson.py", *argv])
    showing.keep(Figure(figsize=(2, 1)), "02_lesson")
    assert (tmp_path / "02_lesson.png").exists()


def test_a_notebook_shows_what_pyplot_would_not(showing, shown):
    showing.keep(Figure(figsize=(2, 1)), "10_lesson")
    assert shown == ["10_lesson.png"]


def test_a_notebook_shows_figures_of_pyplot_by_itself(showing, shown):
    class Numbered(Figure):
        number = 1  # as those of pyplot

    showing.keep(Numbered(figsize=(2, 1)), "01_lesson")
    assert shown == []


def test_nothing_is_shown_where_ipython_is_installed_but_not_running(showing, shown, monkeypatch):
    monkeypatch.setattr(sys.modules["IPython"], "get_ipython", lambda: None)
    showing.keep(Figure(figsize=(2, 1)), "10_lesson")
    assert shown == []
