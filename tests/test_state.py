"""Where a run stands: the history as a table, sums and means, what must not change on the way, the line of an epoch."""

import json
from typing import NamedTuple

import numpy as np
import pytest
from small_models import lattice_rows, small_model

import npvae
from npvae.core.checks import NpvaeWarning
from npvae.training.state import History, Sums, TrainingState, columns, epoch_line, history_row, plain, terms_line


def test_history_is_a_table():
    lengths = []
    history = npvae.fit(small_model(), lattice_rows(20), epochs=3, batch_size=8, progress=False,
                        on_epoch=lambda state: lengths.append((state.epoch, len(state.history))))  # fmt: skip
    assert lengths == [(1, 1), (2, 2), (3, 3)]  # called after each epoch, with its row
    assert len(history) == 3
    np.testing.assert_array_equal(history["epoch"], [1, 2, 3])
    np.testing.assert_array_equal(history["step"], [3, 6, 9])
    assert np.isnan(history["val_loss"]).all()
    assert repr(history).startswith(f"History(3 epochs): epoch 3/3  train loss {history['train_loss'][-1]:.2f} (nll")
    assert list(history.rows[0]) == ["epoch", "step", "seconds", "skipped", "train_loss", "train_nll", "train_kl",
                                     "train_clipped", "val_loss", "val_nll", "val_kl", "val_clipped"]  # fmt: skip


class Terms(NamedTuple):
    loss: float
    energy: float
    rare: float


def test_the_columns_are_those_of_any_model_s_terms():
    terms = ["train_loss", "train_energy", "train_rare", "val_loss", "val_energy", "val_rare"]
    expected = ["epoch", "step", "seconds", "skipped", *terms]
    assert columns(Terms) == expected
    state = TrainingState({}, epoch=2, step=7, seconds=1.23456)
    row = history_row(state, Terms, np.array([1, 2, 3], np.float32), None)
    assert row == dict(zip(expected, [2, 7, 1.235, 0, 1.0, 2.0, 3.0, None, None, None]))
    assert {type(value) for value in list(row.values())[4:7]} == {float}
    assert list(history_row(state, Terms, (1, 2, 3), Terms(4, 5, 6)).values())[4:] == [1, 2, 3, 4, 5, 6]


def test_a_row_counts_the_steps_skipped_in_its_epoch_and_has_nan_for_what_is_not_finite():
    state = TrainingState({})
    for skipped in (2, 2, 5):
        state.skipped = skipped
        state.history.rows.append(history_row(state, Terms, (1, np.inf, 3), Terms(-np.inf, np.float32(np.nan), 6)))
    np.testing.assert_array_equal(state.history["skipped"], [2, 0, 3])
    assert {type(row["skipped"]) for row in state.history.rows} == {int}
    terms = ("train_loss", "train_energy", "train_rare", "val_loss", "val_energy", "val_rare")
    for name, value in zip(terms, (1, np.nan, 3, np.nan, np.nan, 6)):
        np.testing.assert_array_equal(state.history[name], [value] * 3)


def test_plain_values_are_those_that_json_gives_back():
    settings = {"pair": (1, 2.5), "number": np.float32(0.5), "count": np.int64(3), "array": np.arange(2),
                "flag": np.bool_(True), "name": "a", "nothing": None, "far": np.inf, 4: {"nested": (np.nan,)},
                "type": complex(1, 2)}  # fmt: skip
    found = plain(settings)
    assert found == {"pair": [1, 2.5], "number": 0.5, "count": 3, "array": [0, 1], "flag": True, "name": "a", "nothing": None,
                     "far": None, "4": {"nested": [None]}, "type": "(1+2j)"}  # fmt: skip
    assert json.loads(json.dumps(found, allow_nan=False)) == found == plain(found)


def test_the_line_of_an_epoch_leaves_out_terms_that_are_zero():
    row = dict(zip(columns(Terms), [2, 7, 1.2, 0, 1.004, -2.0, 0.0, None, None, None]))
    assert epoch_line(row, 10) == "epoch  2/10  train loss 1.00 (energy -2.00)"
    row |= {"val_loss": 3.0, "val_energy": 0.0, "val_rare": 0.001}
    assert epoch_line(row, 9, "kT") == "epoch 2/9  train loss 1.00 (energy -2.00)  val loss 3.00 (rare 0.00) kT"
    assert terms_line({"loss": 0.0}) == "loss 0.00"


def test_the_line_of_an_epoch_says_what_was_skipped_and_what_was_not_finite():
    row = dict(zip(columns(Terms), [2, 7, 1.2, 1, 1.004, np.nan, 0.0, np.nan, np.nan, 2.0]))
    expected = "epoch 2/9  train loss 1.00 (energy nan)  val loss nan (energy nan, rare 2.00) kT  1 step skipped"
    assert epoch_line(row, 9, "kT") == expected
    assert epoch_line({**row, "skipped": 2}, 9).endswith("  2 steps skipped")
    assert terms_line({"loss": None, "energy": None}) == "loss nan"  # as a checkpoint gives it back


def test_an_empty_history_has_a_text_too():
    assert repr(History()) == "History(0 epochs)"
    assert len(History()["train_loss"]) == 0


def test_sums_are_weighted_by_rows():
    sums = Sums()
    assert np.isnan(sums.means(2)).all()
    assert len(sums.means(2)) == 2
    sums.add(Terms(1.0, 10.0, 0.0), 3)
    sums.add(Terms(5.0, 30.0, 0.0), 1)
    assert sums.rows == 4
    assert sums.means(3) == [2.0, 15.0, 0.0]


def test_settings_that_decide_the_random_numbers_must_stay():
    state = TrainingState({})
    state.keep(seed=1, batch_size=8, rows=20, workers=2)
    state.keep(seed=1, batch_size=8, rows=20, workers=2)
    for changed in ({"seed": 2}, {"batch_size": 9}, {"rows": 21}):
        (name, value), = changed.items()
        with pytest.raises(ValueError, match=f"{name} was {value - 1} when this training began and cannot become {value}"):
            state.keep(**changed)
    with pytest.warns(NpvaeWarning, match="begun with 2 workers, continued with 3"):
        state.keep(workers=3)
    state.keep(workers=3)
    assert state.settings == {"seed": 1, "batch_size": 8, "rows": 20, "workers": 3}
