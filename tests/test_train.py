"""Training: each row once per epoch, noise a pure function of seed and step, exact means, accidents."""

import contextlib
import itertools

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

import npvae
from npvae import batches, minibatch, train
from npvae.batches import Stream
from npvae.optim import SGD, AdaGrad, Adam, Momentum, RMSProp
from npvae.parallel import Workers


def lattice_rows(n=200, D=16, seed=0):
    """Rows of zeros and ones with one strong collective variable, so that there is something to learn."""
    rng = np.random.default_rng(seed)
    p = np.where(rng.random((n, 1)) < 0.5, 0.9, 0.1)
    return (rng.random((n, D)) < p).astype(np.float32)


def small_model(**options):
    return npvae.VAE(**{"n_features": 16, "n_latent": 2, "hidden": (8,), "backend": "numpy", **options})


class Recorder(npvae.VAE):
    """A model that remembers what it was trained on."""

    def forward(self, x, eps, beta=1.0, *args, **options):
        if not hasattr(self, "seen"):
            self.seen = []
        self.seen.append((x.copy(), eps.copy(), beta))
        return super().forward(x, eps, beta, *args, **options)


def recorder(**options):
    return Recorder(**{"n_features": 16, "n_latent": 2, "hidden": (), "backend": "numpy", "likelihood": "gaussian", **options})


@pytest.mark.parametrize("optimizer", [SGD(1e-2), Momentum(1e-3), AdaGrad(1e-2), RMSProp(1e-2), Adam(1e-2)])
def test_training_lowers_the_loss(optimizer):
    x = lattice_rows()
    history = npvae.fit(small_model(), x, lattice_rows(seed=1), epochs=5, batch_size=32, optimizer=optimizer, progress=False)
    assert history["val_loss"][-1] < history["val_loss"][0] < 16 * np.log(2) * 1.3
    assert history["train_loss"][-1] < history["train_loss"][0]


def test_lbfgs_finds_a_stationary_point_of_the_loss_with_fixed_draws():
    x = lattice_rows(30)
    model = npvae.VAE(16, 1, (), likelihood="gaussian", sigma=1, dtype="float64", backend="numpy")
    history = npvae.fit_lbfgs(model, x, x[:20], iterations=80, n_samples=3, beta=0.5, seed=4, progress=False)
    assert (np.diff(history["train_loss"]) <= 1e-9).all()
    assert len(history) <= 80
    np.testing.assert_array_equal(history["step"], np.arange(1, len(history) + 1))
    eps = train.generator(4, train.FULL_BATCH, 0).standard_normal((3, 30, 1))
    terms, cache = model.forward(x, eps, 0.5)
    gradient = np.concatenate([value.ravel() for value in model.backward(cache).values()])
    assert np.abs(gradient).max() < 1e-2 < 0.1 < history["train_loss"][0] - history["train_loss"][-1]
    last = history.rows[-1]
    assert [last[f"train_{name}"] for name in ("loss", "nll", "kl")] == pytest.approx(terms[:3], rel=1e-12)
    val_terms = minibatch.validate(model, train.Rows.of(model, x[:20], "x_val"), 0.5, seed=4)
    assert [last[f"val_{name}"] for name in ("loss", "nll", "kl")] == pytest.approx(val_terms, rel=1e-12)


def test_lbfgs_draws_grey_images_once_or_takes_their_levels():
    grey = np.random.default_rng(0).random((30, 16))
    for binarize in (True, False):
        model = recorder(likelihood="bernoulli", dtype="float64")
        history = npvae.fit_lbfgs(model, grey, iterations=2, binarize=binarize, progress=False)
        assert (len(np.unique(model.seen[0][0])) == 2) == binarize
        for seen in model.seen:
            np.testing.assert_array_equal(seen[0], model.seen[0][0])
            np.testing.assert_array_equal(seen[1], model.seen[0][1])
        assert np.isnan(history["val_loss"]).all()


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
    drawn, generator = [], train.generator

    class Recorded(Stream):
        def __init__(self, *key):
            super().__init__(*key)
            self.key = key

        def at(self, step):
            drawn.append((*self.key, step))
            return super().at(step)

    for module in (train, minibatch):
        monkeypatch.setattr(module, "generator", lambda *key: drawn.append(key) or generator(*key))
    monkeypatch.setattr(minibatch, "Stream", Recorded)
    x = lattice_rows(20)
    npvae.fit(small_model(), x, x, epochs=2, batch_size=10, seed=9, progress=False)
    npvae.fit_lbfgs(small_model(), x, iterations=1, seed=9, progress=False)
    steps = [[(9, train.PERMUTATION, e), *((9, batches.STEP, 0, 2 * e + i) for i in (0, 1))] for e in (0, 1)]
    validation = [(9, batches.VALIDATION, 0), (9, batches.VALIDATION, 1)]
    assert drawn == [*steps[0], *validation, *steps[1], *validation, (9, train.FULL_BATCH, 0)]
    assert len({train.PERMUTATION, batches.STEP, batches.VALIDATION, train.FULL_BATCH}) == 4
    keys = [(0, 0, 0), (0, 0, 1), (0, 1, 0), (1, 0, 0), (0, 1, 1), (1, 1, 0)]
    assert len({generator(*key).bytes(8) for key in keys}) == 6


def test_the_numbers_of_a_step_depend_on_nothing_but_the_step():
    key = (7, batches.STEP, 1)
    stream = Stream(*key)
    first = [stream.at(step).standard_normal(5) for step in (0, 1, 10**6)]
    assert len({numbers.tobytes() for numbers in first}) == 3
    stream.at(3).random(1001, np.float32)  # leaves half of a 64-bit number behind
    for step, numbers in zip((10**6, 0, 1), (first[2], *first[:2])):
        np.testing.assert_array_equal(stream.at(step).standard_normal(5), numbers)
        np.testing.assert_array_equal(Stream(*key).at(step).standard_normal(5), numbers)
    np.testing.assert_array_equal(first[0], np.random.Generator(np.random.PCG64DXSM(key)).standard_normal(5))
    jumped = np.random.Generator(np.random.PCG64DXSM(key).jumped(1)).standard_normal(5)
    np.testing.assert_array_equal(first[1], jumped)
    assert not np.array_equal(Stream(7, batches.STEP, 2).at(0).standard_normal(5), first[0])


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


def test_validation_is_exact_and_has_the_same_noise_in_every_epoch():
    x = lattice_rows(50)
    history = npvae.fit(small_model(), x, x[:23], epochs=3, batch_size=10, optimizer=SGD(1e-30), progress=False)
    assert len(set(history["val_loss"])) == 1
    model = small_model(dtype="float64")
    rows = train.Rows.of(model, x[:23], "x")
    assert minibatch.validate(model, rows, batch_size=10)[2] == pytest.approx(model.forward(x[:23], np.zeros((23, 2)))[0].kl)


def test_validation_measures_the_validation_rows_with_the_model_after_the_epoch():
    x, x_val = lattice_rows(40), np.random.default_rng(1).random((30, 16)).astype(np.float32)
    for binarize in (True, False):
        model = small_model()
        history = npvae.fit(model, x, x_val, epochs=2, batch_size=8, beta=0.5, seed=7, binarize=binarize, progress=False)
        rows = train.Rows.of(model, x_val, "x_val", binarize)
        assert rows.binarize == binarize
        expected = minibatch.validate(model, rows, 0.5, batch_size=8, seed=7)
        np.testing.assert_array_equal([history[f"val_{name}"][-1] for name in ("loss", "nll", "kl")], expected)
        assert history["val_loss"][0] != history["val_loss"][1]


def test_no_two_validation_batches_or_seeds_draw_the_same():
    model = recorder()
    for seed in (0, 1):
        minibatch.validate(model, train.Rows.of(model, lattice_rows(40), "x"), batch_size=10, seed=seed)
    assert len({eps.tobytes() for _, eps, _ in model.seen}) == 8


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


def test_one_grey_pixel_in_the_last_of_many_rows_is_found():
    x = np.zeros((2500, 3), np.float32)
    assert batches.is_binary(x)
    x[-1, -1] = 0.5
    assert not batches.is_binary(x)


def test_bytes_are_grey_levels_and_other_types_are_values():
    model = small_model(likelihood="gaussian")
    grey = np.tile(np.arange(0, 256, 17, dtype=np.uint8), (3, 1))
    np.testing.assert_allclose(npvae.model_input(model, grey), grey / 255, rtol=1e-6)
    for binary in (grey > 99, (grey > 99).astype(np.uint8), (grey > 99).astype(float)):
        np.testing.assert_array_equal(npvae.model_input(model, binary), grey > 99)
        assert npvae.model_input(model, binary).dtype == np.float32
    bernoulli = small_model()
    assert set(np.unique(npvae.model_input(bernoulli, grey, 0))) <= {0, 1}
    np.testing.assert_array_equal(npvae.model_input(bernoulli, grey, 0), npvae.model_input(bernoulli, grey, 0))


def test_binary_data_are_left_alone():
    x = lattice_rows(20)
    model = recorder(likelihood="bernoulli")
    npvae.fit(model, x, epochs=1, batch_size=20, progress=False)
    assert not train.Rows.of(model, x, "x").binarize
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


def test_a_gradient_whose_square_overflows_is_an_accident():
    """Adam would keep its infinite v, and the parameter would never move again."""
    model = small_model(sigma=1e-11, likelihood="gaussian")
    with Workers(1) as workers:
        gradient = minibatch.MinibatchGradient(
            model, train.Rows.of(model, lattice_rows(4), "x"), 4, minibatch.Objective(), 0, workers
        )
        terms, grad, culprits = gradient(np.arange(4), 0)
    assert grad.shape == (1, model.theta.size)
    assert np.isfinite(terms.loss)
    assert np.isfinite(grad).all()
    assert "gradient of likelihood.W" in culprits
    theta = model.theta.copy()
    with pytest.raises(FloatingPointError, match=r"gradient of likelihood\.W"):  # an epoch has one step: counted across epochs
        npvae.fit(model, lattice_rows(4), epochs=5, progress=False)
    np.testing.assert_array_equal(model.theta, theta)


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
        ({"beta": -1.0}, "beta must be a finite number of at least 0"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message) as error:
        npvae.fit(small_model(), **{"x_train": lattice_rows(10), "progress": False, **arguments})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"iterations": 0}, "iterations must be an integer of at least 1; got 0"),
        ({"n_samples": 0}, "n_samples"),
        ({"seed": -1}, "seed"),
        ({"beta": -1.0}, "beta"),
        ({"x_train": np.zeros((5, 3))}, "x_train must have 16 columns"),
        ({"x_val": np.full((5, 16), 2.0)}, "x_val must lie in"),
    ],
)
def test_bad_arguments_of_lbfgs_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        npvae.fit_lbfgs(small_model(), **{"x_train": lattice_rows(10), "progress": False, **arguments})


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
        f"epoch 2/2  train {row['train_loss']} = nll {row['train_nll']} + kl {row['train_kl']} nats  "
        f"val {row['val_loss']} = nll {row['val_nll']} + kl {row['val_kl']} nats  "
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
    bars, bar = [], train.progress_bar
    monkeypatch.setattr(train, "progress_bar", lambda progress, **options: bars.append(options) or bar(progress, **options))
    states = []
    npvae.fit(small_model(), lattice_rows(20), epochs=1, progress=False, on_epoch=states.append)
    npvae.fit(small_model(), lattice_rows(20), epochs=3, progress=False, resume=states[0])
    assert bars == [{"total": 20, "initial": 0}, {"total": 60, "initial": 20}]


def test_seconds_are_those_of_training_added_up(monkeypatch):
    model, ticks, states = small_model(), itertools.count(), []
    monkeypatch.setattr(train.time, "perf_counter", lambda: float(next(ticks)))
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


def test_history_is_a_table():
    lengths = []
    history = npvae.fit(small_model(), lattice_rows(20), epochs=3, batch_size=8, progress=False,
                        on_epoch=lambda state: lengths.append((state.epoch, len(state.history))))  # fmt: skip
    assert lengths == [(1, 1), (2, 2), (3, 3)]  # called after each epoch, with its row
    assert len(history) == 3
    np.testing.assert_array_equal(history["epoch"], [1, 2, 3])
    np.testing.assert_array_equal(history["step"], [3, 6, 9])
    assert np.isnan(history["val_loss"]).all()
    assert repr(history).startswith(f"History(3 epochs): epoch 3/3  train {history['train_loss'][-1]:.2f} = nll")
    assert list(history.rows[0]) == ["epoch", "step", "seconds", "train_loss", "train_nll", "train_kl",
                                     "val_loss", "val_nll", "val_kl"]  # fmt: skip


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
        npvae.fit(model, x, epochs=0, output_bias=True, progress=False)
        np.testing.assert_allclose(model.parameters["likelihood.b"], expected, rtol=1e-14)
        before, states = model.theta.copy(), []
        npvae.fit(model, x, epochs=0, progress=False)
        np.testing.assert_array_equal(model.theta, before)  # only where asked for
        npvae.fit(model, x, epochs=1, output_bias=True, progress=False, on_epoch=states.append)
        after = model.theta.copy()
        npvae.fit(model, x, epochs=1, output_bias=True, progress=False, resume=states[0])
        np.testing.assert_array_equal(model.theta, after)  # and not when a run goes on
