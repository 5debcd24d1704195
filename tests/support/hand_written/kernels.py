"""Kernels, embeddings of points, and functions that want sorted or triangular input."""

import numpy as np
from scipy.linalg import solve_triangular
from scipy.spatial.distance import cdist

from hand_written import Pair, Scalar, normal, right, wrong

# -------------------------------------------------------------------------------------------------------- kernels


def gaussian_kernel(factor):
    """A matrix of exp(−γ |x − y|²), as a pair in the points and γ."""

    def forward(x, y, gamma):
        diff = x[:, None, :] - y[None, :, :]
        d2 = (diff**2).sum(axis=2)
        return np.exp(-gamma * d2), (diff, d2, gamma)

    def backward(dK, cache):
        diff, d2, gamma = cache
        W = dK * np.exp(-gamma * d2)
        dx = -factor * gamma * (W[:, :, None] * diff).sum(axis=1)
        dy = factor * gamma * (W[:, :, None] * diff).sum(axis=0)
        return dx, dy, -np.asarray((W * d2).sum())

    return Pair(forward, backward, (normal(4, 2), normal(3, 2, seed=1), np.array(0.7)))


@right
def gaussian_kernel_matrix():
    """By broadcasting; γ is an array of no dimension."""
    return gaussian_kernel(2)


@wrong
def gaussian_kernel_matrix_without_its_two():
    """The 2 of the square is forgotten."""
    return gaussian_kernel(1)


@right
def kernel_by_cdist():
    """A Matérn kernel on SciPy's cdist, which takes no complex numbers."""
    x, y, W = normal(4, 2), normal(3, 2, seed=1), normal(4, 3, seed=2)
    d = cdist(x, y)

    def f(x):
        r = np.sqrt(3) * cdist(x, y)
        return (W * (1 + r) * np.exp(-r)).sum()

    slope = -3 * W * np.exp(-np.sqrt(3) * d)  # over d
    return Scalar(f, x, (slope[:, :, None] * (x[:, None] - y[None])).sum(axis=1))


@wrong
def kernel_by_cdist_without_a_length():
    """√3 is forgotten in the exponent."""
    f, x, _, _ = kernel_by_cdist()
    y, W = normal(3, 2, seed=1), normal(4, 3, seed=2)
    slope = -3 * W * np.exp(-cdist(x, y))
    return Scalar(f, x, (slope[:, :, None] * (x[:, None] - y[None])).sum(axis=1))


def neighbours(x):
    """t-SNE's divergence of given affinities from those of a Student kernel."""
    n = 1 / (1 + ((x[:, None] - x[None]) ** 2).sum(axis=2))
    np.fill_diagonal(n, 0)
    q = n / n.sum()
    off = ~np.eye(len(x), dtype=bool)
    return (AFFINITIES[off] * np.log(AFFINITIES[off] / q[off])).sum()


def neighbours_grad(x, four=4.0):
    diff = x[:, None] - x[None]
    n = 1 / (1 + (diff**2).sum(axis=2))
    np.fill_diagonal(n, 0)
    return four * (((AFFINITIES - n / n.sum()) * n)[:, :, None] * diff).sum(axis=1)


AFFINITIES = np.abs(normal(5, 5, seed=9))
AFFINITIES = AFFINITIES + AFFINITIES.T
np.fill_diagonal(AFFINITIES, 0)
AFFINITIES /= AFFINITIES.sum()


@right
def neighbour_embedding():
    """t-SNE's loss in the points, a diagonal filled in place."""
    return Scalar(neighbours, normal(5, 2), neighbours_grad(normal(5, 2)))


@wrong
def neighbour_embedding_counted_once():
    """2 in place of 4: each pair is counted once."""
    return Scalar(neighbours, normal(5, 2), neighbours_grad(normal(5, 2), 2.0))


# ------------------------------------------------------------------------------------ sorted and triangular input


def interpolation(shift):
    """np.interp-like values between knots; the knots' positions must be sorted."""
    queries = np.array([0.3, 1.4, 1.6, 2.9])

    def forward(knots, values):
        if np.any(np.diff(knots) <= 0):
            raise ValueError("knots must be sorted")
        k = np.searchsorted(knots, queries) - 1
        w = (queries - knots[k]) / (knots[k + 1] - knots[k])
        return (1 - w) * values[k] + w * values[k + 1], (knots, values, k, w)

    def backward(dout, cache):
        knots, values, k, w = cache
        slope = (values[k + 1] - values[k]) / (knots[k + 1] - knots[k])
        dknots, dvalues = np.zeros(len(knots)), np.zeros(len(values))
        np.add.at(dvalues, k, dout * (1 - w))
        np.add.at(dvalues, k + shift, dout * w)
        np.add.at(dknots, k, -dout * slope * (1 - w))
        np.add.at(dknots, k + 1, -dout * slope * w)
        return dknots, dvalues

    return Pair(forward, backward, (np.array([0.0, 1.0, 2.2, 3.0]), normal(4)))


@right
def interpolation_between_sorted_knots():
    """Raises an error where the knots are not sorted."""
    return interpolation(1)


@wrong
def interpolation_with_both_weights_on_one_knot():
    """w and 1 − w both go to the left knot."""
    return interpolation(0)


def whitening(sign):
    """L⁻¹ x by solve_triangular, for a lower triangular L alone."""

    def forward(L, x):
        if np.any(np.triu(L, 1) != 0):
            raise ValueError("L must be lower triangular")
        z = solve_triangular(L, x, lower=True)
        return z, (L, z)

    def backward(dz, cache):
        L, _ = cache
        return sign * solve_triangular(L.T, dz, lower=False)

    L = np.tril(0.3 * normal(4, 4)) + 2 * np.eye(4)
    return Pair(forward, backward, (L, normal(4, seed=1)), {"wrt": "x"})


@right
def whitening_by_a_triangular_matrix():
    """Raises an error where the matrix is not triangular; the gradient of x is checked."""
    return whitening(1)


@wrong
def whitening_with_a_sign():
    """The sign of the adjoint solution is wrong."""
    return whitening(-1)


@right
def trimmed_mean():
    """The mean of the inner half of the sorted entries."""
    x = normal(8)
    g = np.zeros(8)
    g[np.argsort(x)[2:6]] = 1 / 4
    return Scalar(lambda x: np.sort(x)[2:6].mean(), x, g)


@wrong
def trimmed_mean_in_the_order_of_the_ranks():
    """argsort is taken for the ranks."""
    x = normal(8)
    ranks = np.argsort(x)
    return Scalar(lambda x: np.sort(x)[2:6].mean(), x, np.where((ranks >= 2) & (ranks < 6), 1 / 4, 0))
