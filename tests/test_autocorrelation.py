"""The estimate of autocorrelation times and of its own error."""

import math

import numpy as np
import pytest

from npvae.data.autocorrelation import autocorrelation_time, autocorrelation_time_and_error


@pytest.mark.parametrize("a", [-0.4, 0.0, 0.8])
def test_autocorrelation_time_of_an_ar1_process(a):
    """x_t = a x_(t-1) + noise has ρ(t) = a^t, so τ = (1 + a) / (2 (1 - a))."""
    noise = np.random.default_rng(0).standard_normal(100_000).tolist()
    series = [noise[0] / math.sqrt(1 - a**2)]
    for eps in noise[1:]:
        series.append(a * series[-1] + eps)
    assert autocorrelation_time(series) == pytest.approx((1 + a) / (2 * (1 - a)), rel=0.06)


def test_autocorrelation_time_of_a_series_that_does_not_show_it():
    assert autocorrelation_time([0.1] * 70) == 0.5
    assert autocorrelation_time([1, 2, 3, 4, 5, 6]) == 0.5


@pytest.mark.parametrize("n", [7, 10, 20, 100, 200, 999])
def test_autocorrelation_time_of_a_short_series_is_at_least_that_of_independent_values(n):
    rng = np.random.default_rng(n)
    alternating = (-1.0) ** np.arange(n)
    for series in (alternating, np.arange(n), *rng.standard_normal((200, n))):
        assert autocorrelation_time(series) >= 0.5
    assert autocorrelation_time((-1.0) ** np.arange(1000)) < 0.5  # long enough to show it


@pytest.mark.parametrize("a", [-0.3, 0.0, 0.9])
def test_the_error_of_the_estimate_is_its_spread_over_many_series(a):
    """300 series of an AR(1) process of known τ, side by side: τ scatters by as much as each says of itself, to a fifth."""
    rng, n = np.random.default_rng(1), 4000
    x = rng.standard_normal(300)
    series = np.empty((n, 300))
    for t in range(n):
        x = series[t] = a * x + math.sqrt(1 - a**2) * rng.standard_normal(300)
    tau, error = np.transpose([autocorrelation_time_and_error(column) for column in series.T])
    exact = (1 + a) / (2 * (1 - a))
    assert error.mean() == pytest.approx(tau.std(), rel=0.25)
    assert tau.mean() == pytest.approx(exact, rel=0.02)


def test_a_series_that_does_not_show_its_autocorrelation_has_no_error():
    for series in ([0.1] * 70, [1, 2, 3, 4, 5, 6]):
        assert autocorrelation_time_and_error(series) == (0.5, 0.0)
    tau, error = autocorrelation_time_and_error(np.random.default_rng(0).standard_normal(200))
    assert tau >= 0.5
    assert 0 < error < tau


@pytest.mark.parametrize("series", [[1.0], [1.0, math.nan], ["a", "b"], np.ones((3, 3)), [1j, 2j], 3.0])
def test_bad_series(series):
    with pytest.raises(ValueError, match=r"^series must [^\n]*; got [^\n]*$"):
        autocorrelation_time(series)
