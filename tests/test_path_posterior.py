"""The posterior of paths: gradient, bound and weights against exact evidence, in closed form and by a transfer matrix."""

import inspect
import math
import re
import sys
from pathlib import Path

import naive
import numpy as np
import pytest
from scipy.stats import kstest, multivariate_normal, norm

import npvae
from npvae.app import cli
from npvae.models import PathPosterior

EXAMPLES = {example.name: example for example in PathPosterior.examples("numpy")}
BROWNIAN = ()  # the drift of no coefficients


def model_of(n_features=1, n_steps=8, interval=0.5, hidden=(4,), dtype="float64", backend="numpy", **options):
    return PathPosterior(n_features, n_steps=n_steps, interval=interval, hidden=hidden, dtype=dtype, backend=backend, **options)


def changed(model, scale=0.3):
    model.theta += scale * np.random.default_rng(1).standard_normal(model.theta.size)
    return model


def assert_mean(values, expected, more=0.0):
    """The mean of random values is what is expected within 5 standard errors."""
    assert abs(values.mean() - expected) < 5 * values.std() / math.sqrt(values.size) + more


@pytest.fixture
def double_well(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "examples")
    import double_well

    return double_well


# ---- the gradient ----


@pytest.mark.parametrize("example", EXAMPLES.values(), ids=EXAMPLES)
def test_the_gradient_by_the_complex_step(example):
    model, (x,), settings = example[1:]
    eps = model.draw(np.random.default_rng(0), x, **settings)
    twin = model.copy(dtype="complex128")
    _, cache = model.forward(x, eps, **settings, beta=0.7)
    for name, grad in model.backward(cache, dloss=1.5).items():
        expected = np.empty(grad.size)
        for i in range(grad.size):
            kept = twin.parameters[name].flat[i]
            twin.parameters[name].flat[i] = kept + 1e-20j
            expected[i] = 1.5 * twin.forward(x, eps, **settings, beta=0.7)[0].loss.imag / 1e-20
            twin.parameters[name].flat[i] = kept
        naive.assert_close(grad.ravel(), expected, tolerance=1e-12)


def test_both_back_ends_and_all_checkpoints_agree():
    x, results = np.array([[0.3, -1.0], [0.7, 0.2]]), []
    for options in ({}, {"backend": "numba"}, {"segment": 0}, {"segment": 3}):
        model = changed(model_of(2, **options))
        eps = model.draw(np.random.default_rng(0), x, n_samples=3)
        terms, cache = model.forward(x, eps, "iwae")
        results.append(np.concatenate([terms, *(grad.ravel() for grad in model.backward(cache).values())]))
    for other in results[1:]:
        np.testing.assert_allclose(other, results[0], rtol=1e-12)


# ---- bound and weights, against exact numbers ----


def test_without_a_drift_a_new_model_has_the_exact_control_and_lacks_what_every_control_lacks(double_well):
    """Brownian motion: x is normal; the bridge is the control of the exact posterior, and steps of the noise σ² dt are all that
    the ELBO lacks: E[loss] = −log p(x) + ½ Σ_t (ρ − log(1 + ρ))."""
    model = model_of(interval=2.0, drift=BROWNIAN, sigma=0.8, start=0.3, observation_sigma=0.4)
    x = np.full((4000, 1), 1.7)
    log_p = norm.logpdf(1.7, 0.3, math.sqrt(0.4**2 + 0.8**2 * 2))
    _, log_w = model.posterior_paths(x, 1, rng=0)
    gap = double_well.smallest_gap(model, model.n_steps)
    assert 0.1 < gap < 0.4
    assert_mean(log_w, log_p - gap)
    assert abs(model.log_likelihood(x[:1], 4000, rng=1)[0] - log_p) < 5 * np.exp(log_w - log_p).std() / math.sqrt(4000)
    terms, _ = model.forward(x, model.draw(np.random.default_rng(0), x))
    energies = -log_w.mean() - terms.nll  # with the martingale, whose mean is 0
    assert terms.loss == pytest.approx(terms.nll + terms.kl, rel=1e-12)
    assert abs(terms.kl - energies) < 0.1


@pytest.mark.parametrize(("n_dimensions", "n_outcomes"), [(1, 2), (2, 1), (2, 2)])
def test_weights_have_the_mean_p_x_for_several_outcomes_and_dimensions(n_dimensions, n_outcomes):
    """Brownian motion again, and a control that is not the best: outcomes at the times 1, 2 are normal with the covariance
    σ² min(t, t') + s² of each dimension."""
    model = model_of(n_dimensions * n_outcomes, n_dimensions=n_dimensions, interval=1.0, drift=BROWNIAN, sigma=0.8, start=0.3,
                     observation_sigma=0.5)  # fmt: skip
    changed(model, 0.2)
    x = np.array([[0.9, -0.2, 1.1, 0.4]])[:, : model.n_features]
    times = np.arange(1.0, n_outcomes + 1)
    covariance = np.kron(0.64 * np.minimum.outer(times, times) + 0.25 * np.eye(n_outcomes), np.eye(n_dimensions))
    p_x = multivariate_normal(np.full(model.n_features, 0.3), covariance).pdf(x)
    paths, log_w = model.posterior_paths(x, 5000, rng=0)
    assert paths.shape == (8 * n_outcomes + 1, 5000, 1, n_dimensions)
    assert_mean(np.exp(log_w), p_x)
    assert log_w.mean() < math.log(p_x)


@pytest.mark.parametrize("x", [1.0, -1.0])
def test_bound_weights_and_weighted_paths_in_a_double_well_against_the_transfer_matrix(double_well, x):
    model = model_of(n_steps=40, interval=2.0)
    log_p, density, _ = double_well.Exact(model, n_points=301).given(x)
    changed(model, 0.1)
    paths, log_w = model.posterior_paths([[x]], 4000, rng=0)
    weights = np.exp(log_w[:, 0] - log_p)
    assert_mean(weights, 1)
    assert log_w.mean() < log_p - 5 * log_w.std() / math.sqrt(4000)
    z = np.linspace(-3.5, 3.5, 301)
    for k in (10, 20, 40):
        exact = (density[k - 1] * z).sum() * (z[1] - z[0])
        assert_mean(weights * (paths[k, :, 0, 0] - exact), 0)


def test_training_brings_the_bound_near_log_p_x_and_never_above(double_well):
    model = model_of(n_steps=20, interval=1.0, hidden=(16,), dtype="float32", observation_sigma=0.5)
    log_p, _, _ = double_well.Exact(model, n_points=301).given(1.0)
    x = np.ones((64, 1))
    gaps = []
    for epochs in (0, 150):
        npvae.fit(model, x, epochs=epochs, batch_size=64, optimizer=npvae.Adam(2e-2), progress=False)
        _, log_w = model.posterior_paths([[1.0]], 4000, rng=0)
        gaps.append(log_p - log_w.mean(dtype=float))
    assert gaps[0] > 0.5
    assert 5 * log_w.std() / math.sqrt(4000) < gaps[1] < 0.3


def test_paths_are_those_of_bridge_and_network_step_by_step():
    """Euler's scheme written out, two outcomes: the bridge leads to the next one, the network reads z, t and all of x."""
    model = changed(model_of(2, n_steps=3, drift=(0.1, -0.7), sigma=0.8, start=0.3, observation_sigma=0.4))
    x, (W0, b0, W1, b1), dt = np.array([[0.9, -0.2]]), model.parameters.values(), 0.5 / 3
    eps = model.draw(np.random.default_rng(5), x, 2)[:, :, 0, 0]  # (T, S, 1, 1) -> (T, S)
    z, log_w, expected = np.full(2, 0.3), 0.0, [[0.3, 0.3]]
    for k in range(6):
        t, y, end = k * dt, x[0, k // 3], 0.5 * (k // 3 + 1)
        network = np.tanh(np.stack([z, np.full(2, 2 * t - 1), *np.full((2, 2), x.T)], axis=1) @ W0 + b0) @ W1 + b1  # (S, 1)
        v = network[:, 0] + 0.8 * (y - z) / (0.16 + 0.64 * (end - t))
        dW = math.sqrt(dt) * eps[k]
        z = z + (0.1 - 0.7 * z) * dt + 0.8 * (v * dt + dW)
        log_w = log_w - v * v * dt / 2 - v * dW
        if k % 3 == 2:
            log_w = log_w + norm.logpdf(y, z, 0.4)
        expected.append(z)
    paths, found = model.posterior_paths(x, 2, rng=5)
    naive.assert_close(paths[:, :, 0, 0], expected)
    naive.assert_close(found[:, 0], log_w)


@pytest.mark.parametrize("scheme", ["euler", "heun"])
def test_objectives_and_weights_are_those_of_the_same_paths(scheme):
    """S = 1: the iwae loss is −log w; the weights of S paths make the bound."""
    model = changed(model_of(2, scheme=scheme))
    x = np.array([[0.3, -1.0], [0.7, 0.2]])
    _, log_w = model.posterior_paths(x, 3, rng=5)
    eps = model.draw(np.random.default_rng(5), x, 3)
    loss = model.forward(x, eps, "iwae")[0].loss
    assert loss == pytest.approx(-np.mean(np.log(np.exp(log_w).mean(axis=0))), rel=1e-12)
    assert model.forward(x, eps[:, :1], "iwae")[0].loss == pytest.approx(-log_w[0].mean(), rel=1e-12)
    np.testing.assert_allclose(model.log_likelihood(x, 3, rng=5), np.log(np.exp(log_w).mean(axis=0)), rtol=1e-12)
    assert [measure.name for measure in model.measure(x, 5)] == ["elbo", "nll", "kl", "log_likelihood"]


def test_the_paths_of_the_simulation_and_its_outcomes():
    """A linear drift: each step of the chain multiplies the mean by 1 − κ dt; columns are times, then dimensions."""
    model = model_of(4, n_dimensions=2, n_steps=10, interval=0.5, drift=(0, -1.5), sigma=0.6, start=2.0, observation_sigma=0.3)
    paths, x = model.prior_paths(5000, rng=0), model.sample(5000, rng=0)
    assert paths.shape == (21, 5000, 2)
    assert (paths[0] == 2).all()
    np.testing.assert_allclose(np.std(x - np.hstack([paths[10], paths[20]]), axis=0), 0.3, rtol=0.05)
    factor = 1 - 1.5 * 0.05
    for column, steps in enumerate((10, 10, 20, 20)):
        variance = 0.36 * 0.05 * (1 - factor ** (2 * steps)) / (1 - factor**2) + 0.09
        assert_mean(x[:, column], 2 * factor**steps)
        assert x[:, column].var() == pytest.approx(variance, rel=0.1)


# ---- checks, command line ----


@pytest.mark.parametrize(("options", "message"), [
    ({"n_features": 3, "n_dimensions": 2}, "n_features must be a multiple of n_dimensions = 2; got 3"),
    ({"n_steps": 0}, "n_steps must be an integer of at least 1; got 0"),
    ({"interval": 0}, "interval must be a finite number above 0"),
    ({"sigma": -1}, "sigma must be a finite number above 0"),
    ({"observation_sigma": math.nan}, "observation_sigma must be a finite number above 0"),
    ({"drift": (1, math.inf)}, "drift must be a finite number"),
    ({"scheme": "milstein"}, "scheme must be one of euler, heun; got 'milstein'"),
    ({"segment": -1}, "segment must be an integer of at least 0; got -1"),
])  # fmt: skip
def test_what_cannot_be_is_one_line(options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        model_of(**options)


def test_options_have_the_defaults_of_the_constructor():
    defaults = inspect.signature(PathPosterior).parameters
    for option in PathPosterior.options:
        if option.use == "model":
            default = defaults[option.argument].default
            assert option.default == (list(default) if isinstance(default, tuple) else default)


def test_paths_that_run_away_are_one_line():
    model, x = model_of(interval=20.0), np.ones((50, 1))
    message = "some paths have run away to infinity: the steps are too long for this drift, give more n_steps"
    for call in (lambda: model.prior_paths(50, 0), lambda: model.sample(50, 0), lambda: model.posterior_paths(x, 1, 0)):
        with pytest.raises(ValueError, match=message):
            call()


def test_noise_of_a_wrong_shape_is_refused():
    model, x = model_of(2), np.zeros((3, 2))
    for shape in [(16, 1, 2, 1), (15, 1, 3, 1), (16, 3, 1), (16, 1, 3, 2)]:
        with pytest.raises(ValueError, match="eps must"):
            model.forward(x, np.zeros(shape))


@pytest.mark.usefixtures("no_pixels")
def test_from_the_command_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    np.save("outcomes.npy", model_of().sample(60, rng=0))
    argv = ["train", "--model", "pathposterior", "--data", "outcomes.npy", "--steps", "5", "--hidden", "4", "--epochs", "2"]
    assert cli.main([*argv, "--start", "-0.5", "--drift", "0", "-1", "--scheme", "heun", "--out", "run"]) == 0
    model = npvae.models.PathPosterior.load("run/checkpoint.npz")
    assert (model.start, model.drift, model.n_steps, model.scheme) == (-0.5, (0, -1), 5, "heun")
    assert cli.main(["evaluate", "run", "--samples", "3"]) == 0
    assert cli.main(["sample", "run", "--count", "4"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"^elbo +-?[\d.]+ nats +10 paths per datum$", out, re.MULTILINE)
    assert "4 draws of PathPosterior(1 × 1 outcomes, 5 steps, heun, 4, tanh" in out


# ---- the example ----


def test_the_transfer_matrix_is_the_chain_of_gaussian_steps(double_well):
    """A linear drift: p(x) and p(z_t|x) are normal, and log h has a known slope."""
    model = model_of(n_steps=10, interval=1.0, drift=(0.2, -0.7), sigma=0.9, start=-0.4, observation_sigma=0.5)
    exact = double_well.Exact(model, n_points=501)
    a, b, variance = 1 - 0.07, 0.02, 0.081
    mean, var = [-0.4], [0.0]
    for _ in range(10):
        mean.append(a * mean[-1] + b)
        var.append(a * a * var[-1] + variance)
    log_p, density, h = exact.given(0.8)
    assert log_p == pytest.approx(norm.logpdf(0.8, mean[-1], math.sqrt(var[-1] + 0.25)), abs=1e-10)
    gain = a**5 * var[5] / (var[-1] + 0.25)  # of z_5 given x
    expected = norm.pdf(exact.z, mean[5] + gain * (0.8 - mean[-1]), math.sqrt(var[5] - gain * a**5 * var[5]))
    np.testing.assert_allclose(density[4], expected, atol=1e-9)
    np.testing.assert_allclose(density.sum(axis=1) * exact.dz, 1, atol=1e-9)
    np.testing.assert_allclose(h[-1], norm.pdf(0.8, exact.z, 0.5))


def test_the_numbers_of_the_example_are_those_of_its_paths(double_well, monkeypatch):
    monkeypatch.setattr(double_well, "N_PATHS", 300)
    model = changed(model_of(n_steps=10, interval=1.0))
    exact = double_well.Exact(model)
    elbo, error, weighted, log_p, distance = double_well.measure(model, exact, 0.5)
    paths, log_w = model.posterior_paths([[0.5]], 300, rng=3)
    _, density, _ = exact.given(0.5)
    cells = np.concatenate([[exact.z[0]], (exact.z[1:] + exact.z[:-1]) / 2, [exact.z[-1]]])
    distances = []
    for z, p in zip(paths[1:, :, 0, 0], density):
        total = np.concatenate([[0], np.cumsum(p) * exact.dz])
        distances.append(kstest(z, lambda z, total=total: np.interp(z, cells, total)).statistic)
    assert log_p == exact.given(0.5)[0]
    assert (elbo, error) == pytest.approx((log_w.mean(), log_w.std() / math.sqrt(300)))
    assert weighted == pytest.approx(np.log(np.exp(log_w).mean()))
    assert distance == pytest.approx(max(distances), abs=1 / 300)  # which counts half a path at a step of its own


def test_the_example_prints_a_row_for_each_outcome_and_draws(double_well, monkeypatch, tmp_path, capsys):
    for name, value in {"MEASURED": (20, 40), "N_PATHS": 500, "N_TRAINED": 20, "BATCH_SIZE": 16}.items():
        monkeypatch.setattr(double_well, name, value)
    monkeypatch.setattr(sys, "argv", ["double_well.py", "--steps", "5", "--out", str(tmp_path / "a.png")])
    double_well.main()
    row = r"^ +(-?\d\.\d) +(\d+) +(\S+) +(\S+) +(\S+) ±(\S+) +(\S+) +(\S+) +(\S+)$"
    rows = re.findall(row, capsys.readouterr().out, re.MULTILINE)
    assert [(float(row[0]), int(row[1])) for row in rows] == [(x, n) for n in (20, 40) for x in double_well.OUTCOMES]
    for row in rows:
        x, n_steps, log_p, elbo, gap, error, best, weighted, distance = map(float, row)
        model = PathPosterior(1, n_steps=int(n_steps))
        assert log_p == pytest.approx(double_well.Exact(model).given(x)[0], abs=1e-4)
        assert gap == pytest.approx(log_p - elbo, abs=2e-4)
        assert gap > -5 * error
        assert best == pytest.approx(double_well.smallest_gap(model, model.n_steps), abs=1e-4)
        assert abs(weighted - log_p) < 0.5
        assert 0 < distance < 1
    assert (tmp_path / "a.png").stat().st_size > 10_000
