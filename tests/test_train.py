"""Training: each row once per epoch, noise a pure function of seed and step, exact means, accidents."""

import numpy as np
import pytest

import npvae
from npvae import train
from npvae.optim import SGD, AdaGrad, Adam, Momentum, RMSProp, initial_state


def lattice_rows(n=200, D=16, seed=0):
    """Rows of zeros and ones with one strong collective variable, so that there is something to learn."""
    rng = np.random.default_rng(seed)
    p = np.where(rng.random((n, 1)) < 0.5, 0.9, 0.1)
    return (rng.random((n, D)) < p).astype(np.float32)


def small_model(**options):
    return npvae.VAE(**{"n_features": 16, "n_latent": 2, "hidden": (8,), "backend": "numpy", **options})


class Recorder(npvae.VAE):
    """A model that remembers what it was trained on."""

    def forward(self, x, eps, beta=1.0, check=True):
        if not hasattr(self, "seen"):
            self.seen = []
        self.seen.append((x.copy(), eps.copy(), beta))
        return super().forward(x, eps, beta, check)


def recorder(**options):
    return Recorder(**{"n_features": 16, "n_latent": 2, "hidden": (), "backend": "numpy", "likelihood": "gaussian", **options})


@pytest.mark.parametrize("optimizer", [SGD(1e-2), Momentum(1e-3), AdaGrad(1e-2), RMSProp(1e-2), Adam(1e-2)])
def test_training_lowers_the_loss(optimizer):
    x = lattice_rows()
    history = npvae.fit(small_model(), x, lattice_rows(seed=1), epochs=5, batch_size=32, optimizer=optimizer, progress=False)
    assert history["val_loss"][-1] < history["val_loss"][0] < 16 * np.log(2) * 1.3
    assert history["train_loss"][-1] < history["train_loss"][0]


def test_lbfgs_lowers_the_loss_and_finds_a_stationary_point():
    x = lattice_rows(60)
    model = small_model(dtype="float64", activation="tanh")
    history = npvae.fit_lbfgs(model, x, x[:20], iterations=300, progress=False)
    assert history["train_loss"][-1] < history["train_loss"][0]
    assert (np.diff(history["train_loss"]) <= 1e-9).all()
    assert not np.isnan(history["val_loss"]).any()
    assert len(history) <= 300


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
    for batch_size, epochs in [(10, 2), (10, 1)]:
        model = recorder()
        npvae.fit(model, x, epochs=epochs, batch_size=batch_size, progress=False, n_samples=3)
        runs.append([eps for _, eps, _ in model.seen])
    assert runs[0][0].shape == (3, 10, 2)
    for a, b in zip(*runs):  # the shorter run draws what the longer one drew at the same steps
        np.testing.assert_array_equal(a, b)
    assert len({eps.tobytes() for eps in runs[0]}) == 8  # and no two steps draw the same


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
    assert train.validate(model, rows, batch_size=10)[2] == pytest.approx(model.forward(x[:23], np.zeros((23, 2)))[0].kl)


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

    def forward(self, x, eps, beta=1.0, check=True):
        self.count = getattr(self, "count", -1) + 1
        return super().forward(x, eps, np.nan if self.count in self.bad else beta, check)


def test_a_step_that_is_not_finite_is_skipped_and_counted_and_three_in_a_row_abort():
    x, states = lattice_rows(50), []
    model = Stumbler(16, 2, (8,), backend="numpy")
    model.bad = {1, 3}
    npvae.fit(model, x, epochs=1, batch_size=10, progress=False, on_epoch=states.append)
    assert (states[0].skipped, states[0].step, states[0].optimizer["t"]) == (2, 5, 3)
    assert np.isfinite(model.theta).all()
    assert np.isfinite(states[0].history["train_loss"]).all()
    theta, model.count, model.bad = model.theta.copy(), -1, {0, 1, 2}
    with pytest.raises(FloatingPointError, match=r"3 steps in a row .*step 3: loss, gradient of encoder.0.W.* learning rate"):
        npvae.fit(model, x, epochs=1, batch_size=10, progress=False)
    np.testing.assert_array_equal(model.theta, theta)


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
    state = train.TrainingState(initial_state(Adam(), model.theta))
    grad = np.empty_like(model.theta)
    theta, x = model.theta.copy(), lattice_rows(4)
    terms, culprits = train._train_step(model, Adam(), x, np.zeros((1, 4, 2), np.float32), 1.0, grad, state)
    assert np.isfinite(terms.loss)
    assert np.isfinite(grad).all()
    assert "gradient of likelihood.W" in culprits
    np.testing.assert_array_equal(model.theta, theta)
    assert state.optimizer["t"] == 0


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


def test_complex_models_do_not_train():
    with pytest.raises(ValueError, match="must have dtype float32 or float64; got complex128"):
        npvae.fit(small_model(dtype="complex128"), lattice_rows(10), progress=False)


def test_one_line_per_epoch_where_there_is_no_terminal(capsys):
    npvae.fit(small_model(), lattice_rows(20), lattice_rows(10), epochs=2)
    out, err = capsys.readouterr()
    assert err == ""
    lines = out.splitlines()
    assert len(lines) == 2
    assert lines[1].startswith("epoch 2/2  train ")
    assert "nll" in lines[1]
    assert "kl" in lines[1]
    assert "nats" in lines[1]
    assert lines[1].endswith("rows/s")


def test_progress_bar_on_a_terminal(capsys, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    npvae.fit(small_model(), lattice_rows(200), epochs=1, batch_size=1)
    err = capsys.readouterr().err
    assert "epoch 1/1" in err
    assert "rows" in err


def test_small_models_use_one_thread_and_large_ones_all_cores():
    assert train.threads_for(small_model(), 128) == 1
    assert train.threads_for(npvae.VAE(784, 20, (400,), backend="numpy"), 128) == train.cores_available() >= 1


def test_history_is_a_table():
    history = npvae.fit(small_model(), lattice_rows(20), epochs=3, progress=False)
    assert len(history) == 3
    np.testing.assert_array_equal(history["epoch"], [1, 2, 3])
    assert np.isnan(history["val_loss"]).all()
    assert "3 epochs" in repr(history)
    assert list(history.rows[0]) == ["epoch", "step", "seconds", "train_loss", "train_nll", "train_kl",
                                     "val_loss", "val_nll", "val_kl"]  # fmt: skip
