"""Models and optimisers of somebody else train with `fit`: they have what the protocol asks for, and inherit nothing."""

import json

import numpy as np
import pytest
from small_models import Averaging, Elementwise, Regression, Well, lattice_rows, regression_rows, small_model

import npvae
from npvae.data.rows import Rows
from npvae.models.protocol import Model
from npvae.training import checkpoint, optim
from npvae.training.schedules import Linear
from npvae.training.validation import validate

# ---- a model of one's own ----


def required(protocol):
    """The names that a Protocol class asks for."""
    return set(protocol.__annotations__) | {name for name in vars(protocol) if not name.startswith("_")}


@pytest.mark.parametrize("model", [Regression(3), Well()])
def test_these_models_have_what_the_protocol_asks_for_and_nothing_else(model):
    public = {name for name in dir(model) if not name.startswith("_")}
    assert public == required(Model)
    assert type(model).__mro__ == (type(model), object)


OURS = [next(iter(kind.examples("numpy"))).model for kind in npvae.models.classes().values()]


@pytest.mark.parametrize("model", [*OURS, small_model(), Regression(3), Well()], ids=lambda model: type(model).__name__)
def test_every_model_keeps_the_protocol(model):
    assert required(Model) <= set(dir(model))
    json.dumps(model.config)
    assert model.Terms._fields[0] == "loss"
    before = model.theta
    model.theta = np.arange(model.theta.size)
    assert model.theta is before  # assignment copies
    np.testing.assert_array_equal(np.concatenate([value.ravel() for value in model.parameters.values()]), before)
    assert type(model)(**model.config).theta.shape == model.theta.shape


@pytest.mark.parametrize("workers", [1, 3])
def test_a_regression_finds_the_weights_and_its_terms_are_the_columns(workers, capsys):
    x, y = regression_rows()
    model = Regression(4)
    history = npvae.fit(model, (x, y), (x[:50], y[:50]), epochs=30, batch_size=20, optimizer=npvae.Adam(0.1), workers=workers)
    np.testing.assert_allclose(model.theta, [1, 2, 3, 4, -0.5], atol=0.02)
    assert list(history.rows[0]) == [
        "epoch", "step", "seconds", "skipped", "train_loss", "train_error", "val_loss", "val_error"]  # fmt: skip
    terms, _ = model.forward(x[:50], y[:50], 0.0)
    np.testing.assert_allclose([history["val_loss"][-1], history["val_error"][-1]], terms, rtol=1e-12)
    last = history.rows[-1]
    line = capsys.readouterr().out.splitlines()[-1]
    assert line.startswith(f"epoch 30/30  train loss {last['train_loss']:.2f} (error {last['train_error']:.2f})  val loss ")


def test_lbfgs_finds_the_least_squares_solution():
    x, y = regression_rows()
    model = Regression(4)
    npvae.fit_lbfgs(model, (x, y), iterations=50, progress=False)
    design = np.column_stack([x, np.ones(len(x))])
    np.testing.assert_allclose(model.theta, np.linalg.lstsq(design, y, rcond=None)[0], atol=1e-6)


@pytest.mark.parametrize("workers", [1, 3])
def test_all_arrays_of_a_batch_reach_draw_and_forward_row_by_row(workers):
    seen = []

    class Recorder(Regression):
        def draw(self, rng, x, y, **settings):
            noise = np.arange(len(x)) + 0.5
            seen.append(("draw", x.copy(), y.copy(), None))
            return noise

        def forward(self, x, y, noise, **settings):
            seen.append(("forward", x.copy(), y.copy(), noise))
            return super().forward(x, y, 0 * noise, **settings)

    x = np.arange(50.0)[:, None] * [1, 100]
    options = {"epochs": 1, "batch_size": 20, "optimizer": npvae.SGD(1e-12), "workers": workers, "progress": False}
    npvae.fit(Recorder(2), (x, 10 * x[:, 0]), **options)
    for name in ("draw", "forward"):
        calls = [call for call in seen if call[0] == name]
        rows = np.concatenate([x for _, x, _, _ in calls])
        np.testing.assert_array_equal(np.sort(rows[:, 0]), np.arange(50))
        assert not np.array_equal(rows[:, 0], np.arange(50))  # in an order of the seed's
        np.testing.assert_array_equal(np.concatenate([y for _, _, y, _ in calls]), 10 * rows[:, 0])
    assert all(np.array_equal(noise, np.arange(len(x)) + 0.5) for name, x, _, noise in seen if name == "forward")


def test_losses_of_different_settings_are_not_compared():
    """The noise on y rises for three epochs, and the loss with it: what counts begins when it stays."""
    x, y = regression_rows()
    options = {"epochs": 9, "batch_size": 203, "early_stopping": 3, "optimizer": npvae.SGD(1e-300), "progress": False}
    history = npvae.fit(Regression(4), (x, y), (x, y), jitter=Linear(3, 0.0, 9.0), **options)
    assert (np.diff(history["val_loss"][:4]) > 0).all()
    assert len(history) == 7  # the best epoch is the fourth, the first with the last settings
    states = []
    options = {**options, "on_epoch": lambda state: states.append(state.best), "epochs": 5}
    npvae.fit(Regression(4), (x, y), (x, y), jitter=Linear(3, 0.0, 9.0), **options)
    assert [best.epoch for best in states] == [1, 2, 3, 4, 4]
    assert [best.settings for best in states][-2:] == [{"jitter": 9.0}, {"jitter": 9.0}]


# ---- a model without data ----


def test_a_model_without_data_counts_steps():
    model, states, numbers = Well(), [], []
    history = npvae.fit(model, epochs=3, steps_per_epoch=400, optimizer=npvae.Adam(0.02), progress=False,
                        on_epoch=states.append, on_step=lambda state: numbers.append((state.step, state.position)))  # fmt: skip
    np.testing.assert_allclose(model.theta, [3, 0], atol=0.2)
    np.testing.assert_array_equal(history["step"], [400, 800, 1200])
    assert numbers[:2] == [(1, 1), (2, 2)]
    assert numbers[400] == (401, 1)
    assert np.isnan(history["val_loss"]).all()
    assert history["train_energy"][-1] < 1 < history["train_energy"][0]
    assert npvae.fit(Well(), (), epochs=1, progress=False)["step"][0] == 100


def test_a_model_without_data_has_other_noise_in_each_step_and_the_settings_given():
    class Recorder(Well):
        def forward(self, eps, **settings):
            seen.append((eps.copy(), settings))
            return super().forward(eps, **settings)

    seen = []
    options = {"epochs": 2, "steps_per_epoch": 4, "n_draws": 7, "workers": 3, "progress": False}
    history = npvae.fit(Recorder(), optimizer=npvae.SGD(1e-12), **options)
    assert len(seen) == 8
    assert len({eps.tobytes() for eps, _ in seen}) == 8
    assert all(len(eps) == 7 and settings == {"n_draws": 7} for eps, settings in seen)
    energies = [Well().forward(eps)[0].energy for eps, _ in seen]
    np.testing.assert_allclose(history["train_energy"], np.reshape(energies, (2, 4)).mean(axis=1), rtol=1e-9)


@pytest.mark.parametrize("stop", [3, 5, 7])
def test_a_model_without_data_resumes_bit_for_bit_wherever_it_stopped(stop, tmp_path):
    options = {"epochs": 3, "steps_per_epoch": 5, "seed": 3, "progress": False}
    whole, model = Well(), Well()
    history = npvae.fit(whole, **options)

    def on_step(state):
        checkpoint.save_progress(tmp_path, model, state)
        return state.step == stop

    npvae.fit(model, on_step=on_step, **options)
    model, state = checkpoint.load_progress(tmp_path, Well)
    assert state.step == stop
    resumed = npvae.fit(model, resume=state, **options)
    np.testing.assert_array_equal(model.theta, whole.theta)
    np.testing.assert_array_equal(resumed["train_loss"], history["train_loss"])


def test_a_model_without_data_has_none_to_validate_with():
    with pytest.raises(ValueError, match="x_val"):
        npvae.fit(Well(), x_val=(), epochs=1, progress=False)


# ---- an optimiser of one's own ----


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("backend", ["numpy", "numba"])
@pytest.mark.parametrize("optimizer", [Averaging, Elementwise])
def test_an_optimizer_of_one_s_own_trains(optimizer, backend, workers):
    x = lattice_rows()
    model, optimizer = small_model(backend=backend), optimizer()
    history = npvae.fit(model, x, x, epochs=4, batch_size=32, optimizer=optimizer, workers=workers, progress=False)
    assert history["val_loss"][-1] < history["val_loss"][0] - 0.1
    if isinstance(optimizer, Elementwise):
        assert len(optimizer.calls) == 4 * 7 * workers
        assert sum(optimizer.calls[:workers]) == model.theta.size


def test_on_slices_an_elementwise_optimizer_does_what_it_does_on_the_whole():
    """Its arrays are made in the first step, and replaced, not changed, in the next ones."""
    x, thetas, states = lattice_rows(), [], []
    for optimizer in (Averaging(), Elementwise()):
        model = small_model(dtype="float64")
        npvae.fit(model, x, epochs=2, optimizer=optimizer, workers=3, progress=False, on_epoch=states.append)
        thetas.append(model.theta)
    np.testing.assert_array_equal(*thetas)
    one, other = states[0].optimizer, states[-1].optimizer
    np.testing.assert_array_equal(one["mean"], other["mean"])
    assert one["count"] == other["count"] == 4


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("optimizer", [Averaging, Elementwise])
def test_the_state_of_one_s_own_optimizer_is_saved_and_training_goes_on_bit_for_bit(optimizer, workers, tmp_path):
    x = lattice_rows()
    options = {"batch_size": 32, "workers": workers, "seed": 5, "progress": False}
    whole, model = small_model(), small_model()
    history = npvae.fit(whole, x, x[:20], epochs=4, optimizer=optimizer(), **options)

    def on_step(state):
        checkpoint.save_progress(tmp_path, model, state)
        return state.step == 17

    npvae.fit(model, x, x[:20], epochs=4, optimizer=optimizer(), on_step=on_step, **options)
    model, state = checkpoint.load_progress(tmp_path)
    assert state.step == state.optimizer["count"] == 17
    assert type(state.optimizer["count"]) is int
    assert set(state.optimizer) == {"t", "count", "mean"}
    resumed = npvae.fit(model, x, x[:20], epochs=4, optimizer=optimizer(), resume=state, **options)
    np.testing.assert_array_equal(model.theta, whole.theta)
    np.testing.assert_array_equal(resumed["val_loss"], history["val_loss"])


def test_weight_decay_needs_a_learning_rate():
    with pytest.raises(ValueError, match="weight_decay needs an optimizer with a learning_rate"):
        npvae.fit(small_model(), lattice_rows(20), epochs=1, optimizer=Averaging(), weight_decay=0.1, progress=False)


def test_what_is_no_optimizer_is_refused():
    for wrong in (object(), Averaging, 1e-3):
        with pytest.raises(ValueError, match="or an object with a method step"):
            optim.on_backend(wrong, small_model())
    optimizer = Averaging()
    assert optim.on_backend(optimizer, small_model()) is optimizer


def test_validation_of_a_model_of_one_s_own_takes_the_settings_given():
    x, y = regression_rows(20)
    model = Regression(4)
    rows = Rows.of(model, (x, y), "x")
    quiet, noisy = (validate(model, rows, {"jitter": jitter}, batch_size=6, seed=1) for jitter in (0.0, 5.0))
    assert quiet.loss == pytest.approx(np.mean(y**2) / 2, rel=1e-12)
    assert noisy.loss > quiet.loss + 5
