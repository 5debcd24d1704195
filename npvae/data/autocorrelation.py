"""Autocorrelation times: how many steps of a Markov chain make an independent one."""

import math

import numpy as np

from npvae.core import checks


def autocorrelation_time(series):
    """Integrated autocorrelation time τ of a stationary series (n,), in steps; 1/2 if its values are independent.

    The first of the two numbers of `autocorrelation_time_and_error`, whose docstring says the rest.
    """
    return autocorrelation_time_and_error(series)[0]


def autocorrelation_time_and_error(series):
    """Integrated autocorrelation time τ of a stationary series (n,), and the standard error of its estimate, in steps.

    With ρ(t) the normalised autocorrelation at lag t, estimated around the mean of the series,

        τ(M) = 1/2 + Σ_(t=1..M) ρ(t),    M the smallest with M ≥ 6 max(τ(M), 1)    (automatic windowing)
        var τ = (4/n) (M + 1/2 - τ) τ²

    τ is 1/2 for independent values. The mean of the series has variance 2 τ / n times that of one value. The estimate needs n
    well above 100 τ; its error is then known to about a fifth. The max keeps six lags where the signs alternate and τ is
    small. A constant series, and one of fewer than seven values, says nothing about τ and returns 1/2, with error 0. One of
    fewer than a thousand whose estimate is lower returns 1/2, too: the noise of the estimate would make some of them negative.

    Raises ValueError where `series` is not 1-D with at least two finite values. Source: Sokal, Monte Carlo Methods in
    Statistical Mechanics (Cargèse lectures, 1997), section 3; the variance: Wolff, Comput. Phys. Commun. 156 (2004) 143,
    equation 42, after Madras and Sokal, J. Stat. Phys. 50 (1988) 109.
    """
    series = checks.plain_array("series", series)
    if series.dtype.kind not in "iuf" or series.ndim != 1 or len(series) < 2 or not np.isfinite(series).all():
        raise ValueError("series must have one axis with at least two real values, all finite; got dtype "
                         f"{series.dtype} and shape {series.shape}")  # fmt: skip
    n = len(series)
    if n < 7 or series.min() == series.max():
        return 0.5, 0.0
    series = series.astype(float)
    spectrum = np.fft.rfft(series - series.mean(), 2 * n)  # padded: the transform's correlation is cyclic
    covariance = np.fft.irfft(np.abs(spectrum) ** 2, 2 * n)[:n]
    times = np.cumsum(covariance / covariance[0]) - 0.5
    window = int(np.argmax(np.arange(n) >= 6 * np.maximum(times, 1)))
    tau = float(times[window])
    if n < 1000:
        tau = max(tau, 0.5)
    return tau, abs(tau) * math.sqrt(max(4 * (window + 0.5 - tau) / n, 0))
