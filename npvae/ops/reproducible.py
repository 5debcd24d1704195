"""Arithmetic that gives the same bits everywhere: exp, log, the normal distribution, activations and dense layers.

A decoder that must repeat what an encoder computed, on another machine, cannot use `np.exp` or `x @ W`: their last digits
depend on the library, the processor and the number of threads. IEEE 754 fixes the result of one addition, subtraction,
multiplication, division or square root of two floats, and of a comparison or rounding to an integer. So whatever is made of
these alone, in an order that is written down, has the same bits everywhere. That is the rule of this file. It uses NumPy only
element by element, never `np.sum`, `np.dot` or a transcendental function. `npvae.kernels.reproducible` is the same arithmetic
in compiled loops, to the last bit, for which no multiplication and addition may be contracted to one operation.

All arrays are float64, of any shape unless it is given. Errors are relative ones where it says so; they were measured against
50 digits.
"""

import numpy as np

LOG2_E = 1.4426950408889634
LN2_HEAD, LN2_TAIL = 0.6931471805598903, 5.497923018708371e-14  # k LN2_HEAD is exact for the exponent k of every float
EXP_MIN, EXP_MAX = -708.0, 709.0
SMALLEST_EXPONENT = -1022
POWERS_OF_TWO = np.ldexp(1.0, np.arange(SMALLEST_EXPONENT, 1024))
ROOT_HALF, ROOT_TWO, ROOT_TWO_PI = 0.7071067811865476, 1.4142135623730951, 2.5066282746310002

# (e^r − 1 − r)/r² for |r| ≤ ½ log 2, and (2 atanh(s) − 2s)/s³ in powers of s² for |s| ≤ 0.172: the minimax polynomials of
# `npvae.kernels.elementary`. MILLS is Φ(−x) e^(x²/2) in powers of u = 20/(x + 6) − 7/3, which is 1 at x = 0 and −1 at x = 9:
# interpolated at 17 Chebyshev points in 60 digits, relative error 7e-16. Highest power first.
EXP_REST = (2.09244271270314e-09, 2.5109033575889995e-08, 2.755724281208411e-07, 2.755724421169338e-06, 2.480158736049478e-05,
            0.00019841269886131875, 0.001388888888886687, 0.008333333333321626, 0.0416666666666667, 0.16666666666666677,
            0.5)  # fmt: skip
ATANH_REST = (0.14795952242710977, 0.15314050267745755, 0.18183564338548586, 0.22222198572919621, 0.285714287423904,
              0.39999999999414665, 0.6666666666666734)  # fmt: skip
MILLS = (-8.678117890911512e-11, -1.6151419122005e-10, 2.5406613760978786e-09, 1.0696748395711595e-08, -4.5964824000234355e-08,
         -5.156033981595374e-07, -9.408241749079795e-07, 1.2720357965500251e-05, 0.0001329596069299325, 0.0007475135844558143,
         0.0030484270100685114, 0.009819464427503278, 0.025906012648195524, 0.05691220766043473, 0.10467152391054585,
         0.1606092046023712, 0.13814145559481225)  # fmt: skip


def polynomial(x, coefficients):
    """Σ_k c_k x^k by Horner's rule, the highest power first."""
    value = coefficients[0]
    for coefficient in coefficients[1:]:
        value = value * x + coefficient
    return value


def exp(x):
    """e^x, to 2e-16 of itself, for x in [−708, 709]; what lies beyond is taken for the bound, and NaN for the lower one.

    x = k log 2 + r with a whole number k and |r| ≤ ½ log 2; then e^x = 2^k (1 + r + r² P(r)) (Cody & Waite 1980).
    """
    x = np.where(x > EXP_MIN, np.where(x < EXP_MAX, x, EXP_MAX), EXP_MIN)
    k = np.floor(x * LOG2_E + 0.5)
    r = (x - k * LN2_HEAD) - k * LN2_TAIL
    return (1.0 + (r + r * r * polynomial(r, EXP_REST))) * POWERS_OF_TWO[k.astype(np.int64) - SMALLEST_EXPONENT]


def log_one_plus_small(f):
    """log(1 + f) for √½ ≤ 1 + f ≤ √2: 2 atanh(s) with s = f/(2 + f), whose first term is f − f²/2 + s f²/2."""
    s = f / (2.0 + f)
    square, half_f2 = s * s, 0.5 * f * f
    return f - (half_f2 - s * (half_f2 + square * polynomial(square, ATANH_REST)))


def log(x):
    """log x, to 3e-16 of itself or of 1, for finite x > 0: x = 2^k (1 + f) with 1 + f in [√½, √2)."""
    fraction, k = np.frexp(x)  # exact: ½ ≤ fraction < 1
    small = fraction < ROOT_HALF
    k = k - np.where(small, 1.0, 0.0)
    return k * LN2_HEAD + (k * LN2_TAIL + log_one_plus_small(np.where(small, 2.0 * fraction, fraction) - 1.0))


def sigmoid(x):
    """σ(x) = 1/(1 + e^−x), to 4e-16 of itself for |x| ≤ 700."""
    t = exp(np.where(x > 0, -x, x))  # e^−|x|
    return np.where(x > 0, 1.0, t) / (1.0 + t)


def relu(x):
    """max(x, 0)."""
    return np.where(x > 0, x, 0.0)


def tanh(x):
    """tanh x = 2σ(2x) − 1, to an absolute error of 3e-16."""
    return 2.0 * sigmoid(2.0 * x) - 1.0


def softplus(x):
    """log(1 + e^x) = max(x, 0) + log(1 + e^−|x|), to 5e-16 of itself."""
    t = exp(np.where(x > 0, -x, x))  # in (0, 1]
    large = t > ROOT_TWO - 1.0
    rest = log_one_plus_small(np.where(large, 0.5 * (t - 1.0), t))  # of (1 + t)/2 = 1 + (t − 1)/2, or of 1 + t
    return np.where(x > 0, x, 0.0) + (np.where(large, LN2_HEAD + LN2_TAIL, 0.0) + rest)


def silu(x):
    """x σ(x)."""
    return x * sigmoid(x)


def identity(x):
    """x."""
    return x


ACTIVATIONS = ("identity", "relu", "tanh", "sigmoid", "softplus", "silu")


def activate(pre, number):
    """The activation ACTIVATIONS[number] of pre, any shape."""
    return (identity, relu, tanh, sigmoid, softplus, silu)[number](pre)


def normal_cdf(x):
    """Φ(x), the probability that a standard normal variable is below x: 8e-15 of itself for x ≥ −9; Φ(−9) = 1e-19 below.

    Φ(−|x|) = e^(−x²/2) M(|x|), where M is Mills' ratio but for a constant: smooth, and a polynomial in 1/(|x| + 6).
    """
    size = np.where(x < 0, -x, x)
    size = np.where(size < 9.0, size, 9.0)
    lower = exp(-0.5 * (size * size)) * polynomial(20.0 / (size + 6.0) - 7.0 / 3.0, MILLS)
    return np.where(x > 0, 1.0 - lower, lower)


def normal_quantile(p):
    """Φ⁻¹(p) for p in [1e-15, 1 − 1e-15], to an absolute error of 1e-14.

    The start is good to 5e-4 (Abramowitz & Stegun 1964, 26.2.23), and each of two steps of Halley's method for Φ(x) = p
    triples the number of digits: with the error e = (Φ(x) − p)/φ(x), x − e/(1 + x e/2).
    """
    lower = np.where(p > 0.5, 1.0 - p, p)
    t = np.sqrt(-2.0 * log(lower))
    x = polynomial(t, (0.010328, 0.802853, 2.515517)) / polynomial(t, (0.001308, 0.189269, 1.432788, 1.0)) - t
    for _ in range(2):
        error = (normal_cdf(x) - lower) * (ROOT_TWO_PI * exp(0.5 * (x * x)))
        x = x - error / (1.0 + 0.5 * (x * error))
    return np.where(p > 0.5, -x, x)


def dense(x, W, b, activation):
    """One layer for one row, the activation of x W + b: x (n_in,), W (n_in, n_out), b (n_out,) -> (n_out,).

    activation is a number of ACTIVATIONS. Each output is (((0 + b) + x_0 W_0) + x_1 W_1) + …, in this order. 0 + b is b but for
    −0, which becomes 0: from then on, adding a product with x_k = 0 changes nothing, and is left out.
    """
    pre = 0.0 + b
    for k in np.flatnonzero(x):
        pre += x[k] * W[k]
    return activate(pre, activation)
