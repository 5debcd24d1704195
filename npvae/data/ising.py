"""The Ising model on a periodic square lattice (J = k_B = 1, no field): Monte Carlo samples and exact results.

Energies are per spin in units of J, E = -(1/N) Σ_<ij> s_i s_j with N = size² spins and 2N bonds, and temperatures in
units of J / k_B. A lattice of size 2 follows the same rule: two neighbours are joined by two bonds.
"""

import math
from typing import NamedTuple

import numpy as np

from npvae.core import checks
from npvae.core.progress import progress_bar

T_CRITICAL = 2 / math.log(1 + math.sqrt(2))  # 2.269185..., Onsager 1944

MAX_SIZE = 1024  # the burn-in then takes some ten seconds per temperature
MAX_SPINS = 2**32  # stored by one call of `simulate`, a byte each: 4 GiB
BURN_IN_SWEEPS = 50  # flips per spin; the energy's autocorrelation time is 1 to 3 in this unit, even at T_CRITICAL
SPINS_PER_CALL = 2**22  # stored by one call of the kernel: about 0.2 s in which Ctrl-C has to wait


class IsingSample(NamedTuple):
    """Lattices in the order of the temperatures: n = number of temperatures × n_samples."""

    spins: np.ndarray  # bool (n, size²), row by row, True = up
    temperature: np.ndarray  # (n,), J / k_B
    magnetization: np.ndarray  # (n,), mean spin in [-1, 1], signed
    energy: np.ndarray  # (n,), per spin, in [-2, 2] J


def simulate(temperatures, n_samples, size=32, seed=0, progress=False):
    """Draw `n_samples` lattices of size × size spins at each temperature with Wolff's algorithm, as an IsingSample.

    Each temperature has its own chain and generator, spawned from `seed`: chain i depends only on seed, size, i and
    temperatures[i], and a larger n_samples extends it. After the burn-in a fixed number of clusters separates stored
    samples, from the mean cluster size, so that about size² spins or more are flipped on average. (To stop once
    size² spins have been flipped would favour the states that follow large clusters.)

    Each stored lattice is turned over with probability 1/2, an exact symmetry without a field. Wolff's flips alone do
    not mix the sign far below T_CRITICAL: a cluster is nearly the whole lattice, so with one cluster between samples
    the sign alternates, and with two it stays the same for thousands of samples.

    `temperatures` is a positive number or a sequence of them, in J / k_B. `progress` shows a bar on a terminal.
    Raises ValueError for temperatures that are empty, not numbers or not positive and finite, n_samples < 1, size < 2
    or > MAX_SIZE, a negative seed, and more than MAX_SPINS spins in total (4 GiB).

    Source: Wolff, Phys. Rev. Lett. 62 (1989) 361.
    """
    temperatures = np.atleast_1d(_checked_temperatures("temperatures", temperatures))
    if temperatures.ndim != 1 or temperatures.size == 0:
        raise ValueError(f"temperatures must be a number or a non-empty sequence; got shape {temperatures.shape}")
    n_samples = checks.integer("n_samples", n_samples, 1)
    size = checks.integer("size", size, 2, MAX_SIZE)
    seed = checks.integer("seed", seed, 0)
    n = len(temperatures) * n_samples
    if n * size**2 > MAX_SPINS:
        raise ValueError(
            f"n_samples must make at most {MAX_SPINS} spins in total, a byte each; got {n * size**2}, from {n_samples} samples "
            f"at {len(temperatures)} temperatures and size {size}"
        )
    spins = np.empty((n, size * size), bool)
    magnetization, energy = np.empty(n), np.empty(n)
    chain_seeds = np.random.SeedSequence(seed).spawn(len(temperatures))
    start = 0
    with progress_bar(progress, total=n, desc="Ising", unit=" lattices", unit_scale=False) as bar:
        for temperature, chain_seed in zip(temperatures.tolist(), chain_seeds):
            for lattices in _chain(temperature, n_samples, size, np.random.default_rng(chain_seed)):
                stop = start + len(lattices)
                spins[start:stop] = lattices
                magnetization[start:stop] = magnetization_per_spin(lattices)
                energy[start:stop] = energy_per_spin(lattices, size)
                start = stop
                bar.update(len(lattices))
    return IsingSample(spins, np.repeat(temperatures, n_samples), magnetization, energy)


def _chain(temperature, n_samples, size, rng):
    """Yield the lattices of one chain in bool blocks (at most n_samples, size²), one call of the kernel per block."""
    from npvae.kernels.ising import wolff

    n_sites = size * size
    p_add = -math.expm1(-2 / temperature)
    coins = rng.spawn(1)[0]  # a generator of their own: the size of the blocks cannot change the chain
    state = np.ones(n_sites, np.int8)
    discarded = np.empty((1, n_sites), np.int8)

    # Rounds of 2, 4, 8, ... clusters; the last is at least BURN_IN_SWEEPS long and gives the mean cluster size. Begun in
    # order, clusters shrink towards equilibrium. Begun at random they would grow, and the last round could take hours.
    n_clusters, n_flipped = 1, 0
    while n_flipped < BURN_IN_SWEEPS * n_sites:
        n_clusters *= 2
        n_flipped = wolff(state, size, p_add, n_clusters, discarded, rng)
    clusters_per_sample = math.ceil(n_clusters * n_sites / n_flipped)

    block = max(1, SPINS_PER_CALL // n_sites)
    for start in range(0, n_samples, block):
        samples = np.empty((min(block, n_samples - start), n_sites), np.int8)
        wolff(state, size, p_add, clusters_per_sample, samples, rng)
        turned = coins.random(len(samples)) < 0.5
        yield (samples > 0) ^ turned[:, None]


def energy_per_spin(spins, size):
    """Energy per spin (...,) of lattices `spins` (..., size²), row by row; True or positive is up, all else is down.

    Raises ValueError where the last axis does not have size² spins.
    """
    size = checks.integer("size", size, 2)
    up = checks.plain_array("spins", spins) > 0
    if up.ndim == 0 or up.shape[-1] != size * size:
        raise ValueError(f"spins must have shape (..., size²) = (..., {size * size}); got {up.shape}")
    up = up.reshape(*up.shape[:-1], size, size)
    aligned_rows = np.count_nonzero(up == np.roll(up, 1, axis=-1), axis=(-2, -1))
    aligned_columns = np.count_nonzero(up == np.roll(up, 1, axis=-2), axis=(-2, -1))
    return 2 - 2 * (aligned_rows + aligned_columns) / size**2  # of 2N bonds, an aligned one has energy -1, any other +1


def magnetization_per_spin(spins):
    """Mean spin (...,) in [-1, 1] of lattices `spins` (..., N); True or positive is up, all else is down."""
    return 2 * np.mean(checks.plain_array("spins", spins) > 0, axis=-1) - 1


def onsager_energy(T):
    """Exact energy per spin of the infinite lattice at temperature T (any shape); absolute error about 1e-15 T.

    With K = 1/T, q = 2 tanh²(2K) - 1 and the complete elliptic integral 𝒦 of modulus k, where 1 - k² = q²:

        u(T) = -coth(2K) · [1 + (2/π) q 𝒦(k)]

    Raises ValueError where T is not positive and finite. Source: Onsager, Phys. Rev. 65 (1944) 117.
    """
    from scipy.special import ellipkm1

    tanh = np.tanh(2 / _checked_temperatures("T", T))
    q = 2 * tanh**2 - 1
    # 𝒦 → ∞ and q 𝒦 → 0 at T_CRITICAL; in floating point q is never 0, as no double has the square 1/2.
    return -(1 + 2 / np.pi * q * ellipkm1(q**2)) / tanh


def onsager_magnetization(T):
    """Exact spontaneous magnetization per spin of the infinite lattice at temperature T (any shape).

    M(T) = (1 - sinh(2/T)⁻⁴)^(1/8) below T_CRITICAL, and 0 from there on.

    Raises ValueError where T is not positive and finite. Source: Yang, Phys. Rev. 85 (1952) 808.
    """
    T = _checked_temperatures("T", T)
    x = 2 / np.minimum(T, T_CRITICAL)
    inverse_sinh = -2 * np.exp(-x) / np.expm1(-2 * x)  # sinh itself overflows at low T
    return np.where(T < T_CRITICAL, np.maximum(1 - inverse_sinh**4, 0) ** 0.125, 0.0)[()]


def kaufman_energy(T, size):
    """Exact energy per spin of the periodic size × size lattice at temperature T (any shape); error about 1e-15 T.

    With K = 1/T, n = size and cosh γ_l = cosh(2K) coth(2K) - cos(πl/n), γ_l > 0 for l = 1 ... 2n-1:

        Z = ½ (2 sinh 2K)^(n²/2) (Z_1 + Z_2 + Z_3 + Z_4)
        Z_1 = Π_r 2 cosh(n γ_(2r+1) / 2)    Z_2 = Π_r 2 sinh(n γ_(2r+1) / 2)    r = 0 ... n-1
        Z_3 = Π_r 2 cosh(n γ_(2r) / 2)      Z_4 = Π_r 2 sinh(n γ_(2r) / 2)
        u = -(1/n²) d ln Z / dK = -coth(2K) - (1/n²) Σ Z_i' / Σ Z_i

    γ_0 = 2K + ln tanh K is negative above T_CRITICAL, and so is Z_4. The products are summed as logarithms.

    Raises ValueError where T is not positive and finite, or size < 2. Source: Kaufman, Phys. Rev. 76 (1949) 1232;
    differentiated as in Ferdinand and Fisher, Phys. Rev. 185 (1969) 832.
    """
    n = checks.integer("size", size, 2)
    K = np.minimum(1 / _checked_temperatures("T", T), 100)[..., None]  # u(K = 100) is -2 to the last digit
    sinh, cosh = np.sinh(2 * K), np.cosh(2 * K)
    l = np.arange(1, 2 * n)
    excess = (sinh - 1) ** 2 / sinh + 2 * np.sin(np.pi * l / (2 * n)) ** 2  # cosh γ_l - 1, exact also at T_CRITICAL
    x = n * np.arcsinh(np.sqrt(excess / 2))  # n γ_l / 2
    dx = n * cosh * (1 - 1 / sinh**2) / np.sqrt(excess * (excess + 2))  # its derivative with respect to K
    log_cosh, dlog_cosh = x + np.log1p(np.exp(-2 * x)), dx * np.tanh(x)
    log_sinh, dlog_sinh = x + np.log(-np.expm1(-2 * x)), dx / np.tanh(x)
    odd, even = np.s_[..., 0::2], np.s_[..., 1::2]  # l begins at 1

    # l = 0 stays apart, because its sinh passes through zero: c = 2 cosh x0 and s = 2 sinh x0, both over exp|x0|.
    x0 = n * (K + np.log(np.tanh(K)) / 2)[..., 0]
    dx0 = n * (1 + 1 / sinh)[..., 0]
    small = np.exp(-2 * np.abs(x0))
    c, s = 1 + small, np.sign(x0) * (1 - small)
    logs = np.stack([a.sum(-1) for a in (log_cosh[odd], log_sinh[odd], log_cosh[even], log_sinh[even])])
    logs[2:] += np.abs(x0)
    w1, w2, w3, w4 = np.exp(logs - logs.max(0))
    d1, d2, d3, d4 = (a.sum(-1) for a in (dlog_cosh[odd], dlog_sinh[odd], dlog_cosh[even], dlog_sinh[even]))
    Z = w1 + w2 + w3 * c + w4 * s
    dZ = w1 * d1 + w2 * d2 + w3 * (c * d3 + s * dx0) + w4 * (s * d4 + c * dx0)
    return -(cosh / sinh)[..., 0] - dZ / Z / n**2


def autocorrelation_time(series):
    """Integrated autocorrelation time of a stationary series (n,), in steps; 1/2 if its values are independent.

    With ρ(t) the normalised autocorrelation at lag t, estimated around the mean of the series,

        τ(M) = 1/2 + Σ_(t=1..M) ρ(t),    M the smallest with M ≥ 6 max(τ(M), 1)    (automatic windowing)

    The mean of the series has variance 2 τ / n times that of one value. The estimate needs n well above 100 τ.
    The max keeps six lags where the signs alternate and τ is small. A constant series, and one of fewer than seven
    values, says nothing about τ and returns 1/2. So does one of fewer than a thousand whose estimate is lower: the noise of
    the estimate would make some of them negative.

    Raises ValueError where `series` is not 1-D with at least two finite values. Source: Sokal, Monte Carlo Methods in
    Statistical Mechanics (Cargèse lectures, 1997), section 3.
    """
    series = _as_real("series", series)
    if series.ndim != 1 or len(series) < 2 or not np.isfinite(series).all():
        raise ValueError(f"series must have one axis with at least two values, all finite; got shape {series.shape}")
    if len(series) < 7 or np.ptp(series) == 0:
        return 0.5
    n = len(series)
    spectrum = np.fft.rfft(series - series.mean(), 2 * n)  # padded: the transform's correlation is cyclic
    covariance = np.fft.irfft(np.abs(spectrum) ** 2, 2 * n)[:n]
    tau = np.cumsum(covariance / covariance[0]) - 0.5
    estimate = float(tau[np.argmax(np.arange(n) >= 6 * np.maximum(tau, 1))])
    return max(estimate, 0.5) if n < 1000 else estimate


def _as_real(name, values):
    """`values` as a float array of the same shape, if they are real numbers."""
    array = checks.plain_array(name, values)
    if array.dtype.kind not in "iuf":
        raise ValueError(f"{name} must be real numbers; got dtype {array.dtype}")
    return array.astype(float)


def _checked_temperatures(name, values):
    """`values` as a float array of the same shape, if they are positive and finite."""
    array = _as_real(name, values)
    bad = array[~(np.isfinite(array) & (array > 0))]
    if bad.size:
        raise ValueError(f"{name} must be positive finite numbers; got {bad[0]}")
    return array
