"""Linear systems, eigenvalues, spectra, and compiled code."""

import numba
import numpy as np

from hand_written import Pair, Scalar, normal, right, wrong

# ------------------------------------------------------------------------------------------------- linear algebra


def solve_pair(condition, sign=1):
    """x = A⁻¹ b for a matrix of a given condition."""
    U, _ = np.linalg.qr(normal(4, 4))
    V, _ = np.linalg.qr(normal(4, 4, seed=1))
    matrix = U @ np.diag(np.geomspace(1, 1 / condition, 4)) @ V

    def forward(A, b):
        x = np.linalg.solve(A, b)
        return x, (A, x)

    def backward(dx, cache):
        A, x = cache
        db = np.linalg.solve(A.T, dx)
        return -sign * np.outer(db, x), db

    return Pair(forward, backward, (matrix, normal(4, seed=2)))


@right
def solve_well_conditioned():
    """np.linalg.solve, condition 10."""
    return solve_pair(10)


@right
def solve_with_condition_1e6():
    """np.linalg.solve, condition 1e6: the gradients' own rounding is above 1e-12."""
    return solve_pair(1e6)


@wrong
def solve_with_condition_1e6_and_a_sign():
    """The minus sign of the inverse's derivative is forgotten."""
    return solve_pair(1e6, sign=-1)


def symmetric(seed=4):
    S = normal(4, 4, seed=seed)
    return S + S.T


def lowest_level(S):
    return np.linalg.eigvalsh(0.5 * (S + S.T))[0]


@right
def lowest_eigenvalue():
    """eigvalsh, and v vᵀ."""
    v = np.linalg.eigh(symmetric())[1][:, 0]
    return Scalar(lowest_level, symmetric(), np.outer(v, v))


@wrong
def lowest_eigenvalue_by_rows():
    """The first row of the eigenvectors' matrix is taken for the first eigenvector."""
    v = np.linalg.eigh(symmetric())[1][0]
    return Scalar(lowest_level, symmetric(), np.outer(v, v))


@right
def power_spectrum():
    """np.fft.rfft and weights for each frequency."""
    return spectrum(halve=False)


@wrong
def power_spectrum_counted_once():
    """irfft counts inner frequencies twice, the sum over |rfft|² once: the weights are not halved."""
    return spectrum(halve=True)


def spectrum(halve):
    x, w = normal(8), np.linspace(1, 2, 5)
    half = np.array([1, 0.5, 0.5, 0.5, 1])

    def f(x):
        return (w * np.abs(np.fft.rfft(x)) ** 2).sum()

    g = 2 * len(x) * np.fft.irfft(w * (1 if halve else half) * np.fft.rfft(x), len(x))
    return Scalar(f, x, g)


# -------------------------------------------------------------------------------------------------- compiled code


@numba.njit
def compiled_potential(x):
    total = 0.0
    for i in range(x.shape[0]):
        total += x[i] ** 4 / 4 - x[i] ** 2 / 2
        if i > 0:
            total += 0.3 * x[i] * x[i - 1]
    return total


@numba.njit
def compiled_gradient(x):
    g = np.zeros_like(x)
    for i in range(x.shape[0]):
        g[i] += x[i] ** 3 - x[i]
        if i > 0:
            g[i] += 0.3 * x[i - 1]
            g[i - 1] += 0.3 * x[i]
    return g


@numba.njit("float64(float64[:])")
def declared_potential(x):
    return np.sum(np.cosh(x)) - np.sum(x)


@right
def compiled_loop():
    """A function compiled by Numba."""
    return Scalar(compiled_potential, normal(5), compiled_gradient(normal(5)))


@right
def compiled_for_float64_alone():
    """A function compiled by Numba with a declared signature: it refuses complex numbers."""
    return Scalar(declared_potential, normal(5), np.sinh(normal(5)) - 1)


@wrong
def compiled_for_float64_with_a_sign():
    """The same with the derivative of cosh as −sinh."""
    return Scalar(declared_potential, normal(5), -np.sinh(normal(5)) - 1)


@wrong
def compiled_loop_without_the_left_neighbour():
    """Only one side of each bond."""
    x = normal(5)
    g = x**3 - x
    g[1:] += 0.3 * x[:-1]
    return Scalar(compiled_potential, x, g)
