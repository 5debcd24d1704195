"""The Ising study: its statistics against exact values, and one tiny run of the whole."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from scipy.special import gammaln
from scipy.stats import mannwhitneyu

from npvae.data import ising

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture
def study(monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES)
    import ising_study

    return ising_study


@pytest.fixture
def scaling(monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES)
    import ising_scaling

    return ising_scaling


def test_binder_of_a_gaussian_is_zero_and_of_two_points_two_thirds(scaling):
    nodes, weights = np.polynomial.hermite_e.hermegauss(8)
    weights = weights / weights.sum()
    gaussian = np.array([weights @ np.abs(3 * nodes), weights @ (3 * nodes) ** 2, weights @ (3 * nodes) ** 4])
    assert scaling.binder(gaussian) == pytest.approx(0, abs=1e-12)
    two_points = scaling.moments(np.array([[0.3, -0.3, 0.3], [-2.0, 2.0, 2.0]]))
    np.testing.assert_allclose(scaling.binder(two_points), 2 / 3, rtol=1e-14)
    np.testing.assert_allclose(scaling.susceptibility(two_points, 5), 0, atol=1e-12)


def test_moments_and_susceptibility_of_few_values(scaling):
    found = scaling.moments([[1.0, -2.0, 3.0]])
    np.testing.assert_allclose(found, [[2, 14 / 3, 98 / 3]])
    np.testing.assert_allclose(scaling.susceptibility(found, 4), 16 * (14 / 3 - 4))


def test_exceed_is_the_statistic_of_mann_and_whitney_and_ignores_rising_maps(scaling):
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 8, (2, 3, 30)) / 4  # with ties
    found = scaling.exceed(a, b)
    expected = [[mannwhitneyu(x, y).statistic / 900 for y in b] for x in a]
    np.testing.assert_allclose(found, expected, rtol=1e-13)
    np.testing.assert_array_equal(scaling.exceed(np.exp(a), np.exp(b)), found)
    v = rng.standard_normal((4, 2, 20))
    pairs = scaling.pairs_told_apart(v)
    assert pairs.shape == (2, 2, 2)
    np.testing.assert_array_equal(pairs[1], scaling.exceed(np.abs(v[1]), np.abs(v[3])))
    np.testing.assert_array_equal(scaling.pairs_told_apart(v**3), pairs)


def synthetic(scaling, sizes=(8, 16, 32), n_chains=4, noise=0.0, nu=1.0):
    """Summaries of moments that obey finite-size scaling exactly, with T_c = 2 and β/ν = 1/8."""
    rng, summaries = np.random.default_rng(1), []
    for size in sizes:
        T = 2 + 4 / size * np.linspace(-1, 1, 15)
        t = ((T - 2) * size ** (1 / nu))[:, None]
        U = 0.4 - 0.1 * t + noise * rng.standard_normal((len(T), n_chains))
        order = size**-0.125 * (2 - 0.05 * t) + 0 * U
        chi = size**1.75 * np.exp(-(((t - 1) / 4) ** 2)) + 0 * U
        second = chi / size**2 + order**2
        told = size ** (1 / nu) * np.exp(-(((t[1:-1] - 0.5) / 4) ** 2)) * (T[2] - T[0]) * 1e-3 + 0.5
        moments = np.stack([order, second, 3 * (1 - U) * second**2], axis=-1)
        summaries.append(scaling.Summary(size, T, moments, np.broadcast_to(told[..., None], (13, n_chains, n_chains))))
    return summaries


def test_estimates_find_the_transition_and_the_exponents_of_exact_scaling(scaling):
    found = scaling.with_errors(synthetic(scaling), 3, seed=0)
    expected = {"T_c, Binder": 2, "T_c, susceptibility": 2, "T_c, told apart": 2, "U at T_c": 0.4, "nu, Binder": 1,
                "nu, told apart": 1, "beta/nu": 0.125, "gamma/nu": 1.75}  # fmt: skip
    assert list(found) == list(expected)
    for name, (value, error) in found.items():
        assert value == pytest.approx(expected[name], abs=2e-3), name
        assert error == pytest.approx(0, abs=1e-12), name
    other = scaling.with_errors(synthetic(scaling, nu=0.9), 2, seed=0)
    assert other["nu, Binder"][0] == pytest.approx(0.9, abs=1e-3)
    assert other["nu, told apart"][0] == pytest.approx(0.9, abs=0.01)


def test_meeting_point_and_peak_of_known_curves(scaling):
    curves = [scaling.fitted(np.linspace(1, 2, 9), slope * (np.linspace(1, 2, 9) - 1.4)) for slope in (1, -2, 3)]
    assert scaling.meeting_point(curves, 1, 2) == pytest.approx(1.4, abs=1e-4)
    T, nearly_flat_below = np.linspace(1, 2, 9), []
    for i, slope in enumerate((1, 2, 3)):
        nearly_flat_below.append(scaling.fitted(T, slope * (T - 1.4 - 0.003 * i) * (T - 1) ** 2))
    assert scaling.meeting_point(nearly_flat_below, 1.02, 2) == pytest.approx(1.4, abs=0.01)
    parabola = scaling.fitted(np.linspace(1, 2, 9), 5 - (np.linspace(1, 2, 9) - 1.7) ** 2)
    assert scaling.peak(parabola, 1, 2) == pytest.approx((1.7, 5), abs=1e-4)
    assert scaling.extrapolated([8, 16], [2 + 3 / 8, 2 + 3 / 16]) == pytest.approx(2)
    assert scaling.power([2, 4, 8], [3 * L**1.5 for L in (2, 4, 8)]) == pytest.approx(1.5)


def test_the_bootstrap_s_error_is_that_of_repeated_experiments(scaling):
    """U of each chain has noise σ. Its error of T_c, by bootstrap, beside the spread of T_c over independent experiments."""
    rng, estimates, errors = np.random.default_rng(2), [], []
    exact = synthetic(scaling, n_chains=8)
    for _ in range(40):
        noisy = []
        for s in exact:
            moments = s.moments.copy()
            moments[..., 2] += 0.03 * 3 * moments[..., 1] ** 2 * rng.standard_normal(moments.shape[:2])
            noisy.append(s._replace(moments=moments))
        shapes = [s.moments.shape[:2] for s in noisy]
        estimates.append(scaling.estimates(noisy, [np.broadcast_to(np.arange(C), (K, C)) for K, C in shapes])["T_c, Binder"])
        if len(errors) < 4:
            errors.append(scaling.with_errors(noisy, 40, len(errors))["T_c, Binder"][1])
    assert np.mean(errors) == pytest.approx(np.std(estimates), rel=0.4)  # √(7/8) is the bootstrap's own bias for 8 chains


def test_a_summary_draws_the_chains_it_is_told(scaling):
    rng = np.random.default_rng(3)
    s = scaling.Summary(4, np.arange(4.0), rng.random((4, 3, 3)), rng.random((2, 3, 3)))
    chains = np.array([[0, 0, 2], [1, 1, 1], [2, 0, 1], [1, 2, 2]])
    means, apart = s.drawn(chains)
    np.testing.assert_allclose(means[0], (2 * s.moments[0, 0] + s.moments[0, 2]) / 3)
    np.testing.assert_allclose(apart[1], np.mean([s.apart[1, 1, c] for c in (1, 2, 2)]))


def test_correlation_is_the_mean_over_pairs(study):
    size, rng = 6, np.random.default_rng(4)
    s = rng.standard_normal((3, size, size))
    found = study.correlation(s.reshape(3, -1), size)
    for r in range(4):
        expected = (s * np.roll(s, r, axis=1) + s * np.roll(s, r, axis=2)).mean(axis=(1, 2)) / 2
        np.testing.assert_allclose(found[:, r], expected, atol=1e-14)
    x = (s > 0).reshape(3, -1)
    np.testing.assert_allclose(-2 * study.correlation(study.spins(x), size)[:, 1], ising.energy_per_spin(x, size), atol=1e-12)


def test_what_m_leaves_open_counts_lattices(study):
    m = np.array([-1, -0.5, 0, 1])  # of 4 spins: 0, 1, 2, 4 up
    np.testing.assert_allclose(study.left_open_by_m(m, 4), np.log([1, 4, 6, 1]), atol=1e-14)
    assert study.left_open_by_m(np.zeros(1), 100)[0] == pytest.approx(gammaln(101) - 2 * gammaln(51))


def test_the_whole_study_in_small_and_again_from_what_it_kept(study, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(sys, "argv", ["ising_study.py", "--quick", "--out", str(tmp_path)])
    study.main()
    out = capsys.readouterr().out
    assert {path.name for path in tmp_path.glob("*.png")} == {f"ising_{name}.png" for name in
                                                              ("latent", "entropy", "scaling", "critical")}  # fmt: skip
    assert out.count("trained") == 2 + len(study.QUICK.scaling.sizes)
    table = out[out.index("quantity") : out.index("pictures:")]
    bounds = re.findall(r"≥ (\S+) +(\S+) +± (\S+)$", table, re.M)
    assert len(bounds) == 6 + 2 * len(study.QUICK.temperatures)
    for exact, measured, error in (map(float, row) for row in bounds):
        assert measured > exact + error  # so small a model is far from the bound
    rows = {line[:60].strip(): line[60:].split() for line in table.splitlines()}
    exact, measured, _, error = rows["energy per spin at T_c, simulated"]
    assert abs(float(measured) - float(exact)) < 4.9 * float(error)
    predicted, drawn, _, error = rows["the same beside −2 E[μ_i μ_j] of neighbours"]
    assert abs(float(drawn) - float(predicted)) < 4.9 * float(error)
    assert float(rows["1 latent: sign of m recovered, T < T_c"][1]) > 0.9

    kept = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.npz")}
    for name in ("latent", "entropy", "scaling", "critical"):  # drawn before
        monkeypatch.setattr(study.ising_pictures, name, lambda *_: Figure())
    study.main()
    again = capsys.readouterr().out
    assert "trained" not in again
    assert again[again.index("quantity") : again.index("pictures:")] == table
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.npz")} == kept
