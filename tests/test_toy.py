"""The toy densities: log-density, samples and entropy are of one and the same distribution."""

import math

import numpy as np
import pytest
from scipy.integrate import simpson
from scipy.stats import chi2, multivariate_normal

from npvae.data import toy

names = pytest.mark.parametrize("name", toy.NAMES)
STEP = toy.SQUARE / 16  # the checkerboard's edges lie between the points of the grids below


def grid(name):
    """Points (n, 2) and their weights (n,), for sums that stand for integrals over the plane."""
    has_long_tails = name in ("banana", "funnel")
    n = 112 if has_long_tails else 84
    line = STEP * (np.arange(-n, n) + 0.5)  # to ± 6 or ± 4.5
    first, second = np.meshgrid(line, line, indexing="ij")
    weights = np.full(first.shape, STEP**2)
    if has_long_tails:  # second = sinh(t) reaches ± 200
        weights = weights * np.cosh(second)
        second = np.sinh(second)
    return np.stack([first.ravel(), second.ravel()], axis=1), weights.ravel()


@names
def test_the_density_integrates_to_1_and_its_p_log_p_to_the_entropy(name):
    x, weights = grid(name)
    log_p = toy.log_density(name, x)
    p = np.exp(log_p)
    assert (weights * p).sum() == pytest.approx(1, abs=1e-7)
    assert -(weights * p)[p > 0] @ log_p[p > 0] == pytest.approx(toy.entropy(name), abs=2e-7)


def bin_probabilities(name, edges, n_sub=8):
    """P(bin) of a square mesh of bins, by the midpoint rule on n_sub × n_sub points in each."""
    n, step = len(edges) - 1, (edges[1] - edges[0]) / n_sub
    line = edges[0] + step * (np.arange(n * n_sub) + 0.5)
    x = np.stack(np.meshgrid(line, line, indexing="ij"), axis=-1).reshape(-1, 2)
    p = np.exp(toy.log_density(name, x)) * step**2
    return p.reshape(n, n_sub, n, n_sub).sum(axis=(1, 3))


@names
def test_samples_fall_into_bins_as_the_density_says(name):
    """Pearson's chi-squared over 576 bins; those that expect fewer than 10 points, and what is outside, are one bin."""
    n = 100_000
    edges = toy.SQUARE * np.arange(-12, 13) / 3  # to ± 3.5
    expected = n * bin_probabilities(name, edges)
    observed, _, _ = np.histogram2d(*toy.sample(name, n, 7).T, bins=(edges, edges))
    many = expected >= 10
    expected, observed = (np.append(counts[many], n - counts[many].sum()) for counts in (expected, observed))
    statistic = ((observed - expected) ** 2 / np.maximum(expected, 1)).sum()
    assert chi2.sf(statistic, many.sum()) > 1e-4


@names
def test_the_entropy_is_the_mean_of_minus_log_p(name):
    n = 10_000
    log_p = toy.log_density(name, toy.sample(name, n, 8))
    assert abs(log_p.mean() + toy.entropy(name)) <= 4.5 * log_p.std() / math.sqrt(n) + 1e-12


@names
def test_the_scale_is_about_1(name):
    x = toy.sample(name, 100_000, 9)
    assert np.abs(x.mean(axis=0)).max() < 0.02
    assert ((x.std(axis=0) > 0.7) & (x.std(axis=0) < 1.25)).all()


# ---- single densities against other formulas ----


def test_ring_is_a_mixture_of_8_gaussians():
    x = 2 * np.random.default_rng(0).standard_normal((50, 2))
    angles = np.arange(8) * math.pi / 4
    centres = toy.RING_RADIUS * np.array([np.cos(angles), np.sin(angles)]).T
    density = sum(multivariate_normal(c, toy.RING_SIGMA**2 * np.eye(2)).pdf(x) for c in centres) / 8
    np.testing.assert_allclose(toy.log_density("ring", x), np.log(density), rtol=1e-11)


CURVES = {
    "moons": (toy.moons_curves, lambda u: np.ones_like(u), toy.MOONS_SIGMA),
    "spirals": (toy.spirals_curves, lambda u: 2 * u, toy.SPIRALS_SIGMA),
    "circles": (lambda u: toy.polar(np.array(toy.CIRCLES_RADII)[:, None], 2 * np.pi * u), np.ones_like, toy.CIRCLES_SIGMA),
}


@pytest.mark.parametrize("name", CURVES)
def test_noisy_curves_are_the_average_of_the_noise_over_the_curve(name):
    """Against Simpson's rule with 4,000 equal steps, where the code has Gauss–Legendre nodes or a Bessel function."""
    curves, weight, sigma = CURVES[name]
    x = toy.sample(name, 30, 1) + 0.2 * np.random.default_rng(2).standard_normal((30, 2))
    u = np.linspace(0, 1, 4001)
    integrands = [multivariate_normal(point, sigma**2 * np.eye(2)).pdf(curves(u)) * weight(u) for point in x]  # (2, 4001) each
    density = simpson(integrands, x=u).mean(axis=1)
    np.testing.assert_allclose(np.exp(toy.log_density(name, x)), density, rtol=1e-7, atol=1e-12)


def test_the_curves_are_half_circles_and_spirals_whose_radius_grows_with_the_angle():
    u = np.array([0, 1 / 3, 1 / 2, 1])
    upper, lower = toy.moons_curves(u)
    np.testing.assert_allclose(upper[[0, 2, 3]], 1.4 * np.array([[0.5, -0.25], [-0.5, 0.75], [-1.5, -0.25]]), atol=1e-14)
    np.testing.assert_array_equal(lower, -upper)
    first, second = toy.spirals_curves(u)
    np.testing.assert_allclose(first, [[0, 0], [-2 / 3, 0], [0, -1], [-2, 0]], atol=1e-14)  # at angles 0, π, 3π/2, 3π
    np.testing.assert_array_equal(second, -first)


@pytest.mark.parametrize(("name", "curves", "power", "sigma"), [
    ("moons", toy.moons_curves, 0, toy.MOONS_SIGMA), ("spirals", toy.spirals_curves, 1, toy.SPIRALS_SIGMA),
])  # fmt: skip
def test_the_quadrature_along_the_curves_has_the_accuracy_that_it_claims(name, curves, power, sigma):
    x = np.random.default_rng(3).uniform(-3, 3, (500, 2))
    reference = toy.log_curves(x, curves, power, sigma, 600)
    checked = reference > -100 * math.log(10)
    assert checked.sum() > 400
    np.testing.assert_allclose(toy.log_density(name, x)[checked], reference[checked], rtol=0, atol=1e-9)


def test_checkerboard_has_8_squares_of_equal_density():
    corners = toy.SQUARE * (np.stack(np.meshgrid(range(-3, 3), range(-3, 3)), axis=-1).reshape(-1, 2) + 0.5)
    log_p = toy.log_density("checkerboard", corners)
    assert np.isfinite(log_p).sum() == 8
    assert set(log_p[np.isfinite(log_p)]) == {-math.log(6)}  # 8 squares with an area of 3/4
    touching = np.isfinite(log_p).reshape(6, 6)[1:5, 1:5]
    assert (touching[:-1] != touching[1:]).all()
    assert (touching[:, :-1] != touching[:, 1:]).all()


@pytest.mark.parametrize("name", ["ring", "moons", "spirals", "pinwheel", "circles", "banana", "funnel"])
def test_the_log_density_does_not_underflow_far_away(name):
    log_p = toy.log_density(name, np.array([[30.0, -40.0]]))
    assert -1e12 < log_p.item() < -300


# ---- what is called from outside ----


@names
def test_samples_are_a_pure_function_of_the_generator(name):
    first, again, other = (toy.sample(name, 20, np.random.default_rng(seed)) for seed in (5, 5, 6))
    assert (first.shape, first.dtype) == ((20, 2), np.float64)
    np.testing.assert_array_equal(first, again)
    assert (first != other).all()


def test_rows_to_train_and_to_validate_on_are_independent():
    x_train, x_val = toy.dataset_rows("moons", n_train=30, n_val=20)
    assert (x_train.shape, x_val.shape) == ((30, 2), (20, 2))
    same_size = toy.dataset_rows("moons", 20, 20)
    assert not np.isin(*same_size).any()
    np.testing.assert_array_equal(toy.dataset_rows("moons", n_train=30, n_val=20)[1], x_val)
    assert (toy.dataset_rows("moons", 30, 20, seed=1)[0] != x_train).all()


@pytest.mark.parametrize("call", [lambda n: toy.sample(n, 3), lambda n: toy.log_density(n, np.ones((1, 2))), toy.entropy])
def test_an_unknown_name_is_refused(call):
    with pytest.raises(ValueError, match=r"name must be one of ring, moons, .*; got 'moon'"):
        call("moon")


@pytest.mark.parametrize(("x", "message"), [(np.ones((3, 3)), r"x must be .*\(n, 2\)"), ([[0, np.nan]], "x must be finite")])
def test_points_that_cannot_be_are_refused(x, message):
    with pytest.raises(ValueError, match=message):
        toy.log_density("ring", x)


def test_fewer_than_one_sample_is_refused():
    with pytest.raises(ValueError, match="n must be an integer of at least 1; got 0"):
        toy.sample("ring", 0)
