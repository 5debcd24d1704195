"""L-BFGS: on functions with a known minimum, and on the loss of a model with its noise drawn once."""

import os
import subprocess
import sys

import numpy as np
import pytest
from small_models import Well, lattice_rows, recorder, small_model

import npvae
from npvae.core.checks import NpvaeWarning
from npvae.core.randomness import FULL_BATCH, generator
from npvae.data.rows import Rows
from npvae.training.lbfgs import lbfgs
from npvae.training.schedules import Linear
from npvae.training.validation import validate

dtypes = pytest.mark.parametrize("dtype", ["float64", "float32"])


def rosenbrock(theta):
    """(1 − x)² + 100 (y − x²)² and its gradient: a curved valley with its minimum 0 at (1, 1)."""
    x, y = theta
    return (1 - x) ** 2 + 100 * (y - x * x) ** 2, np.array([-2 * (1 - x) - 400 * x * (y - x * x), 200 * (y - x * x)])


@dtypes
def test_lbfgs_finds_the_minimum_of_rosenbrocks_function(dtype):
    theta = np.array([-1.25, 1.0], dtype)
    result = lbfgs(rosenbrock, theta)
    assert result.success
    np.testing.assert_allclose(result.x, 1, atol=1e-4)
    assert result.x.dtype == "float64"
    assert theta.tolist() == [-1.25, 1]


@pytest.mark.parametrize("max_iterations", [1, 3, 8])
def test_lbfgs_respects_max_iterations(max_iterations):
    visited = []
    result = lbfgs(rosenbrock, np.array([-1.2, 1.0]), max_iterations, callback=lambda theta: visited.append(theta.copy()))
    assert result.nit == len(visited) == max_iterations
    assert not result.success
    np.testing.assert_array_equal(visited[-1], result.x)


def test_lbfgs_uses_the_memory_it_is_given():
    """One pair instead of ten is another (here slower) method, so the option has arrived."""
    iterations = [lbfgs(rosenbrock, np.array([-1.2, 1.0]), memory=memory).nit for memory in (1, 10)]
    assert iterations[0] > iterations[1]


def test_lbfgs_hands_scipy_its_options(monkeypatch):
    """The evaluations are capped at 20 per iteration: scipy's own cap of 15000 would end a long run silently."""
    calls = []
    monkeypatch.setattr("scipy.optimize.minimize", lambda *args, options, **rest: calls.append(options))
    lbfgs(rosenbrock, np.zeros(2))
    lbfgs(rosenbrock, np.zeros(2), max_iterations=3, memory=4)
    assert calls[0] == {"maxiter": 200, "maxcor": 10, "maxfun": 4000}
    assert calls[1] == {"maxiter": 3, "maxcor": 4, "maxfun": 60}


def test_lbfgs_finds_a_stationary_point_of_the_loss_with_fixed_draws():
    x = lattice_rows(30)
    model = npvae.VAE(16, 1, (), likelihood="gaussian", sigma=1, dtype="float64", backend="numpy")
    history = npvae.fit_lbfgs(model, x, x[:20], iterations=80, n_samples=3, beta=0.5, seed=4, progress=False)
    assert (np.diff(history["train_loss"]) <= 1e-9).all()
    assert len(history) <= 80
    np.testing.assert_array_equal(history["step"], np.arange(1, len(history) + 1))
    eps = generator(4, FULL_BATCH, 0).standard_normal((3, 30, 1))
    terms, cache = model.forward(x, eps, 0.5)
    gradient = np.concatenate([value.ravel() for value in model.backward(cache).values()])
    assert np.abs(gradient).max() < 1e-2 < 0.1 < history["train_loss"][0] - history["train_loss"][-1]
    last = history.rows[-1]
    assert [last[f"train_{name}"] for name in npvae.Terms._fields] == pytest.approx(terms, rel=1e-12)
    val_terms = validate(model, Rows.of(model, x[:20], "x_val"), {"beta": 0.5}, seed=4)
    assert [last[f"val_{name}"] for name in npvae.Terms._fields] == pytest.approx(val_terms, rel=1e-12)


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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"iterations": 0}, "iterations must be an integer of at least 1; got 0"),
        ({"n_samples": 0}, "n_samples"),
        ({"seed": -1}, "seed"),
        ({"beta": -1.0}, "beta"),
        ({"x_train": np.zeros((5, 3))}, "x_train must have 16 columns"),
        ({"x_val": np.full((5, 16), 2.0)}, "x_val must lie in"),
        ({"x_val": ()}, "x_val must hold rows, or be None"),
        ({"beta": Linear(10)}, r"beta must be a value, since L-BFGS minimises one function; got the schedule Linear"),
    ],
)
def test_bad_arguments_of_lbfgs_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        npvae.fit_lbfgs(small_model(), **{"x_train": lattice_rows(10), "progress": False, **arguments})


def test_lbfgs_minimises_any_objective_of_the_model():
    x = lattice_rows(30)
    for settings in ({"objective": "iwae", "n_samples": 4}, {"free_bits_per_dimension": 0.2}):
        model = small_model(dtype="float64")
        history = npvae.fit_lbfgs(model, x, iterations=15, seed=2, progress=False, **settings)
        eps = generator(2, FULL_BATCH, 0).standard_normal((settings.get("n_samples", 1), 30, 2))
        assert history["train_loss"][-1] == pytest.approx(model.forward(x, eps, **settings)[0].loss, rel=1e-12)
        assert history["train_loss"][-1] < history["train_loss"][0] - 0.5


def test_lbfgs_trains_a_model_without_data():
    model = Well()
    npvae.fit_lbfgs(model, iterations=50, n_draws=40, progress=False)
    eps = generator(0, FULL_BATCH, 0).standard_normal(40)
    gradient = model.backward(model.forward(eps)[1])
    np.testing.assert_allclose([gradient["mu"], gradient["s"]], 0, atol=1e-4)


# ---- losses that are not finite ----


def beyond_zero(theta, outside=np.inf):
    """Σ 10 x − log x, least at 0.1, which is not finite from 0 on."""
    with np.errstate(divide="ignore", invalid="ignore"):
        inside = (theta > 0).all()
        return (float(np.sum(10 * theta - np.log(theta))) if inside else outside), 10 - 1 / theta


@pytest.mark.parametrize("outside", [np.inf, np.nan, -np.inf])
@pytest.mark.parametrize("start", [0.2, 3.0, 100.0])
def test_lbfgs_turns_back_from_where_the_loss_is_not_finite(start, outside):
    """Scipy by itself says that it has converged, at 0.2, 2.5 or 90."""
    result = lbfgs(lambda theta: beyond_zero(theta, outside), start * np.array([1, 1.1, 0.5, 2]))
    assert result.success
    np.testing.assert_allclose(result.x, 0.1, rtol=1e-3)


@pytest.mark.parametrize(("loss", "slope", "what"), [(np.nan, 1, "loss"), (np.inf, np.nan, "loss"), (1, np.inf, "gradient")])
def test_lbfgs_cannot_begin_where_nothing_is_finite(loss, slope, what):
    with pytest.raises(FloatingPointError, match=f"L-BFGS cannot begin: the {what} is not finite at the start"):
        lbfgs(lambda theta: (loss, slope * theta), np.ones(3))


def test_data_that_lbfgs_cannot_begin_with_are_named_and_the_model_is_as_it_was():
    model = small_model(likelihood="gaussian")
    theta, x = model.theta.copy(), lattice_rows(20)
    x[3, 5] = 9.97e36
    with pytest.raises(FloatingPointError, match=r"loss is not finite at the start\. .* rows is 9\.97e\+36$") as error:
        npvae.fit_lbfgs(model, x, progress=False)
    assert "\n" not in str(error.value)
    np.testing.assert_array_equal(model.theta, theta)


def test_who_calls_fit_lbfgs_hears_why_it_stopped_before_its_time():
    class Wrong(Well):
        def backward(self, cache, dloss=1.0, out=None):
            return super().backward(cache, -dloss, out)

    with pytest.warns(NpvaeWarning, match=r"L-BFGS stopped after 0 of 50 iterations and has not converged \(ABNORMAL\)"):
        npvae.fit_lbfgs(Wrong(), iterations=50, n_draws=40, progress=False)
    npvae.fit_lbfgs(Well(), iterations=2, n_draws=40, progress=False)  # as many as asked for: nothing to be said


def test_validation_rows_that_are_not_finite_are_told_by_lbfgs_too():
    model, x, x_val = small_model(likelihood="gaussian"), lattice_rows(30), lattice_rows(20, seed=1)
    x_val[4, 2] = 9.97e36
    with pytest.warns(NpvaeWarning, match=r"validation loss is not finite: see row 4 \(counted from 0\) of the validation"):
        history = npvae.fit_lbfgs(model, x, x_val, iterations=2, progress=False)
    assert np.isnan(history["val_loss"]).all()
    np.testing.assert_array_equal(history["skipped"], [0, 0])


def test_lbfgs_has_the_same_bits_for_any_threads_of_blas():
    """Also the first time in a process: the BLAS of SciPy is another library than NumPy's, and is loaded only then."""
    code = """if True:
        import numpy as np, npvae
        from threadpoolctl import threadpool_info, threadpool_limits
        x = np.random.default_rng(0).random((60, 500)) < 0.2
        bits = set()
        for threads in (2, 2, 1):
            with threadpool_limits(threads, user_api="blas"):
                model = npvae.VAE(500, 10, (100,), backend="numpy", dtype="float64")
                npvae.fit_lbfgs(model, x, iterations=15, progress=False)
            bits.add(model.theta.tobytes())
        print(len(bits), len(threadpool_info()))
    """
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ, "OPENBLAS_NUM_THREADS": "2"}, capture_output=True,
                          text=True, check=True)  # fmt: skip
    assert done.stdout.split()[0] == "1"
