"""Langevin steps: against scalar twins, their stationary variance in closed form, detailed balance, known densities.

The error of steps without a test is known for a Gaussian: a step is linear, y = a x + b η, so that the stationary variance is
b²/(1 − a²). The densities with known moments are a banana (`npvae.data.toy`) and a well with two minima.
"""

import math

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import multivariate_normal

from npvae.data import toy
from npvae.ops import langevin


def banana(x):
    """E = −log p and −∂E/∂x of the banana: (n, 2) -> (n,), (n, 2)."""
    first, second = x.T
    scaled = (second - toy.BEND * (first * first - 1)) / toy.BANANA_SIGMA
    of_first = -first + 2 * toy.BEND * first * scaled / toy.BANANA_SIGMA
    return -toy.log_banana(x), np.stack([of_first, -scaled / toy.BANANA_SIGMA], axis=1)


def normal(x):
    return 0.5 * (x * x).sum(axis=1), -x


def well(x):
    """E = 2 (x² − 1)² of one column."""
    return 2 * (x[:, 0] ** 2 - 1) ** 2, -8 * x * (x * x - 1)


def noise(K, B, D, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((K, B, D)), rng.random((K, B))


# ---- one step ----


def test_a_step_equals_its_twin():
    x, score, eps = np.random.default_rng(0).standard_normal((3, 4, 2))
    y = langevin.langevin_step(x, score, eps, 0.3, 1.7)
    for b in range(4):
        for d in range(2):
            wanted = float(x[b, d]) + 0.3**2 / 2 * float(score[b, d]) + math.sqrt(1.7) * 0.3 * float(eps[b, d])
            assert y[b, d] == pytest.approx(wanted, rel=1e-14)
    single = langevin.langevin_step(*(a.astype("float32") for a in (x, score, eps)), 0.3, 1.7)
    assert single.dtype == np.float32


@pytest.mark.parametrize("temperature", [1.0, 0.4])
@pytest.mark.parametrize("step_size", [0.1, 1.0, 1.9])
def test_the_variance_of_unadjusted_steps_is_too_large_by_a_known_factor(step_size, temperature):
    """For N(0, 1) at temperature T it is T/(1 − ε²/4), which tends to T with the step."""
    one, zero = np.ones((1, 1)), np.zeros((1, 1))
    a = langevin.langevin_step(one, -one, zero, step_size, temperature).item()
    b = langevin.langevin_step(zero, -zero, one, step_size, temperature).item()
    assert b * b / (1 - a * a) == pytest.approx(temperature / (1 - step_size**2 / 4), rel=1e-12)


def test_unadjusted_steps_of_two_standard_deviations_leave_every_bound():
    x = langevin.langevin_chain(normal, np.ones((1, 1)), np.zeros((200, 1, 1)), 2.1)
    assert abs(x.item()) > 1e9


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_the_acceptance_is_the_ratio_of_densities_and_proposals(temperature):
    """log p(y) q(x|y)/p(x) q(y|x) by normal densities: with it, the flow from x to y is that from y to x."""
    rng, step_size = np.random.default_rng(1), 0.4
    x, y = rng.standard_normal((2, 6, 2))
    (E_x, score_x), (E_y, score_y) = banana(x), banana(y)
    found = langevin.log_acceptance(x, E_x, score_x, y, E_y, score_y, step_size, temperature)
    covariance = temperature * step_size**2 * np.eye(2)

    def log_q(to, start, score):
        return multivariate_normal(start + step_size**2 / 2 * score, covariance).logpdf(to)

    for b in range(6):
        there = -E_x[b] / temperature + log_q(y[b], x[b], score_x[b])
        back = -E_y[b] / temperature + log_q(x[b], y[b], score_y[b])
        assert found[b] == pytest.approx(back - there, rel=1e-11)
        assert there + min(found[b], 0) == pytest.approx(back + min(-found[b], 0), rel=1e-11)  # detailed balance
    np.testing.assert_array_equal(langevin.log_acceptance(x, E_x, score_x, x, E_x, score_x, step_size, temperature), 0)


# ---- chains ----


@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_an_adjusted_chain_equals_its_twin(temperature):
    K, B, step_size = 12, 5, 0.9
    x0, (eps, u) = np.random.default_rng(2).standard_normal((B, 1)), noise(K, B, 1)
    x, share = langevin.adjusted_chain(well, x0, eps, u, step_size, temperature)
    for b in range(B):
        state, taken = float(x0[b, 0]), 0
        for k in range(K):
            y = state - step_size**2 / 2 * 8 * state * (state**2 - 1) + math.sqrt(temperature) * step_size * eps[k, b, 0]
            back = (state - y + step_size**2 / 2 * 8 * y * (y * y - 1)) / (math.sqrt(temperature) * step_size)
            gained = (2 * (state**2 - 1) ** 2 - 2 * (y * y - 1) ** 2) / temperature
            if math.log(u[k, b]) < gained + eps[k, b, 0] ** 2 / 2 - back**2 / 2:
                state, taken = y, taken + 1
        assert x[b, 0] == pytest.approx(state, rel=1e-9)
        assert share[b] == taken / K
    assert 0.1 < share.mean() < 0.9


def test_an_unadjusted_chain_is_one_step_after_the_other():
    x, (eps, _) = np.ones((3, 2)), noise(4, 3, 2)
    wanted = x
    for k in range(4):
        wanted = langevin.langevin_step(wanted, banana(wanted)[1], eps[k], 0.2, 0.5)
    np.testing.assert_array_equal(langevin.langevin_chain(banana, x, eps, 0.2, 0.5), wanted)


def moments(x):
    """Values whose means over the banana are known."""
    first, second = x.T
    return np.stack([first, second, first**2, second**2, first**2 * second])


BANANA_MOMENTS = [0, 0, 1, toy.BANANA_SIGMA**2 + 2 * toy.BEND**2, 2 * toy.BEND]


def deviations(x):
    """How far the moments of draws are from those of the banana, in standard errors."""
    values = moments(x)
    return (values.mean(axis=1) - BANANA_MOMENTS) / (values.std(axis=1) / math.sqrt(len(x)))


def test_adjusted_steps_leave_a_density_as_it_is():
    n, step_size = 40_000, 0.5
    x, (eps, u) = toy.sample("banana", n, 0), noise(10, n, 2)
    assert np.abs(deviations(x)).max() < 4
    adjusted, share = langevin.adjusted_chain(banana, x, eps, u, step_size)
    assert np.abs(deviations(adjusted)).max() < 4
    assert 0.6 < share.mean() < 0.95
    assert np.corrcoef(adjusted[:, 1], x[:, 1])[0, 1] < 0.7  # these are other points


def test_the_test_of_metropolis_takes_the_error_of_the_steps_away():
    n = 40_000
    x, (eps, u) = np.random.default_rng(1).standard_normal((n, 1)), noise(10, n, 1)
    adjusted, _ = langevin.adjusted_chain(normal, x, eps, u, 1.0)
    error = math.sqrt(2 / n)  # of a variance of 1
    assert adjusted.var() == pytest.approx(1, abs=4 * error)
    assert langevin.langevin_chain(normal, x, eps, 1.0).var() == pytest.approx(4 / 3, abs=4 * error)


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_a_chain_reaches_the_density_of_its_temperature(temperature):
    """⟨x²⟩ in the well with two minima, from the top of the barrier between them."""
    Z, second = (quad(lambda x, k=k: x**k * math.exp(-2 * (x * x - 1) ** 2 / temperature), -4, 4)[0] for k in (0, 2))
    n = 4000
    eps, u = noise(60, n, 1)
    x, _ = langevin.adjusted_chain(well, np.zeros((n, 1)), eps, u, 0.5, temperature)
    values = x[:, 0] ** 2
    assert values.mean() == pytest.approx(second / Z, abs=4 * values.std() / math.sqrt(n))
    assert abs(x.mean()) < 0.1


def test_an_energy_that_is_no_number_is_never_accepted():
    def broken(x):
        return np.where(x[:, 0] > 0, np.nan, 0.0), np.zeros_like(x)

    eps, u = noise(20, 50, 1)
    x, share = langevin.adjusted_chain(broken, np.full((50, 1), -1.0), eps, u, 1.0)
    assert (x <= 0).all()
    assert 0 < share.min() < 1
