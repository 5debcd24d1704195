"""The pictures of a run on the disk: one that cannot be drawn is told, and the others are there."""

import sys
from pathlib import Path

import mean_field
import numpy as np
import pytest
from conftest import PICTURES, SMALL

from npvae.app import cli, pictures, plots

pytestmark = pytest.mark.usefixtures("small_world")


def trained(capsys):
    """The report and the warnings of `npvae train`, which ends well; run/ has its results and no picture that is not told."""
    assert cli.main(["train", *SMALL, "--out", "run"]) == 0
    out, err = capsys.readouterr()
    assert "next: npvae evaluate run" in out
    assert Path("run/checkpoint.npz").is_file()
    assert sorted(line.split()[0] for line in out.splitlines() if ".png " in line) == names()
    return out, err.splitlines()


def names():
    return sorted(path.name for path in Path("run").glob("*.png"))


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_that_cannot_be_saved_is_a_warning_and_the_others_are_drawn(name, monkeypatch, capsys):
    def save(figure, path):
        path.write_bytes(b"half")
        if path.name == name:
            raise RuntimeError("Failed to process string with tex\nbecause latex could not be found")

    monkeypatch.setattr(plots, "save", save)
    _, err = trained(capsys)
    assert err == [f"npvae: warning: the picture run/{name} could not be drawn (RuntimeError: Failed to process string with "
                   "tex because latex could not be found)"]  # fmt: skip
    assert names() == sorted({*PICTURES} - {name})


@pytest.mark.parametrize(("function", "missing"), [
    ("history", "loss.png"), ("reconstructions", "reconstructions.png"), ("samples", "samples.png"),
    ("latent_plane", "latent.png"), ("decoded_grid", "grid.png"),
])  # fmt: skip
def test_a_picture_that_cannot_be_made_is_a_warning_and_the_others_are_drawn(function, missing, monkeypatch, capsys):
    def fail(*args, **kwargs):
        raise KeyError(function)

    monkeypatch.setattr(plots, "save", lambda figure, path: (figure(), path.touch()))
    monkeypatch.setattr(plots, function, fail)
    _, err = trained(capsys)
    assert err == [f"npvae: warning: the picture run/{missing} could not be drawn (KeyError: '{function}')"]
    assert names() == sorted({*PICTURES} - {missing})


def test_without_matplotlib_there_are_warnings_and_a_run(monkeypatch, capsys):
    import npvae.app

    monkeypatch.setitem(sys.modules, "npvae.app.plots", None)
    monkeypatch.delattr(npvae.app, "plots")
    _, err = trained(capsys)
    assert len(err) == 2
    assert err[0].startswith("npvae: warning: the picture run/loss.png could not be drawn (")
    assert err[1].startswith("npvae: warning: not all pictures could be made (")
    assert names() == []


class Stumbling(mean_field.MeanField):
    def pictures(self, plots, x, dataset):
        yield "first.png", "a figure", plots.samples(self.sample(4))
        yield "second.png", "a function", lambda: plots.samples(self.sample(4))
        raise ZeroDivisionError("mine")


def test_pictures_that_a_model_made_before_it_stumbled_are_drawn(tmp_path, monkeypatch):
    from npvae.data import Dataset
    from npvae.data.rows import Rows
    from npvae.training.state import History

    monkeypatch.setattr(plots, "history", lambda history, model: plots.samples(np.eye(3)))
    model, x = Stumbling(9), np.eye(9)
    with pytest.warns(UserWarning, match=r"not all pictures could be made \(ZeroDivisionError: mine\)"):
        drawn = pictures.draw_pictures(tmp_path, model, Rows.of(model, x, "x"), Dataset("", x, x, None, "", None), History())
    assert drawn == {"loss.png": "the history of training", "first.png": "a figure", "second.png": "a function"}
    assert sorted(path.name for path in tmp_path.glob("*.png")) == sorted(drawn)
