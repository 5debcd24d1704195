"""Bars and lines of long work: they are shown where somebody can see them, and never end the work."""

import io
import sys

import numpy as np
import pytest
from small_models import lattice_rows, small_model

import npvae
from npvae.core.progress import is_terminal, progress_bar, tell
from npvae.data import ising


class Closed(io.StringIO):
    def __init__(self):
        super().__init__()
        self.close()


class OnlyWrites:
    def __init__(self):
        self.text = ""

    def write(self, text):
        self.text += text


def terminal(encoding="utf-8"):
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding, write_through=True)
    stream.isatty = lambda: True
    return stream


def written(stream):
    return stream.buffer.getvalue().decode(stream.encoding)


STREAMS = {"none": lambda: None, "closed": Closed, "without isatty": OnlyWrites, "no terminal": io.StringIO}


@pytest.mark.parametrize("stream", STREAMS.values(), ids=STREAMS)
def test_no_bar_where_stderr_is_no_terminal(monkeypatch, stream):
    monkeypatch.setattr(sys, "stderr", stream())
    assert not is_terminal(sys.stderr)
    with progress_bar(True, total=2) as bar:
        bar.update()
    assert bar.disable


@pytest.mark.parametrize(("progress", "shown"), [(True, True), (False, False)])
def test_a_bar_on_a_terminal_if_it_is_asked_for(monkeypatch, progress, shown):
    monkeypatch.setattr(sys, "stderr", terminal())
    with progress_bar(progress, total=2, desc="rows of a test"):
        pass
    assert ("rows of a test" in written(sys.stderr)) == shown


@pytest.mark.parametrize("stream", [None, Closed(), OnlyWrites(), io.StringIO()], ids=["none", "closed", "writes", "file"])
def test_a_line_goes_to_stdout_if_there_is_one(monkeypatch, stream):
    monkeypatch.setattr(sys, "stdout", stream)
    tell("epoch 1")
    if isinstance(stream, OnlyWrites):
        assert stream.text == "epoch 1\n"
    elif type(stream) is io.StringIO:
        assert stream.getvalue() == "epoch 1\n"


def test_a_letter_that_stdout_does_not_know_is_replaced(monkeypatch):
    monkeypatch.setattr(sys, "stdout", terminal("ascii"))
    tell("loss 3 µJ")
    assert written(sys.stdout) == "loss 3 ?J\n"
    monkeypatch.setattr(sys, "stdout", terminal("utf-8"))
    tell("loss 3 µJ")
    assert written(sys.stdout) == "loss 3 µJ\n"


@pytest.mark.parametrize("stream", STREAMS.values(), ids=STREAMS)
def test_all_long_work_goes_on_without_stdout_and_stderr(monkeypatch, stream):
    x = lattice_rows(20)
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, stream())
    model = small_model()
    history = npvae.fit(model, x, x, epochs=3, early_stopping=1, optimizer=npvae.SGD(1e-30))
    assert len(history) == 2  # and it was said that it stopped early
    npvae.fit(small_model(backend="numba"), x, epochs=1)  # whose compilation may be announced
    npvae.fit_lbfgs(model, x, iterations=2)
    assert np.isfinite(npvae.evaluate.log_likelihood(model, x, 3, 0, progress=True)).all()
    assert len(ising.simulate(2.0, 3, size=4, progress=True).spins) == 3
