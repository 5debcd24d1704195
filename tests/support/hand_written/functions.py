"""Functions of NumPy that take no complex numbers, or lose their imaginary parts without a word."""

import numpy as np

from hand_written import Pair, Scalar, normal, right, wrong


@right
def angle_by_arctan2():
    """The angle of a point, and its distance by hypot."""
    return polar(1)


@wrong
def angle_by_arctan2_with_a_sign():
    """The angle's derivative with the signs exchanged."""
    return polar(-1)


def polar(sign):
    def forward(x, y):
        return (np.arctan2(y, x), np.hypot(x, y)), (x, y)

    def backward(dangle, dradius, cache):
        x, y = cache
        r2 = x * x + y * y
        dx = -sign * dangle * y / r2 + dradius * x / np.sqrt(r2)
        return dx, sign * dangle * x / r2 + dradius * y / np.sqrt(r2)

    return Pair(forward, backward, (normal(4), normal(4, seed=1)))


@right
def sums_by_logaddexp():
    """log(exp a + exp b) by np.logaddexp, over a recurrence."""
    return chain_of_sums(whole=True)


@wrong
def sums_by_logaddexp_without_the_first_share():
    """The share of the running sum is taken for one."""
    return chain_of_sums(whole=False)


def chain_of_sums(whole):
    x = normal(6)
    partial = np.logaddexp.accumulate(x)
    g = np.exp(x - partial[-1])
    if not whole:
        g = np.exp(x - partial)
    return Scalar(lambda x: np.logaddexp.reduce(x), x, g)


@right
def cube_root():
    """np.cbrt of negative and positive numbers."""
    x = normal(5)
    return Scalar(lambda x: np.cbrt(x).sum(), x, 1 / (3 * np.cbrt(x) ** 2))


@right
def saw_tooth():
    """x mod 1, whose slope is one."""
    x = 3 * normal(5)
    return Scalar(lambda x: (np.mod(x, 1.0) ** 2).sum(), x, 2 * np.mod(x, 1.0))


@wrong
def saw_tooth_without_the_mod():
    """The gradient of x² in place of that of (x mod 1)²."""
    x = 3 * normal(5)
    return Scalar(lambda x: (np.mod(x, 1.0) ** 2).sum(), x, 2 * x)


@right
def median_absolute_deviation():
    """np.median and np.abs: one entry has all the slope."""
    x = normal(7)
    centre = np.median(x)
    middle, far = np.argsort(x)[3], np.argsort(np.abs(x - centre))[3]
    g = np.zeros(7)
    g[far] += np.sign(x[far] - centre)
    g[middle] -= np.sign(x[far] - centre)
    return Scalar(lambda x: np.median(np.abs(x - np.median(x))), x, g)


@wrong
def median_absolute_deviation_of_a_constant_centre():
    """The median in the middle is taken for a constant."""
    f, x, grad, _ = median_absolute_deviation()
    return Scalar(f, x, np.where(np.arange(7) == np.argsort(x)[3], 0, grad))


@right
def squares_by_vdot():
    """np.vdot, which conjugates."""
    x = normal(5)
    return Scalar(lambda x: np.vdot(x, x) / 2, x, x)


FEATURES = normal(6, 3, seed=4)


def smooth(w):
    return np.tanh(FEATURES @ w).sum()


def smooth_grad(w):
    return FEATURES.T @ (1 - np.tanh(FEATURES @ w) ** 2)


@right
def weak_penalty_by_vdot():
    """1e-7 vdot(w, w) beside a loss that the complex step can differentiate."""
    w = normal(3)
    return Scalar(lambda w: smooth(w) + 1e-7 * np.vdot(w, w), w, smooth_grad(w) + 2e-7 * w)


@wrong(error=3e-8)
def weak_penalty_by_vdot_forgotten():
    """1e-7 vdot(w, w) is in the loss only."""
    w = normal(3)
    return Scalar(lambda w: smooth(w) + 1e-7 * np.vdot(w, w), w, smooth_grad(w))


@right(unknowable="the complex step loses the penalty, and differences do not see so little")
def penalty_below_the_differences():
    """1e-11 vdot(w, w) beside the same loss."""
    w = normal(3)
    return Scalar(lambda w: smooth(w) + 1e-11 * np.vdot(w, w), w, smooth_grad(w) + 2e-11 * w)


def spectral(both):
    """|F x|² through np.fft.fft, real and imaginary parts squared by themselves."""
    x, w = normal(6), np.linspace(1, 2, 6)

    def f(x):
        F = np.fft.fft(x)
        return (w * (F.real**2 + F.imag**2)).sum()

    F = np.fft.fft(x)
    g = np.fft.fft(w * F.conj()).real
    return Scalar(f, x, 2 * g if both else g)


@right
def spectrum_by_fft():
    """np.fft.fft, .real and .imag."""
    return spectral(True)


@wrong
def spectrum_by_fft_halved():
    """The conjugate's half of the gradient is forgotten."""
    return spectral(False)


@right
def wide_layer_of_absolute_values():
    """2000 units |w·x + b|: a kink every thousandth."""
    return wide(1.0)


@wrong(error=0.005)
def wide_layer_of_absolute_values_off_by_two_percent():
    """The same, one entry 2 % off."""
    return wide(1.02)


def wide(factor):
    W, b, x = normal(2000, 4), normal(2000, seed=1), normal(4, seed=2)
    g = W.T @ np.sign(W @ x + b)
    g[1] *= factor
    return Scalar(lambda x: np.abs(W @ x + b).sum(), x, g)
