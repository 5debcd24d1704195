"""Whatever happens to a run, nothing is lost, and it goes on to the bits that it would have had: see faults.py."""

import re
import signal
import sys
from pathlib import Path

import faults
import numpy as np
import pytest

import npvae
from npvae import cli, commands, runs, saving

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
FEW = {"SIGKILL": 3, "Ctrl-C": 2, "SIGTERM": 1, "second process": 1}  # which start processes; the full numbers: faults.py


@pytest.mark.parametrize("fault", faults.FAULTS, ids=lambda fault: fault.name)
def test_nothing_is_lost_and_the_bits_are_the_same(fault):
    n = next((few for word, few in FEW.items() if word in fault.name), min(fault.times, 20))
    assert faults.outcome(fault.trials(n)) == (n, 0, n)


def test_the_table_in_the_readme_is_of_these_faults():
    table = README[README.index("| fault | times tried |") :].split("\n\n")[0]
    rows = re.findall(r"^\| (.+?) \| (\d+) \| (\d+) \| (\d+) \|$", table, re.MULTILINE)
    assert [(name, int(tried)) for name, tried, *_ in rows] == [(fault.name, fault.times) for fault in faults.FAULTS]
    assert all(lost == "0" and same == tried for _, tried, lost, same in rows)


@pytest.mark.parametrize("forgotten", ["m", "v", "t"])
def test_forgetting_part_of_the_optimiser_gives_other_bits(forgotten, tmp_path):
    """The negative control: the comparison is able to fail."""
    faults.stopped_at(tmp_path, 10)
    model, state = saving.load_progress(tmp_path)
    state.optimizer[forgotten] = 0 * state.optimizer[forgotten]
    saving.save_progress(tmp_path, model, state)
    assert not faults.goes_on(tmp_path)


@pytest.mark.parametrize("name", ["position", "sums", "step"])
def test_forgetting_the_place_gives_other_bits_or_another_history(name, tmp_path):
    faults.stopped_at(tmp_path, 10)
    model, state = saving.load_progress(tmp_path)
    setattr(state, name, [0.0] * 4 if name == "sums" else 0)
    saving.save_progress(tmp_path, model, state)
    assert not faults.goes_on(tmp_path)


@pytest.mark.parametrize("setting", [{"seed": 1}, {"batch_size": 10}])
def test_settings_that_decide_the_noise_cannot_change_on_the_way(setting):
    model, states = npvae.VAE(12, 2, (), backend="numpy"), []
    npvae.fit(model, faults.data(), epochs=1, progress=False, on_epoch=states.append)
    with pytest.raises(ValueError, match=f"{next(iter(setting))} was .* when this training began"):
        npvae.fit(model, faults.data(), epochs=2, progress=False, resume=states[0], **setting)
    with pytest.raises(ValueError, match="rows was 100"):
        npvae.fit(model, faults.data()[:50], epochs=2, progress=False, resume=states[0])
    with pytest.raises(ValueError, match="the state of Momentum must hold t, velocity; got m, t, v"):
        npvae.fit(model, faults.data(), epochs=2, progress=False, resume=states[0], optimizer=npvae.Momentum())


def test_another_number_of_workers_is_said():
    model, states = npvae.VAE(12, 2, (), backend="numpy"), []
    npvae.fit(model, faults.data(), epochs=1, progress=False, workers=1, on_epoch=states.append)
    with pytest.warns(npvae.checks.NpvaeWarning, match="begun with 1 workers, continued with 2"):
        npvae.fit(model, faults.data(), epochs=2, progress=False, workers=2, resume=states[0])


def test_both_checkpoints_damaged_are_both_named(tmp_path):
    faults.stopped_at(tmp_path, 10)
    for name in (saving.NEWEST, saving.PREVIOUS):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(ValueError, match=r"checkpoint\.npz: not an npvae .*; .*checkpoint\.previous\.npz: not an npvae"):
        saving.load_progress(tmp_path)


def test_the_last_two_checkpoints_and_the_best_model_are_kept(tmp_path):
    _, state = faults.train(tmp_path)
    previous = npvae.checkpoint.read(tmp_path / saving.PREVIOUS)[1]["training"]
    newest = npvae.checkpoint.read(tmp_path / saving.NEWEST)[1]["training"]
    assert (previous["epoch"], newest["epoch"]) == (faults.EPOCHS - 1, faults.EPOCHS)
    best = npvae.VAE.load(tmp_path / saving.BEST)
    np.testing.assert_array_equal(best.theta, state.best.theta)
    rows = state.history.rows
    assert state.best.loss == rows[state.best.epoch - 1]["val_loss"]


# ---------------------------------------------------------------------------------------------------------- the command


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(runs, "draw_pictures", lambda *args: {})
    np.save("x.npy", faults.data())
    return tmp_path


SMALL = ["train", "--data", "x.npy", "--hidden", "6", "--batch-size", "10", "--epochs", "3", "--out", "run"]


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_step_saves_and_says_how_to_go_on(number, status, home, monkeypatch, capsys):
    assert cli.main([*SMALL[:-1], "whole"]) == 0
    fit, before = npvae.train.fit, signal.getsignal(number)

    def interrupted(*args, on_step, **options):
        def step(state):
            if state.step == 13:
                signal.raise_signal(number)
            return on_step(state)

        return fit(*args, on_step=step, **options)

    monkeypatch.setattr(npvae.train, "fit", interrupted)
    capsys.readouterr()
    assert cli.main(SMALL) == status
    out, err = capsys.readouterr()
    assert "finishing the step and saving (once more to end at once)" in err
    assert "stopped after step 13, in epoch 2 of 3; nothing is lost. Go on with:\n    npvae train --resume --out run\n" in out
    assert signal.getsignal(number) == before
    assert saving.load_progress("run")[1].step == 13
    monkeypatch.setattr(npvae.train, "fit", fit)
    assert cli.main(["train", "--resume", "--out", "run"]) == 0
    thetas = [npvae.VAE.load(f"{name}/checkpoint.npz").theta for name in ("run", "whole")]
    np.testing.assert_array_equal(*thetas)


def test_a_second_signal_ends_at_once(monkeypatch):
    monkeypatch.setattr(commands.os, "_exit", sys.exit)
    with commands.Interruption() as interruption:
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(SystemExit) as ended:
            signal.raise_signal(signal.SIGINT)
    assert ended.value.code == 130
    assert interruption.signal == signal.SIGTERM


@pytest.mark.usefixtures("home")
def test_saving_goes_on_within_an_epoch(monkeypatch):
    monkeypatch.setattr(commands, "SECONDS_BETWEEN_SAVES", -1)
    saved, save = [], saving.save_progress
    monkeypatch.setattr(saving, "save_progress", lambda *a, **b: (saved.append((a[2].epoch, a[2].position)), save(*a, **b)))
    assert cli.main([*SMALL, "--epochs", "1"]) == 0
    assert saved == [*((0, position) for position in range(1, 10)), (1, 0)]


@pytest.mark.usefixtures("home")
def test_a_run_folder_in_use_is_refused(capsys):
    assert cli.main(SMALL) == 0
    with saving.exclusive("run"):
        assert cli.main(["train", "--resume", "--epochs", "5", "--out", "run"]) == 1
    assert "run folder run is in use by another npvae train" in capsys.readouterr().err
    assert cli.main(["train", "--resume", "--epochs", "5", "--out", "run"]) == 0


@pytest.mark.usefixtures("home")
def test_a_damaged_newest_checkpoint_is_named_in_a_warning(capsys):
    assert cli.main(SMALL) == 0
    Path("run/checkpoint.npz").write_bytes(b"damaged")
    assert cli.main(["train", "--resume", "--out", "run"]) == 0
    err = capsys.readouterr().err
    assert "npvae: warning: run/checkpoint.npz: not an npvae checkpoint" in err
    assert "going on from checkpoint.previous.npz" in err
    assert saving.load_progress("run")[1].epoch == 3


@pytest.mark.usefixtures("home")
def test_a_run_that_was_killed_before_its_first_save_begins_again(monkeypatch):
    assert cli.main([*SMALL[:-1], "whole"]) == 0
    with monkeypatch.context() as patch:
        patch.setattr(npvae.train, "fit", lambda *args, **options: sys.exit(9))
        with pytest.raises(SystemExit):
            cli.main(SMALL)
    assert not saving.has_progress("run")
    assert cli.main(["train", "--resume", "--out", "run"]) == 0
    thetas = [npvae.VAE.load(f"{name}/checkpoint.npz").theta for name in ("run", "whole")]
    np.testing.assert_array_equal(*thetas)


@pytest.mark.usefixtures("home")
def test_another_environment_is_said(monkeypatch, capsys):
    assert cli.main(SMALL) == 0
    environment = runs.environment()
    environment["versions"]["numpy"] = "9.9"
    environment["blas"] = [{"internal_api": "mkl", "version": "1", "architecture": "Foo"}]
    monkeypatch.setattr(runs, "environment", lambda: environment)
    assert cli.main(["train", "--resume", "--epochs", "4", "--out", "run"]) == 0
    out = capsys.readouterr().out
    assert f"note      numpy {np.__version__} became 9.9: the last bits may not be those of a run without the break" in out
    assert "became mkl 1 Foo" in out


def test_a_learning_rate_of_10_ends_in_a_clear_error_with_the_last_good_checkpoint(tmp_path):
    x = np.random.default_rng(0).standard_normal((100, 12))
    model = npvae.VAE(12, 2, (6,), "softplus", "gaussian", seed=1)
    options = {"epochs": 9, "batch_size": 5, "optimizer": npvae.SGD(10.0), "progress": False}

    def on_step(state):
        if not state.skipped_in_a_row:
            saving.save_progress(tmp_path, model, state)

    message = r"3 steps in a row were not finite \(step \d+: .*gradient of .*\); a lower learning rate may help"
    with pytest.raises(FloatingPointError, match=message):
        npvae.fit(model, x, on_step=on_step, **options)
    read, state = saving.load_progress(tmp_path)
    np.testing.assert_array_equal(read.theta, model.theta)
    assert np.isfinite(read.theta).all()
    assert state.skipped_in_a_row == 0
