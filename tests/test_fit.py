"""Training: each row once per epoch, exact means, the same bits after a break, accidents, what is shown."""

import contextlib
import itertools
import warnings

import numpy as np
import pytest
from small_models import Regression, Well, lattice_rows, recorder, regression_rows, small_model
from threadpoolctl import threadpool_info, threadpool_limits

import npvae
import npvae.training.fit as training
from npvae.core.checks import NpvaeWarning
from npvae.core.randomness import FULL_BATCH, PERMUTATION, STEP, VALIDATION, Stream, generator
from npvae.data.rows import Rows
from npvae.training import checkpoint, lbfgs, step, validation
from npvae.training.optim import SGD, AdaGrad, Adam, Momentum, RMSProp
from npvae.training.schedules import Linear


@pytest.mark.parametrize("optimizer", [SGD(1e-2), Momentum(1e-3), AdaGrad(1e-2), RMSProp(1e-2), Adam(1e-2)])
def test_training_lowers_the_loss(optimizer):
    x = lattice_rows()
    history = npvae.fit(small_model(), x, lattice_rows(seed=1), epochs=5, batch_size=32, optimizer=optimizer, progress=False)
    assert history["val_loss"][-1] < history["val_loss"][0] < 16 * np.log(2) * 1.3
    assert history["train_loss"][-1] < history["train_loss"][0]


def test_each_row_exactly_once_per_epoch_in_an_order_of_seed_and_epoch():
    x = np.arange(50 * 16, dtype=np.float32).reshape(50, 16)
    orders = {}
    for seed in (0, 1):
        model = recorder()
        npvae.fit(model, x, epochs=2, batch_size=8, optimizer=SGD(1e-12), seed=seed, progress=False)
        rows = np.concatenate([batch[:, 0] / 16 for batch, _, _ in model.seen]).astype(int)
        for epoch in (0, 1):
            orders[seed, epoch] = tuple(rows[epoch * 50 : (epoch + 1) * 50])
            assert sorted(orders[seed, epoch]) == list(range(50))
    assert len(set(orders.values())) == 4
    assert [len(batch) for batch, _, _ in model.seen[:7]] == [8] * 6 + [2]


def test_noise_is_a_pure_function_of_seed_and_step():
    x = lattice_rows(40)
    runs = []
    for epochs, seed in [(2, 5), (1, 5), (2, 6)]:
        model = recorder()
        npvae.fit(model, x, epochs=epochs, batch_size=10, progress=False, n_samples=3, seed=seed)
        runs.append([eps for _, eps, _ in model.seen])
    assert runs[0][0].shape == (3, 10, 2)
    for a, b in zip(*runs[:2]):  # the shorter run draws what the longer one drew at the same steps
        np.testing.assert_array_equal(a, b)
    assert len({eps.tobytes() for eps in runs[0] + runs[2]}) == 16  # and no two steps or seeds draw the same


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_batches_and_noise_have_the_model_s_dtype(dtype):
    model = recorder(dtype=dtype)
    npvae.fit(model, lattice_rows(20), lattice_rows(20).astype(bool), epochs=1, progress=False)
    assert {array.dtype for seen in model.seen for array in seen[:2]} == {np.dtype(dtype)}


def test_every_use_of_random_numbers_has_a_stream_of_its_own(monkeypatch):
    drawn = []

    class Recorded(Stream):
        def __init__(self, *key):
            super().__init__(*key)
            self.key = key

        def at(self, number):
            drawn.append((*self.key, number))
            return super().at(number)

    for module in (training, validation, lbfgs):
        monkeypatch.setattr(module, "generator", lambda *key: drawn.append(key) or generator(*key))
    monkeypatch.setattr(step, "Stream", Recorded)
    x = lattice_rows(20)
    npvae.fit(small_model(), x, x, epochs=2, batch_size=10, seed=9, progress=False)
    npvae.fit_lbfgs(small_model(), x, iterations=1, seed=9, progress=False)
    steps = [[(9, PERMUTATION, e), *((9, STEP, 0, 2 * e + i) for i in (0, 1))] for e in (0, 1)]
    measured = [(9, VALIDATION, 0), (9, VALIDATION, 1)]
    assert drawn == [*steps[0], *measured, *steps[1], *measured, (9, FULL_BATCH, 0)]


def test_same_seed_same_bits_and_resuming_goes_on_to_them():
    x, x_val = lattice_rows(100), lattice_rows(30, seed=1)
    options = {"batch_size": 32, "progress": False, "seed": 3}
    whole, again, parts = small_model(), small_model(), small_model()
    history = npvae.fit(whole, x, x_val, epochs=4, **options)
    npvae.fit(again, x, x_val, epochs=4, **options)
    np.testing.assert_array_equal(whole.theta, again.theta)
    states = []
    npvae.fit(parts, x, x_val, epochs=2, on_epoch=states.append, **options)
    resumed = npvae.fit(parts, x, x_val, epochs=4, resume=states[-1], **options)
    np.testing.assert_array_equal(whole.theta, parts.theta)
    for name in ("epoch", "step", "train_loss", "val_kl"):
        np.testing.assert_array_equal(history[name], resumed[name])


def test_forgetting_the_optimiser_state_breaks_resumption():
    x = lattice_rows(100)
    whole, parts, states = small_model(), small_model(), []
    npvae.fit(whole, x, epochs=2, progress=False)
    npvae.fit(parts, x, epochs=1, progress=False, on_epoch=states.append)
    states[0].optimizer["v"][:] = 0
    npvae.fit(parts, x, epochs=2, progress=False, resume=states[0])
    assert not np.array_equal(whole.theta, parts.theta)


def test_epoch_means_are_exact_when_the_last_batch_is_short():
    x = np.random.default_rng(0).standard_normal((23, 16)).astype(np.float32)
    model = recorder(dtype="float64")
    history = npvae.fit(model, x, epochs=1, batch_size=10, optimizer=SGD(1e-300), progress=False)
    losses = [model.forward(row[None], e[None])[0].loss
              for batch, eps, _ in list(model.seen) for row, e in zip(batch, eps[0])]  # fmt: skip
    assert len(losses) == 23
    assert history["train_loss"][0] == pytest.approx(np.mean(losses), rel=1e-13)


def test_schedules_are_called_with_the_step():
    x = lattice_rows(40)
    model, rates = recorder(), []
    betas = npvae.fit(model, x, x, epochs=2, batch_size=10, progress=False, beta=lambda step: step / 10,
                      optimizer=Adam(lambda step: rates.append(step) or 1e-3))  # fmt: skip
    assert rates == list(range(8))
    assert [beta for _, _, beta in model.seen][:4] == [0, 0.1, 0.2, 0.3]
    row = betas.rows[-1]
    assert row["val_loss"] == pytest.approx(row["val_nll"] + 0.7 * row["val_kl"], rel=1e-6)


def test_grey_images_are_binarised_afresh_with_the_grey_level_as_probability():
    grey = np.tile(np.linspace(0, 1, 16, dtype=np.float32), (2000, 1))
    model = recorder(likelihood="bernoulli")
    npvae.fit(model, grey, epochs=2, batch_size=500, progress=False)
    drawn = np.concatenate([x for x, _, _ in model.seen])
    assert set(np.unique(drawn)) == {0, 1}
    error = np.sqrt(grey[0] * (1 - grey[0]) / len(drawn))
    assert (np.abs(drawn.mean(axis=0) - grey[0]) <= 5 * error).all()
    assert not np.array_equal(model.seen[0][0], model.seen[4][0])
    model = recorder(likelihood="bernoulli")
    npvae.fit(model, grey, epochs=1, batch_size=500, progress=False, binarize=False)
    np.testing.assert_array_equal(model.seen[0][0], grey[:500])


def test_binary_data_are_left_alone():
    x = lattice_rows(20)
    model = recorder(likelihood="bernoulli")
    npvae.fit(model, x, epochs=1, batch_size=20, progress=False)
    assert not Rows.of(model, x, "x").binarize
    np.testing.assert_array_equal(np.sort(model.seen[0][0].sum(axis=1)), np.sort(x.sum(axis=1)))


class Stumbler(npvae.VAE):
    """A model whose loss is NaN at the steps in `bad`."""

    def forward(self, x, eps, beta=1.0, *args, **options):
        self.count = getattr(self, "count", -1) + 1
        return super().forward(x, eps, np.nan if self.count in self.bad else beta, *args, **options)


def test_a_step_that_is_not_finite_is_skipped_and_counted_and_three_in_a_row_abort():
    x, states = lattice_rows(50), []
    model = Stumbler(16, 2, (8,), backend="numpy")
    model.bad = {0, 1, 3, 4}  # two in a row, twice
    with pytest.warns(NpvaeWarning, match="4 of 5 steps were skipped, because loss or gradient were not finite$"):
        npvae.fit(model, x, epochs=1, batch_size=10, progress=False, on_epoch=states.append)
    assert (states[0].skipped, states[0].step, states[0].optimizer["t"]) == (4, 5, 1)
    assert np.isfinite(model.theta).all()
    theta, model.count, model.bad = model.theta.copy(), -1, {0, 1, 2}
    with pytest.raises(FloatingPointError, match=r"3 steps in a row .*step 3: loss, gradient of encoder.0.W.* learning rate"):
        npvae.fit(model, x, epochs=1, batch_size=10, progress=False)
    np.testing.assert_array_equal(model.theta, theta)


def test_skipped_steps_do_not_enter_the_means():
    x = np.tile(lattice_rows(1), (50, 1))  # equal rows, whose kl is the same whichever are skipped
    model = Stumbler(16, 2, (8,), backend="numpy")
    model.bad = {1, 3}
    with pytest.warns(NpvaeWarning, match="2 of 5 steps were skipped"):
        history = npvae.fit(model, x, epochs=1, batch_size=10, optimizer=SGD(1e-30), progress=False)
    assert history["train_kl"][0] == pytest.approx(model.forward(x, np.zeros((50, 2)))[0].kl, rel=1e-6)


@pytest.mark.parametrize("value", [np.nan, -1.0, np.inf])
def test_a_schedule_that_leaves_its_range_is_named_with_its_step(value):
    def schedule(step):
        return value if step == 2 else 1e-3

    for options in ({"beta": schedule}, {"optimizer": Adam(schedule)}):
        with pytest.raises(ValueError, match=r"schedule must give finite numbers of at least 0; got .* at step 2"):
            npvae.fit(small_model(), lattice_rows(50), epochs=1, batch_size=10, progress=False, **options)


def test_a_huge_learning_rate_ends_in_a_clear_error():
    model = small_model(likelihood="gaussian", activation="softplus")
    with pytest.raises(FloatingPointError, match="lower learning rate"):
        npvae.fit(model, lattice_rows(200), epochs=50, batch_size=10, optimizer=SGD(1e10), progress=False)


# ---- rows that spoil what they are averaged with ----


def measured_rows(n, bad=(), seed=0):
    """Rows of a table, some with a fill value whose square no float32 holds."""
    x = np.random.default_rng(seed).standard_normal((n, 16))
    x[list(bad), 3] = 9.97e36
    return x


def gaussian_model(**options):
    return small_model(likelihood="gaussian", **options)


def saver(model, folder, states):
    """An on_epoch that does what `npvae train` does."""

    def on_epoch(state):
        states.append(state)
        if checkpoint.is_sound(state):
            checkpoint.save_progress(folder, model, state)

    return on_epoch


def test_a_validation_loss_that_is_not_finite_is_told_once_with_its_rows_and_stops_nothing(tmp_path):
    """Nor does early stopping take such an epoch for the best."""
    x, x_val = measured_rows(60), measured_rows(40, bad=[17], seed=1)
    model, states = gaussian_model(), []
    with pytest.warns(NpvaeWarning) as told:
        history = npvae.fit(model, x, x_val, epochs=3, batch_size=16, early_stopping=1, progress=False,
                            on_epoch=saver(model, tmp_path, states))  # fmt: skip
    assert [str(warning.message) for warning in told] == [
        "the validation loss is not finite: see row 17 (counted from 0) of the validation data, "
        "with absolute values up to 9.97e+36"
    ]
    assert told[0].filename == __file__
    assert len(history) == 3
    assert np.isnan(history["val_loss"]).all()
    assert np.isfinite(history["train_loss"]).all()
    read_model, read = checkpoint.load_progress(tmp_path)
    np.testing.assert_array_equal(read_model.theta, model.theta)
    assert (read.epoch, read.best) == (3, None)


def stopper(step, states):
    """An on_step that stops there."""
    return lambda state: states.append(state) or state.step == step


@pytest.mark.parametrize("settings", [{"backend": "numpy", "workers": 1}, {"backend": "numba", "workers": 2}])
def test_a_run_with_bad_rows_resumes_to_the_same_bits_wherever_it_stopped(settings, tmp_path):
    x, x_val = measured_rows(50, bad=[11]), measured_rows(20, bad=[3, 5], seed=1)
    options = {"batch_size": 10, "progress": False, "workers": settings["workers"]}
    whole = gaussian_model(backend=settings["backend"])
    with pytest.warns(NpvaeWarning):
        history = npvae.fit(whole, x, x_val, epochs=3, **options)
    for stop in range(1, 15):
        model, states = gaussian_model(backend=settings["backend"]), []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NpvaeWarning)
            npvae.fit(model, x, x_val, epochs=3, on_step=stopper(stop, states), **options)
            checkpoint.save_progress(tmp_path, model, states[-1])
            model, state = checkpoint.load_progress(tmp_path)
            resumed = npvae.fit(model, x, x_val, epochs=3, resume=state, **options)
        np.testing.assert_array_equal(model.theta, whole.theta)
        for name in ("step", "skipped", "train_loss", "val_loss"):
            np.testing.assert_array_equal(resumed[name], history[name])


@pytest.mark.parametrize("settings", [{"backend": "numpy", "workers": 1}, {"backend": "numba", "workers": 2}])
def test_skipped_steps_are_counted_in_each_epoch_and_their_rows_told_at_the_end(settings, capsys):
    model, states = gaussian_model(backend=settings["backend"]), []
    with pytest.warns(NpvaeWarning) as told:
        history = npvae.fit(model, measured_rows(50, bad=[11]), epochs=3, batch_size=10, workers=settings["workers"],
                            on_epoch=states.append)  # fmt: skip
    assert [str(warning.message) for warning in told] == [
        "3 of 15 steps were skipped, because loss or gradient were not finite: see row 11 (counted from 0) of the training "
        "data, with absolute values up to 9.97e+36"
    ]
    np.testing.assert_array_equal(history["skipped"], [1, 1, 1])
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("epoch")]
    assert [" 1 step skipped" in line for line in lines] == [True] * 3
    assert np.isfinite(model.theta).all()


def test_the_search_for_bad_rows_changes_nothing():
    thetas = []
    for epochs in (1, 2):
        model, states = gaussian_model(), []
        with pytest.warns(NpvaeWarning, match="row 11"):
            npvae.fit(model, measured_rows(50, bad=[11]), epochs=epochs, batch_size=10, progress=False,
                      on_epoch=lambda state, model=model, states=states: states.append(model.theta.copy()))  # fmt: skip
        np.testing.assert_array_equal(states[-1], model.theta)
        thetas.append(states[0])
    np.testing.assert_array_equal(*thetas)


class Chained(Regression):
    """A regression whose noise comes from a chain, which every draw moves on."""

    def __init__(self, n_features):
        super().__init__(n_features)
        self.buffers["chain"] = np.zeros(1)

    def draw(self, rng, x, y):
        self.buffers["chain"] += 1
        return super().draw(rng, x, y)


def test_the_search_for_bad_rows_moves_no_chain():
    model, (x, y) = Chained(4), regression_rows(40)
    x[7, 0] = 1e200
    with pytest.warns(NpvaeWarning, match=r"3 of 12 steps were skipped, .* row 7 "):
        npvae.fit(model, (x, y), epochs=3, batch_size=10, progress=False)
    assert model.buffers["chain"] == 12  # a draw for each step


@pytest.mark.parametrize("x_val", [None, measured_rows(20, seed=1)])
def test_an_epoch_whose_last_step_was_skipped_is_saved(x_val):
    """Two steps an epoch, of which one is skipped: the parameters are good whichever it is."""
    seen = []
    with pytest.warns(NpvaeWarning, match="6 of 12 steps were skipped"):
        npvae.fit(gaussian_model(), measured_rows(40, bad=[11]), x_val, epochs=6, batch_size=20, progress=False,
                  on_epoch=lambda state: seen.append((state.skipped_in_a_row, checkpoint.is_sound(state))))  # fmt: skip
    assert {last for last, _ in seen} == {0, 1}
    assert all(sound for _, sound in seen)


def test_where_no_step_was_finite_the_rows_are_told_and_the_model_is_saved_as_it_was():
    model, states = gaussian_model(), []
    theta = model.theta.copy()
    with pytest.warns(NpvaeWarning, match=r"2 of 2 steps were skipped, .*: see row 11 "):
        npvae.fit(model, measured_rows(40, bad=[11]), epochs=2, progress=False, on_epoch=states.append)
    np.testing.assert_array_equal(model.theta, theta)
    assert checkpoint.is_sound(states[-1])


@pytest.mark.parametrize("x_val", [None, measured_rows(20, bad=[2], seed=1)])
@pytest.mark.parametrize("poison", [np.inf, np.nan])
def test_parameters_that_are_not_finite_after_the_last_step_are_told_and_not_saved(poison, x_val, tmp_path):
    """Nothing of training has noticed yet."""
    model, states = gaussian_model(), []

    def on_step(state):
        if state.step == 4:
            model.theta[0] = poison

    with pytest.warns(NpvaeWarning) as told:
        npvae.fit(model, measured_rows(40), x_val, epochs=2, batch_size=20, progress=False, on_step=on_step,
                  on_epoch=saver(model, tmp_path, states))  # fmt: skip
    assert str(told[-1].message) == "training has diverged: after epoch 2 nothing is finite; a lower learning rate may help"
    assert [checkpoint.is_sound(state) for state in states] == [False, False]  # one object: as it is at the end
    assert checkpoint.load_progress(tmp_path)[1].epoch == 1


@pytest.mark.parametrize(("scale", "said"), [(1e30, "1e\\+30"), (-2e30, "2e\\+30")])
def test_data_that_no_step_can_take_are_named_not_the_learning_rate(scale, said):
    x = np.zeros((50, 16))
    x[:, 0] = scale
    message = (r"3 steps in a row were not finite \(step 3: .*\); no step was finite yet, so the learning rate is not the cause"
               rf"\. The data may need scaling: the largest absolute value among the training rows is {said}")  # fmt: skip
    with pytest.raises(FloatingPointError, match=message):
        npvae.fit(gaussian_model(), x, epochs=1, batch_size=10, progress=False)


def test_a_model_without_data_that_begins_with_nothing_finite_is_told_so():
    with pytest.raises(FloatingPointError, match=r"rate is not the cause\. The model's initial parameters may be"):
        npvae.fit(Well(start=np.inf), epochs=1, progress=False)


def test_zero_epochs_train_nothing():
    model = small_model()
    theta = model.theta.copy()
    assert len(npvae.fit(model, lattice_rows(20), epochs=0, progress=False)) == 0
    np.testing.assert_array_equal(model.theta, theta)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"x_train": np.zeros((5, 3))}, "x_train must have 16 columns.*got shape \\(5, 3\\)"),
        ({"x_train": np.zeros((0, 16))}, "x_train"),
        ({"x_train": np.full((5, 16), np.nan)}, "x_train.*nan"),
        ({"x_train": np.full((5, 16), 2.0)}, r"x_train must lie in \[0, 1\]"),
        ({"x_train": np.full((5, 16), "a")}, "x_train"),
        ({"x_val": np.full((5, 16), -1.0)}, r"x_val must lie in \[0, 1\]"),
        ({"epochs": -1}, "epochs must be an integer of at least 0; got -1"),
        ({"batch_size": 0}, "batch_size"),
        ({"n_samples": 0}, "n_samples"),
        ({"seed": -3}, "seed"),
        ({"workers": 0}, "workers"),
        ({"seed": 0.5}, "seed"),
        ({"optimizer": "adam"}, "optimizer must be one of SGD"),
        ({"optimizer": Adam}, "optimizer must be one of SGD.* or an object with a method step"),
        ({"steps_per_epoch": 0}, "steps_per_epoch must be an integer of at least 1; got 0"),
        ({"beta": -1.0}, "beta must be a finite number of at least 0"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message) as error:
        npvae.fit(small_model(), **{"x_train": lattice_rows(10), "progress": False, **arguments})
    assert "\n" not in str(error.value)


def test_complex_models_do_not_train():
    with pytest.raises(ValueError, match="must have dtype float32 or float64; got complex128"):
        npvae.fit(small_model(dtype="complex128"), lattice_rows(10), progress=False)


def test_one_line_per_epoch_where_there_is_no_terminal(capsys):
    history = npvae.fit(small_model(), lattice_rows(20), lattice_rows(10), epochs=2)
    out, err = capsys.readouterr()
    assert err == ""
    lines = out.splitlines()
    assert len(lines) == 2
    row = {name: f"{value:.2f}" for name, value in history.rows[1].items()}
    assert lines[1].startswith(
        f"epoch 2/2  train loss {row['train_loss']} (nll {row['train_nll']}, kl {row['train_kl']})  "
        f"val loss {row['val_loss']} (nll {row['val_nll']}, kl {row['val_kl']}) nats per datum  "
    )
    assert lines[1].endswith("rows/s")


def test_progress_can_be_switched_off(capsys, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    npvae.fit(small_model(), lattice_rows(20), epochs=2, progress=False)
    npvae.fit_lbfgs(small_model(), lattice_rows(20), iterations=2, progress=False)
    assert capsys.readouterr() == ("", "")


def test_progress_bar_on_a_terminal(capsys, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    npvae.fit(small_model(), lattice_rows(200), epochs=1, batch_size=1)
    err = capsys.readouterr().err
    assert "epoch 1/1" in err
    assert "rows" in err


def test_the_bar_counts_rows_from_where_the_run_stands(monkeypatch):
    bars, bar = [], training.progress_bar
    monkeypatch.setattr(training, "progress_bar", lambda progress, **options: bars.append(options) or bar(progress, **options))
    states = []
    npvae.fit(small_model(), lattice_rows(20), epochs=1, progress=False, on_epoch=states.append)
    npvae.fit(small_model(), lattice_rows(20), epochs=3, progress=False, resume=states[0])
    npvae.fit(Well(), epochs=2, steps_per_epoch=7, progress=False)
    assert bars == [
        {"total": 20, "initial": 0, "unit": " rows"},
        {"total": 60, "initial": 20, "unit": " rows"},
        {"total": 14, "initial": 0, "unit": " steps"},
    ]


def test_seconds_are_those_of_training_added_up(monkeypatch):
    model, ticks, states = small_model(), itertools.count(), []
    monkeypatch.setattr(training.time, "perf_counter", lambda: float(next(ticks)))
    x = lattice_rows(20)
    npvae.fit(model, x, x, epochs=2, progress=False, on_epoch=states.append)
    history = npvae.fit(model, x, x, epochs=3, progress=False, resume=states[-1])
    np.testing.assert_array_equal(history["seconds"], [1, 2, 3])


def blas_threads():
    return [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]


@pytest.mark.parametrize("workers", [None, 1, 2])
def test_workers_hold_during_training_and_not_after(workers):
    during = []
    with threadpool_limits(3, user_api="blas"):
        before = blas_threads()
        npvae.fit(small_model(), lattice_rows(20), epochs=1, workers=workers, progress=False,
                  on_epoch=lambda state: during.extend(blas_threads()))  # fmt: skip
        assert blas_threads() == before
    assert set(during) == {1}  # per worker
    assert set(before) == {3}


@pytest.mark.parametrize(("backend", "progress", "lines"), [("numba", True, 1), ("numba", False, 0), ("numpy", True, 0)])
def test_who_watches_is_told_of_compilation(backend, progress, lines, monkeypatch, capsys):
    @contextlib.contextmanager
    def compiles(say):
        say()
        yield

    monkeypatch.setattr("npvae.kernels.compile.announced", compiles)
    npvae.fit(small_model(backend=backend), lattice_rows(20), epochs=1, progress=progress)
    assert capsys.readouterr().out.count("compiling the kernels") == lines


def test_the_output_bias_starts_at_the_data_s_mean():
    x = np.array([[0, 255, 51], [0, 255, 0], [0, 255, 0]], np.uint8)
    for likelihood, expected in [("bernoulli", [np.log(1 / 4), np.log(4), np.log(1.2 / 3.8)]), ("gaussian", [0, 1, 0.2 / 3])]:
        model = npvae.VAE(3, 2, (), likelihood=likelihood, backend="numpy", dtype="float64")
        before = model.theta.copy()
        npvae.fit(model, x, epochs=0, progress=False)
        np.testing.assert_array_equal(model.theta, before)  # only where asked for
        model.set_output_bias(x / 255)
        np.testing.assert_allclose(model.parameters["likelihood.b"], expected, rtol=1e-14)
        model.parameters["likelihood.b"] = 0
        np.testing.assert_array_equal(model.theta, before)  # and nothing else was changed


# ---- early stopping ----

X = lattice_rows(60)


class Judge(npvae.VAE):
    """A model whose validation loss is what `losses` says, epoch by epoch."""

    def forward(self, x, eps, beta=1.0, *args, **options):
        terms, cache = super().forward(x, eps, beta, *args, **options)
        if not hasattr(self, "judged"):
            return terms, cache
        return terms._replace(loss=self.losses[self.judged]), cache


def stopped_at(losses, patience, beta=1.0, epochs=10, **options):
    """Train with these validation losses; the history, and the parameters after each epoch and at the end."""
    model, thetas = Judge(16, 3, (), backend="numba", seed=1), []
    model.losses, model.judged = losses, 0

    def on_epoch(state):
        thetas.append(model.theta.copy())
        model.judged += 1

    history = npvae.fit(model, X, X[:5], epochs=epochs, early_stopping=patience, beta=beta, progress=False,
                        on_epoch=on_epoch, batch_size=20, **options)  # fmt: skip
    return history, thetas, model.theta


def test_training_stops_early_and_keeps_the_weights_of_the_best_epoch():
    history, thetas, theta = stopped_at([5, 4, 3, 3.5, 3, 3.2, 1, 1, 1, 1], patience=3)
    assert len(history) == 6  # three epochs after the third, whose loss none of them undercut
    np.testing.assert_array_equal(theta, thetas[2])
    assert not np.array_equal(theta, thetas[5])


def test_without_patience_running_out_the_best_weights_are_kept_all_the_same():
    history, thetas, theta = stopped_at([5, 4, 3, 3.5, 3.4], patience=5, epochs=5)
    assert len(history) == 5
    np.testing.assert_array_equal(theta, thetas[2])


@pytest.mark.parametrize("losses", [[np.nan, 4, 3, 3.5, 3.6], [5, np.inf, 3, np.nan, 4], [np.nan, np.nan, 3, -np.inf, 4]])
def test_a_validation_loss_that_is_not_finite_is_never_the_best(losses):
    with pytest.warns(NpvaeWarning, match="the validation loss is not finite"):
        history, thetas, theta = stopped_at([*losses, 1, 1, 1, 1, 1], patience=2)
    assert len(history) == 5
    np.testing.assert_array_equal(theta, thetas[2])


class JudgedRegression(Regression):
    """A regression whose loss is what `losses` says, epoch by epoch; its settings are a tuple and a number of NumPy's."""

    losses, judged = (1.0, 2.0, 3.0, 4.0), 0

    def draw(self, rng, x, y, pair, weight):
        return np.zeros(len(x))

    def forward(self, x, y, noise, pair, weight):
        terms, cache = super().forward(x, y, noise)
        return terms._replace(loss=self.losses[self.judged]), cache


def test_losses_of_the_same_settings_are_compared_after_a_resume_too(tmp_path):
    model = JudgedRegression(4)

    def on_epoch(state):
        model.judged = state.epoch
        checkpoint.save_progress(tmp_path, model, state)

    options = {"early_stopping": 3, "progress": False, "pair": (1, 2), "weight": np.array([0.5, 1.0]), "on_epoch": on_epoch}
    npvae.fit(model, regression_rows(40), regression_rows(20), epochs=2, **options)
    model, state = checkpoint.load_progress(tmp_path, JudgedRegression)
    model.judged = 2
    history = npvae.fit(model, regression_rows(40), regression_rows(20), epochs=4, resume=state, **options)
    assert state.best.epoch == 1
    assert len(history) == 4


def test_losses_of_different_weights_of_the_kl_are_not_compared():
    """Annealing raises the loss from epoch to epoch: what counts begins when beta stays."""
    history, thetas, theta = stopped_at([1, 2, 3, 4, 3.5, 3.6, 3.7], patience=2, beta=Linear(3 * 3), epochs=9)
    assert len(history) == 7
    np.testing.assert_array_equal(theta, thetas[4])


def test_early_stopping_says_so(capsys):
    model = Judge(16, 3, (), seed=1)
    model.losses, model.judged = [1.0], 0
    npvae.fit(model, X, X[:5], epochs=9, early_stopping=2)
    out = capsys.readouterr().out
    assert "stopped early: no lower validation loss in 2 epochs; kept the weights of epoch 1" in out


def test_the_best_epoch_survives_saving(tmp_path):
    model = npvae.VAE(16, 3, (), backend="numpy", seed=1)
    states = []
    npvae.fit(model, X, X[:5], epochs=2, early_stopping=1, progress=False, on_epoch=states.append)
    state = states[-1]
    last = model.theta + 1
    model.theta = last
    checkpoint.save_progress(tmp_path, model, state)
    read_model, read = checkpoint.load_progress(tmp_path)
    np.testing.assert_array_equal(read_model.theta, last)
    assert (read.best.epoch, read.best.loss, read.best.settings) == (state.best.epoch, state.best.loss, state.best.settings)
    assert read.best.settings == {"objective": "elbo", "beta": 1.0, "n_samples": 1}
    np.testing.assert_array_equal(read.best.theta, state.best.theta)
    np.testing.assert_array_equal(checkpoint.load_model(tmp_path, best=True).theta, state.best.theta)
    assert set(read.optimizer) == {"t", "m", "v"}


def test_resuming_a_run_that_stopped_early_trains_no_further():
    states = []
    model = Judge(16, 3, (), seed=1)
    model.losses, model.judged = [1.0], 0
    options = {"early_stopping": 2, "progress": False}
    npvae.fit(model, X, X[:5], epochs=9, on_epoch=states.append, **options)
    history = npvae.fit(model, X, X[:5], epochs=9, resume=states[-1], **options)
    assert len(history) == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_gradient_norm": 0}, "max_gradient_norm must be a finite number above 0"),
        ({"weight_decay": -1}, "weight_decay must be a finite number of at least 0"),
        ({"early_stopping": 0}, "early_stopping must be an integer of at least 1"),
        ({"early_stopping": 3}, "early_stopping needs validation data, x_val"),
    ],
)
def test_bad_craft_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        npvae.fit(small_model(), lattice_rows(20), epochs=1, progress=False, **arguments)
