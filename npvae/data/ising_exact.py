"""Exact results for the Ising model on a square lattice (J = k_B = 1, no field), infinite or periodic.

Energies are per spin in units of J, temperatures in J / k_B. A size × size lattice has N = size² spins and 2N bonds, and
size 2 follows the same rule: two neighbours are joined by two bonds.
"""

import math

import numpy as np

from npvae.core import checks

T_CRITICAL = 2 / math.log(1 + math.sqrt(2))  # 2.269185..., Onsager 1944
K_FROZEN = 10  # of 1/T: from there on a lattice of any size is in its two ground states, to the last digit


def onsager_energy(T):
    """Exact energy per spin of the infinite lattice at temperature T (any shape); absolute error about 1e-15 T.

    With K = 1/T, q = 2 tanh²(2K) - 1 and the complete elliptic integral 𝒦 of modulus k, where 1 - k² = q²:

        u(T) = -coth(2K) · [1 + (2/π) q 𝒦(k)]

    Raises ValueError where T is not positive and finite. Source: Onsager, Phys. Rev. 65 (1944) 117.
    """
    from scipy.special import ellipkm1

    tanh = np.tanh(2 / checked_temperatures("T", T))
    q = 2 * tanh**2 - 1
    # 𝒦 → ∞ and q 𝒦 → 0 at T_CRITICAL; in floating point q is never 0, as no double has the square 1/2.
    return -(1 + 2 / np.pi * q * ellipkm1(q**2)) / tanh


def onsager_magnetization(T):
    """Exact spontaneous magnetization per spin of the infinite lattice at temperature T (any shape).

    M(T) = (1 - sinh(2/T)⁻⁴)^(1/8) below T_CRITICAL, and 0 from there on.

    Raises ValueError where T is not positive and finite. Source: Yang, Phys. Rev. 85 (1952) 808.
    """
    T = checked_temperatures("T", T)
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
    K = 1 / np.maximum(checked_temperatures("T", T), 1 / K_FROZEN)
    _, dlog_sum = _log_sum_of_products(K, n)
    return -1 / np.tanh(2 * K) - dlog_sum / n**2


def kaufman_log_partition(T, size):
    """ln Z in nats of the periodic size × size lattice at temperature T (any shape), Z = Σ exp(-N u / T) over the 2^N states;
    relative error about 1e-15.

    Z is that of `kaufman_energy`. The free energy of the lattice is -T ln Z. ln Z tends to N ln 2 as T → ∞, and to
    ln 2 + 2N / T as T → 0: two ground states.

    Raises ValueError where T is not positive and finite, or size < 2. Source: Kaufman, Phys. Rev. 76 (1949) 1232.
    """
    n = checks.integer("size", size, 2)
    T = checked_temperatures("T", T)
    K = 1 / np.maximum(T, 1 / K_FROZEN)
    log_sum, _ = _log_sum_of_products(K, n)
    log_2sinh = 2 * K + np.log(-np.expm1(-4 * K))  # ln(2 sinh 2K)
    return n**2 / 2 * log_2sinh + log_sum - math.log(2) + 2 * n**2 * (1 / T - K)


def kaufman_entropy(T, size):
    """Entropy S = ln Z + N u / T in nats per lattice of the periodic size × size lattice at temperature T (any shape); error
    about 1e-15 N.

    That of Boltzmann's distribution over the 2^N states: what a perfect model of the lattices needs on average, E[-log p(x)].
    It tends to N ln 2 as T → ∞ and to ln 2 as T → 0.

    Raises ValueError where T is not positive and finite, or size < 2. Source: as `kaufman_energy`.
    """
    T = np.maximum(checked_temperatures("T", T), 1 / K_FROZEN)
    return kaufman_log_partition(T, size) + size**2 * kaufman_energy(T, size) / T


def _log_sum_of_products(K, n):
    """ln(Z_1 + Z_2 + Z_3 + Z_4) of `kaufman_energy` and its derivative with respect to K, both of the shape of K."""
    K = K[..., None]
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
    return logs.max(0) + np.log(Z), dZ / Z


def checked_temperatures(name, values):
    """`values` as a float array of the same shape, if they are positive and finite numbers, else ValueError."""
    array = checks.plain_array(name, values)
    if array.dtype.kind not in "iuf":
        raise ValueError(f"{name} must be real numbers; got dtype {array.dtype}")
    array = array.astype(float)
    bad = array[~(np.isfinite(array) & (array > 0))]
    if bad.size:
        raise ValueError(f"{name} must be positive finite numbers; got {bad[0]}")
    return array
