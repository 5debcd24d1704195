"""Whatever happens to a run, nothing is lost, and it goes on to the bits that it would have had: see faults.py."""

import re
import sys
from pathlib import Path

import faults
import numpy as np
import pytest
import small_models
from conftest import TRAIN

import npvae
from npvae.app import cli
from npvae.training import checkpoint, fit
from npvae.training.state import Sums

README = (Path(__file__).parent / "README.md").read_text(encoding="utf-8")
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
    model, state = checkpoint.load_progress(tmp_path)
    state.optimizer[forgotten] = 0 * state.optimizer[forgotten]
    checkpoint.save_progress(tmp_path, model, state)
    assert not faults.goes_on(tmp_path)


@pytest.mark.parametrize("name", ["position", "sums", "step"])
def test_forgetting_the_place_gives_other_bits_or_another_history(name, tmp_path):
    faults.stopped_at(tmp_path, 10)
    model, state = checkpoint.load_progress(tmp_path)
    setattr(state, name, Sums() if name == "sums" else 0)
    checkpoint.save_progress(tmp_path, model, state)
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


def test_what_cannot_change_on_the_way_is_called_as_the_user_calls_it():
    model, states = small_models.Well(), []
    npvae.fit(model, epochs=1, steps_per_epoch=5, progress=False, on_epoch=states.append)
    with pytest.raises(ValueError, match="steps_per_epoch was 5 when this training began and cannot become 6 on the way"):
        npvae.fit(model, epochs=2, steps_per_epoch=6, progress=False, resume=states[0])


def test_another_number_of_workers_is_said():
    model, states = npvae.VAE(12, 2, (), backend="numpy"), []
    npvae.fit(model, faults.data(), epochs=1, progress=False, workers=1, on_epoch=states.append)
    with pytest.warns(npvae.checks.NpvaeWarning, match="begun with 1 workers, continued with 2"):
        npvae.fit(model, faults.data(), epochs=2, progress=False, workers=2, resume=states[0])


# ---------------------------------------------------------------------------------------------------------- the command


@pytest.mark.usefixtures("home")
def test_a_damaged_newest_checkpoint_is_named_in_a_warning(capsys):
    assert cli.main(TRAIN) == 0
    Path("run/checkpoint.npz").write_bytes(b"damaged")
    assert cli.main(["train", "--resume", "--out", "run"]) == 0
    err = capsys.readouterr().err
    assert "npvae: warning: run/checkpoint.npz: not an npvae checkpoint" in err
    assert "continuing from checkpoint.previous.npz, which was saved before it" in err
    assert checkpoint.load_progress("run")[1].epoch == 3


@pytest.mark.usefixtures("home")
def test_a_run_that_was_killed_before_its_first_save_begins_again(monkeypatch):
    assert cli.main([*TRAIN[:-1], "whole"]) == 0
    with monkeypatch.context() as patch:
        patch.setattr(fit, "fit", lambda *args, **options: sys.exit(9))
        with pytest.raises(SystemExit):
            cli.main(TRAIN)
    assert not checkpoint.has_progress("run")
    assert cli.main(["train", "--resume", "--out", "run"]) == 0
    thetas = [npvae.VAE.load(f"{name}/checkpoint.npz").theta for name in ("run", "whole")]
    np.testing.assert_array_equal(*thetas)


def test_a_learning_rate_of_10_ends_in_a_clear_error_with_the_last_good_checkpoint(tmp_path):
    x = np.random.default_rng(0).standard_normal((100, 12))
    model = npvae.VAE(12, 2, (6,), "softplus", "gaussian", backend="numpy", seed=1)
    options = {"epochs": 9, "batch_size": 5, "optimizer": npvae.SGD(10.0), "progress": False}

    def on_step(state):
        if not state.skipped_in_a_row:
            checkpoint.save_progress(tmp_path, model, state)

    message = r"3 steps in a row were not finite \(step \d+: .*gradient of .*\); a lower learning rate may help"
    with pytest.raises(FloatingPointError, match=message):
        npvae.fit(model, x, on_step=on_step, **options)
    read, state = checkpoint.load_progress(tmp_path)
    np.testing.assert_array_equal(read.theta, model.theta)
    assert np.isfinite(read.theta).all()
    assert state.skipped_in_a_row == 0
