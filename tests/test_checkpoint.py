"""Checkpoints of a run: what is written is read, the last two are kept, and one that cannot be read is named."""

import dataclasses
import json

import faults
import mean_field
import numpy as np
import pytest

import npvae
from npvae.core import files
from npvae.training import checkpoint
from npvae.training.state import Best, History, Sums, TrainingState, columns

ROW = dict.fromkeys(columns(npvae.Terms), 1.0)


def small_model():
    return npvae.VAE(4, 1, (), backend="numpy")


def some_state(model):
    """A state with a value of its own for everything."""
    optimizer = {"t": 7, "m": model.theta + 1, "v": model.theta**2}
    best = Best(2, 0.5, {"objective": "elbo", "beta": 0.25}, model.theta + 2)
    return TrainingState(optimizer, epoch=2, position=4, sums=Sums([1.0, 2.0, 3.0, 4.0], 5), step=9, seconds=1.5, skipped=3,
                         skipped_in_a_row=1, history=History([ROW, {**ROW, "val_loss": None}]), best=best,
                         settings={"seed": 5, "workers": 2})  # fmt: skip


def test_progress_is_read_as_it_was_saved(tmp_path):
    model = small_model()
    state = some_state(model)
    checkpoint.save_progress(tmp_path, model, state)
    read_model, read = checkpoint.load_progress(tmp_path)
    np.testing.assert_array_equal(read_model.theta, model.theta)
    assert read.optimizer.keys() == state.optimizer.keys()
    for name, value in state.optimizer.items():
        np.testing.assert_array_equal(read.optimizer[name], value)
    for name in ("epoch", "position", "step", "seconds", "skipped", "skipped_in_a_row", "sums", "settings"):
        assert getattr(read, name) == getattr(state, name)
    assert read.history.rows == state.history.rows
    np.testing.assert_array_equal(read.best.theta, state.best.theta)
    assert (read.best.epoch, read.best.loss, read.best.settings) == (2, 0.5, {"objective": "elbo", "beta": 0.25})


def test_metrics_are_the_rows_of_the_history_one_a_line(tmp_path):
    model = small_model()
    state = some_state(model)
    checkpoint.save_progress(tmp_path, model, state)
    lines = (tmp_path / checkpoint.METRICS).read_text().splitlines()
    assert [json.loads(line) for line in lines] == state.history.rows
    assert list(json.loads(lines[0])) == [
        "epoch", "step", "seconds", "skipped", "train_loss", "train_nll", "train_kl", "train_clipped", "val_loss", "val_nll",
        "val_kl", "val_clipped",
    ]  # fmt: skip


def strict_json(text):
    """What JSON without NaN and Infinity reads."""

    def refuse(constant):
        raise ValueError(f"{constant} is not JSON")

    return json.loads(text, parse_constant=refuse)


def test_numbers_that_are_not_finite_are_null_in_the_files_and_nan_when_read(tmp_path):
    """A validation loss, a mean of the epoch, the sums of the epoch under way: strict JSON has no NaN."""
    model = small_model()
    state = some_state(model)
    state.history.rows[1] |= {"val_loss": np.inf, "train_kl": np.nan}
    state.sums.terms[1] = -np.inf
    state.best = dataclasses.replace(state.best, settings={"beta": 0.25, "cut": np.inf})
    checkpoint.save_progress(tmp_path, model, state)
    read = checkpoint.load_progress(tmp_path)[1]
    np.testing.assert_array_equal(read.history["val_loss"], [1, np.nan])
    np.testing.assert_array_equal(read.history["train_kl"], [1, np.nan])
    np.testing.assert_array_equal(read.sums.terms, [1, np.nan, 3, 4])
    lines = (tmp_path / checkpoint.METRICS).read_text().splitlines()
    assert [strict_json(line)["val_loss"] for line in lines] == [1, None]
    with np.load(tmp_path / checkpoint.NEWEST) as entries:
        strict_json(entries["metadata"].tobytes())


def test_numbers_of_numpy_s_in_an_optimiser_s_state_come_back_with_their_dtype(tmp_path):
    model = small_model()
    state = some_state(model)
    kept = {"norm": np.float32(0.1), "count": np.int64(3), "warm": np.bool_(True), "cold": False, "rate": 0.1, "n": 4,
            "t": np.int64(7)}  # fmt: skip
    state.optimizer |= kept
    state.settings["seed"] = np.int64(5)
    checkpoint.save_progress(tmp_path, model, state)
    read = checkpoint.load_progress(tmp_path)[1]
    assert {name: read.optimizer[name] for name in kept} == kept
    assert [type(read.optimizer[name]) for name in kept] == [type(value) for value in kept.values()]
    assert read.settings["seed"] == 5


@pytest.mark.parametrize("value", [np.inf, "fast", None, [1.0], {}])
def test_what_could_not_be_read_again_is_not_written(value, tmp_path):
    """Whoever saves hears it, and what was saved before is intact."""
    model = small_model()
    state = some_state(model)
    checkpoint.save_progress(tmp_path, model, state)
    state.optimizer["speed"] = value
    with pytest.raises(ValueError, match="speed in the optimizer's state must be a finite number"):
        checkpoint.save_progress(tmp_path, model, state)
    del state.optimizer["speed"]
    state.optimizer["t"] = 0.5
    with pytest.raises(ValueError, match=r"t in the optimizer's state must be an integer of at least 0; got 0\.5"):
        checkpoint.save_progress(tmp_path, model, state)
    state.optimizer["t"] = 7
    good, model.theta[1] = model.theta.copy(), np.nan
    with pytest.raises(ValueError, match=r"theta must be finite; got nan at \[1\]"):
        checkpoint.save_progress(tmp_path, model, state)
    np.testing.assert_array_equal(checkpoint.load_progress(tmp_path)[0].theta, good)


def test_both_checkpoints_damaged_are_both_named(tmp_path):
    faults.stopped_at(tmp_path, 10)
    for name in (checkpoint.NEWEST, checkpoint.PREVIOUS):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(ValueError, match=r"checkpoint\.npz: not an npvae .*; .*checkpoint\.previous\.npz: not an npvae"):
        checkpoint.load_progress(tmp_path)


def test_the_last_two_checkpoints_and_the_best_model_are_kept(tmp_path):
    _, state = faults.train(tmp_path)
    previous = files.read(tmp_path / checkpoint.PREVIOUS)[1]["training"]
    newest = files.read(tmp_path / checkpoint.NEWEST)[1]["training"]
    assert (previous["epoch"], newest["epoch"]) == (faults.EPOCHS - 1, faults.EPOCHS)
    best = npvae.VAE.load(tmp_path / checkpoint.BEST)
    np.testing.assert_array_equal(best.theta, state.best.theta)
    rows = state.history.rows
    assert state.best.loss == rows[state.best.epoch - 1]["val_loss"]


def test_load_model_is_the_last_or_the_best(tmp_path):
    model = small_model()
    state = some_state(model)
    checkpoint.save_progress(tmp_path, model, state)
    np.testing.assert_array_equal(checkpoint.load_model(tmp_path).theta, model.theta)
    np.testing.assert_array_equal(checkpoint.load_model(tmp_path, best=True).theta, model.theta + 2)
    state.best = None
    checkpoint.save_progress(tmp_path, model, state)
    np.testing.assert_array_equal(checkpoint.load_model(tmp_path, best=True).theta, model.theta)


@pytest.mark.parametrize(("changes", "sound"), [
    ({}, True), ({"skipped_in_a_row": 1}, False), ({"position": 3}, True),
    ({"history": History([{**ROW, "val_loss": float("nan")}])}, True),  # some rows may be bad, the parameters are good
    ({"usable": False}, False), ({"usable": True}, True), ({"usable": True, "skipped_in_a_row": 1}, True),
    ({"history": History([{**ROW, "val_loss": None}])}, True),
])  # fmt: skip
def test_a_state_is_sound_where_its_parameters_gave_something_finite(changes, sound):
    assert checkpoint.is_sound(TrainingState({"t": 1}, **{"history": History([ROW]), **changes})) == sound


def test_a_folder_without_checkpoints_says_so(tmp_path):
    assert not checkpoint.has_progress(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"checkpoint\.npz does not exist: .* was stopped before its first save"):
        checkpoint.load_progress(tmp_path)
    checkpoint.save_progress(tmp_path, small_model(), some_state(small_model()))
    assert checkpoint.has_progress(tmp_path)


def rewritten(folder, change):
    """The newest checkpoint with its metadata and arrays as `change` leaves them, and no other."""
    arrays, metadata = files.read(folder / checkpoint.NEWEST)
    change(metadata["training"], arrays)
    files.write(folder / checkpoint.NEWEST, arrays, {name: metadata[name] for name in ("model", "training")})


@pytest.mark.parametrize("change", [
    lambda training, arrays: training.pop("position"),
    lambda training, arrays: training.update(epoch=-1),
    lambda training, arrays: training.update(epoch=1),
    lambda training, arrays: training.update(step=2.5),
    lambda training, arrays: training["optimizer"].update(t="7"),
    lambda training, arrays: training["optimizer"].pop("t"),
    lambda training, arrays: training["history"][0].update(train_loss="1"),
    lambda training, arrays: training["history"][0].update(more=1.0),
    lambda training, arrays: training["sums"].update(terms=[1.0]),
    lambda training, arrays: training.update(seconds=-1),
    lambda training, arrays: training["best"].update(loss=None),
    lambda training, arrays: training["settings"].update(workers=1.5),
    lambda training, arrays: arrays.pop("best.theta"),
    lambda training, arrays: arrays.update({"best.theta": np.zeros(3, np.float32)}),
    lambda training, arrays: arrays["best.theta"].fill(np.nan),
])  # fmt: skip
def test_a_training_state_that_cannot_be_is_refused(tmp_path, change):
    checkpoint.save_progress(tmp_path, small_model(), some_state(small_model()))
    rewritten(tmp_path, change)
    with pytest.raises(ValueError, match=r"checkpoint\.npz: holds a model but no training state"):
        checkpoint.load_progress(tmp_path)


def test_a_run_of_another_class_needs_to_be_told_the_class(tmp_path):
    model = mean_field.MeanField(5)
    npvae.fit(model, np.eye(5), epochs=1, progress=False,
              on_epoch=lambda state: checkpoint.save_progress(tmp_path, model, state))  # fmt: skip
    with pytest.raises(ValueError, match=r"checkpoint\.npz: not a saved npvae model \(a model of class MeanField"):
        checkpoint.load_progress(tmp_path)
    loaded, state = checkpoint.load_progress(tmp_path, mean_field.MeanField)
    np.testing.assert_array_equal(loaded.theta, model.theta)
    assert list(state.history.rows[0]) == ["epoch", "step", "seconds", "skipped", "train_loss", "val_loss"]


def test_a_run_of_an_older_schema_is_refused_with_one_line(tmp_path, monkeypatch):
    faults.stopped_at(tmp_path, 10)
    for name in (checkpoint.NEWEST, checkpoint.PREVIOUS):
        arrays, metadata = files.read(tmp_path / name)
        monkeypatch.setattr(files, "SCHEMA", 3)
        files.write(tmp_path / name, arrays, {part: metadata[part] for part in ("model", "training")})
        monkeypatch.undo()
    with pytest.raises(ValueError, match=r"checkpoint\.npz: a file of schema 3, .* reads schema 4: train again") as error:
        checkpoint.load_progress(tmp_path)
    assert "\n" not in str(error.value)
