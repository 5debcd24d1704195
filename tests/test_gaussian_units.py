"""Gaussian visible units of a Boltzmann machine: variances that are learned, and clipped where they run away."""

import numpy as np
import pytest
from test_rbm import BACKENDS, lattice, machine

import npvae
from npvae.core.parameters import views_of
from npvae.models import BoltzmannMachine
from npvae.training.schedules import Cosine


def test_a_step_of_gaussian_units_learns_their_variances():
    rng = np.random.default_rng(0)
    x = (rng.standard_normal((3000, 2)) * [0.5, 2.0] + [1.0, -1.0] + 2 * (rng.random((3000, 1)) < 0.5)).astype(np.float32)
    model = BoltzmannMachine(2, 4, "gaussian", n_chains=100)
    model.centre(x)
    npvae.fit(model, x, epochs=40, batch_size=100, optimizer=npvae.Adam(Cosine(0.02, 1200)), n_steps=3, workers=1,
              progress=False)  # fmt: skip
    std = np.exp(0.5 * model.parameters["logvar"])
    assert 0.4 < std[0] < 0.6  # without the two groups' distance, which the hidden units explain
    assert 1.8 < std[1] < 2.1
    draws = model.sample(4000, 0)
    np.testing.assert_allclose(draws.mean(axis=0), x.mean(axis=0), atol=0.15)
    np.testing.assert_allclose(draws.std(axis=0), x.std(axis=0), rtol=0.05)


def test_gaussian_units_need_columns_that_vary():
    with pytest.raises(ValueError, match="column 1 does not"):
        BoltzmannMachine(2, 3, "gaussian").centre(np.array([[1.0, 2.0], [3.0, 2.0]]))


@BACKENDS
@pytest.mark.parametrize("is_centred", [False, True])
def test_log_variances_are_clipped_and_have_no_slope_beyond_the_bounds(is_centred, backend):
    """Beyond, on and inside the bounds: the complex step, which also reaches the biases of a centred machine. Each unit has
    data, biases and weights of its own σ, so that no part of the gradient drowns in another."""
    raw, rng = np.array([-35, -30, 0.4, 20, 23]), np.random.default_rng(1)
    sigma = np.exp(0.5 * np.clip(raw, -30, 20))
    model, (x, noise) = machine("gaussian", backend=backend), (sigma * rng.standard_normal((n, 5)) for n in (4, 7))
    if is_centred:
        model.centre(x)
    start = [value * rng.standard_normal(value.shape) for value in (sigma, np.ones(4), np.outer(sigma, np.ones(4)))]
    model.theta = np.concatenate([*(value.ravel() for value in start), raw])
    terms, cache = model.forward(x, noise)
    assert terms.clipped == pytest.approx(0.4)
    grads = model.backward(cache)
    np.testing.assert_array_equal(grads["logvar"][[0, 4]], 0)
    assert np.abs(grads["logvar"][1:4]).min() > 1e-3

    def loss(theta):
        twin = model.copy(dtype="complex128", backend="numpy")
        twin.theta = theta
        F = twin.free_energy_pair[0]
        return F(x, *twin.machine)[0].mean() - F(noise, *twin.machine)[0].mean()

    expected = views_of(npvae.gradcheck.complex_step_grad(loss, model.theta.copy()), model.parameters.shapes)
    for name, units in zip(grads, (sigma, 1, sigma[:, None], 1), strict=True):
        right = units * expected[name]
        np.testing.assert_allclose(units * grads[name], right, rtol=0, atol=1e-12 * np.abs(right).max(), err_msg=name)


@pytest.mark.parametrize("n_chains", [0, 20])
def test_a_machine_whose_variances_have_run_away_trains_on_and_says_how_many(n_chains):
    """In float32, in which e^100 is infinite: nothing overflows, and what lies beyond the bounds stays where it is."""
    x = lattice(200)
    model = BoltzmannMachine(12, 3, "gaussian", n_chains=n_chains)
    model.centre(x)
    runaway = np.arange(12) % 4 != 3
    model.parameters["logvar"][runaway] = 100 * (-1) ** np.arange(9)
    before = model.parameters["logvar"].copy()
    history = npvae.fit(model, x, x[:20], epochs=2, batch_size=50, optimizer=npvae.Adam(1e-3), progress=False)
    assert sum(history["skipped"]) == 0
    np.testing.assert_array_equal(history["train_clipped"], 0.75)
    np.testing.assert_array_equal(history["val_clipped"], 0.75)
    assert np.isfinite(history["val_loss"]).all()
    np.testing.assert_array_equal(model.parameters["logvar"][runaway], before[runaway])
    assert (model.parameters["logvar"][~runaway] != before[~runaway]).all()
    assert np.isfinite(model.sample(10, 0, n_steps=5)).all()
    assert np.isfinite(model.log_partition().log_z)
