"""Ctrl-C and SIGTERM during `npvae train`: the step is finished, the run is saved, and it continues to the same bits."""

import io
import signal
import sys
import threading

import numpy as np
import pytest
from conftest import TRAIN

import npvae
from npvae.app import cli, commands, interruption
from npvae.training import checkpoint, fit


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_step_saves_and_says_how_to_go_on(number, status, home, monkeypatch, capsys):
    assert cli.main([*TRAIN[:-1], "whole"]) == 0
    original, before = fit.fit, signal.getsignal(number)

    def interrupted(*args, on_step, **options):
        def step(state):
            if state.step == 13:
                signal.raise_signal(number)
            return on_step(state)

        return original(*args, on_step=step, **options)

    monkeypatch.setattr(fit, "fit", interrupted)
    capsys.readouterr()
    assert cli.main(TRAIN) == status
    out, err = capsys.readouterr()
    assert "finishing the step, then saving; interrupt again to end at once, without saving" in err
    assert "stopped after step 13, in epoch 2 of 3; nothing is lost. Continue with:\n" in out
    assert out.endswith("    npvae train --resume --out run\n")
    assert signal.getsignal(number) == before
    assert checkpoint.load_progress("run")[1].step == 13
    monkeypatch.setattr(fit, "fit", original)
    assert cli.main(["train", "--resume", "--out", "run"]) == 0
    thetas = [npvae.VAE.load(f"{name}/checkpoint.npz").theta for name in ("run", "whole")]
    np.testing.assert_array_equal(*thetas)


def test_a_second_signal_ends_at_once(monkeypatch):
    monkeypatch.setattr(interruption.os, "_exit", sys.exit)
    with interruption.Interruption() as noted:
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(SystemExit) as ended:
            signal.raise_signal(signal.SIGINT)
    assert ended.value.code == 130
    assert noted.signal == signal.SIGTERM


class Broken(io.StringIO):
    """stderr whose reader has gone, or which is being written to by what the signal has interrupted."""

    def __init__(self, error):
        super().__init__()
        self.error = error

    def write(self, text):
        raise self.error


@pytest.mark.parametrize("error", [BrokenPipeError(), RuntimeError("reentrant call inside <_io.BufferedWriter>")])
def test_a_note_that_cannot_be_written_keeps_nothing_from_being_saved(error, home, monkeypatch):
    original = fit.fit

    def interrupted(*args, on_step, **options):
        def step(state):
            if state.step == 13:
                monkeypatch.setattr(sys, "stderr", Broken(error))
                signal.raise_signal(signal.SIGINT)
            return on_step(state)

        return original(*args, on_step=step, **options)

    monkeypatch.setattr(fit, "fit", interrupted)
    assert cli.main(TRAIN) == 130
    assert checkpoint.load_progress("run")[1].step == 13


def test_a_signal_when_there_is_nothing_left_to_do(home, monkeypatch, capsys):
    assert cli.main(TRAIN) == 0
    original = fit.fit

    def interrupted(*args, **options):
        signal.raise_signal(signal.SIGINT)
        return original(*args, **options)

    monkeypatch.setattr(fit, "fit", interrupted)
    assert cli.main(["train", "--resume", "--out", "run"]) == 130
    assert checkpoint.load_progress("run")[1].epoch == 3


def test_parameters_that_are_not_finite_are_not_called_saved(home, monkeypatch, capsys):
    original = fit.fit

    def interrupted(model, *args, on_step, **options):
        def step(state):
            if state.step == 13:
                model.theta[0] = np.inf
                signal.raise_signal(signal.SIGINT)
            return on_step(state)

        return original(model, *args, on_step=step, **options)

    monkeypatch.setattr(fit, "fit", interrupted)
    assert cli.main(TRAIN) == 130
    assert "its parameters are not finite and not saved. Continue with:" in capsys.readouterr().out
    assert checkpoint.load_progress("run")[1].epoch == 1  # what was saved before


@pytest.mark.usefixtures("home")
def test_saving_goes_on_within_an_epoch(monkeypatch):
    monkeypatch.setattr(commands, "SECONDS_BETWEEN_SAVES", -1)
    saved, save = [], checkpoint.save_progress
    monkeypatch.setattr(checkpoint, "save_progress", lambda *a, **b: (saved.append((a[2].epoch, a[2].position)), save(*a, **b)))
    assert cli.main([*TRAIN, "--epochs", "1"]) == 0
    assert saved == [*((0, position) for position in range(1, 10)), (1, 0)]


def test_signals_are_as_they_were_after_the_block_and_left_alone_in_other_threads():
    before = signal.getsignal(signal.SIGTERM)
    with interruption.Interruption() as noted:
        assert signal.getsignal(signal.SIGTERM) == noted.note
    assert signal.getsignal(signal.SIGTERM) == before
    seen = []

    def other():
        with interruption.Interruption() as noted:
            seen.append((signal.getsignal(signal.SIGTERM) == before, noted.handlers))

    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    assert seen == [(True, {})]
