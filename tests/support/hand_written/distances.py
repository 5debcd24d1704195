"""Distances between two points, and their gradients."""

import numpy as np

from hand_written import Scalar, normal, right, wrong

A, B = normal(6), normal(6, seed=1)
P, Q = np.abs(A) + 0.1, np.abs(B) + 0.1


def loop_distance(x, y):
    """Euclid by a loop."""
    total = 0.0
    for i in range(x.shape[0]):
        total += (x[i] - y[i]) ** 2
    return np.sqrt(total)


@right
def euclid_with_a_guard():
    """(x − y) / (1e-6 + d), judged with threshold=1e-5: the guard is meant."""
    d = loop_distance(A, B)
    return Scalar(lambda x: loop_distance(x, B), A, (A - B) / (1e-6 + d), {"threshold": 1e-5})


@wrong
def euclid_with_a_guard_and_a_square():
    """(x − y) / d², with threshold=1e-5."""
    d = loop_distance(A, B)
    return Scalar(lambda x: loop_distance(x, B), A, (A - B) / (1e-6 + d**2), {"threshold": 1e-5})


@right
def euclid():
    """np.sqrt of a sum of squares."""
    return Scalar(lambda x: np.sqrt(np.sum((x - B) ** 2)), A, (A - B) / loop_distance(A, B))


@right
def manhattan():
    """Σ|x − y|."""
    return Scalar(lambda x: np.sum(np.abs(x - B)), A, np.sign(A - B))


@wrong
def manhattan_without_signs():
    """The gradient of Σ|x − y| is the distance itself."""
    return Scalar(lambda x: np.sum(np.abs(x - B)), A, np.abs(A - B))


@right
def chebyshev():
    """max|x − y|, an argmax in the gradient."""
    g = np.zeros(6)
    k = np.argmax(np.abs(A - B))
    g[k] = np.sign(A[k] - B[k])
    return Scalar(lambda x: np.max(np.abs(x - B)), A, g)


@right
def minkowski():
    """(Σ|x − y|³)^(1/3)."""
    d = np.sum(np.abs(A - B) ** 3) ** (1 / 3)
    return Scalar(lambda x: np.sum(np.abs(x - B) ** 3) ** (1 / 3), A, np.abs(A - B) ** 2 * np.sign(A - B) / d**2)


@wrong
def minkowski_with_the_wrong_power():
    """d^p in place of d^(p − 1)."""
    d = np.sum(np.abs(A - B) ** 3) ** (1 / 3)
    return Scalar(lambda x: np.sum(np.abs(x - B) ** 3) ** (1 / 3), A, np.abs(A - B) ** 2 * np.sign(A - B) / d**3)


@right
def canberra():
    """Σ|x − y| / (|x| + |y|)."""
    top, bottom = np.abs(A - B), np.abs(A) + np.abs(B)
    grad = np.sign(A - B) / bottom - top * np.sign(A) / bottom**2
    return Scalar(lambda x: np.sum(np.abs(x - B) / (np.abs(x) + np.abs(B))), A, grad)


@right
def bray_curtis():
    """Σ|x − y| / Σ|x + y|, by a loop."""

    def f(x):
        top = bottom = 0.0
        for i in range(len(x)):
            top += np.abs(x[i] - B[i])
            bottom += np.abs(x[i] + B[i])
        return top / bottom

    bottom = np.abs(A + B).sum()
    return Scalar(f, A, (np.sign(A - B) - f(A) * np.sign(A + B)) / bottom)


@wrong
def bray_curtis_without_the_sign_of_the_sum():
    """The sign of x + y is forgotten."""
    f = bray_curtis().f
    return Scalar(f, A, (np.sign(A - B) - f(A)) / np.abs(A + B).sum())


def cosine(x):
    return 1 - x @ B / np.sqrt((x @ x) * (B @ B))


@right
def cosine_distance():
    """1 − x·y / |x||y|."""
    n = np.sqrt((A @ A) * (B @ B))
    return Scalar(cosine, A, A * (A @ B) / (A @ A) / n - B / n)


@wrong
def cosine_distance_without_the_norm():
    """The norm of x is taken for a constant."""
    return Scalar(cosine, A, -B / np.sqrt((A @ A) * (B @ B)))


def correlation(x):
    u, v = x - np.mean(x), B - np.mean(B)
    return 1 - u @ v / (np.linalg.norm(u) * np.linalg.norm(v))


@right
def correlation_distance():
    """np.mean and np.linalg.norm."""
    u, v = A - A.mean(), B - B.mean()
    n = np.linalg.norm(u) * np.linalg.norm(v)
    return Scalar(correlation, A, u * (u @ v) / (u @ u) / n - v / n)


@wrong
def correlation_distance_not_centred():
    """The gradient uses x and y where x − mean and y − mean are meant."""
    u, v = A - A.mean(), B - B.mean()
    n = np.linalg.norm(u) * np.linalg.norm(v)
    return Scalar(correlation, A, A * (u @ v) / (u @ u) / n - B / n)


def hellinger(x):
    return np.sqrt(1 - np.sum(np.sqrt(x * Q)) / np.sqrt(x.sum() * Q.sum()))


@right
def hellinger_distance():
    """Of two histograms that are normalised inside."""
    s, root = np.sum(np.sqrt(P * Q)), np.sqrt(P.sum() * Q.sum())
    return Scalar(hellinger, P, (s / (2 * P.sum() * root) - 0.5 * np.sqrt(Q / P) / root) / (2 * hellinger(P)))


@wrong
def hellinger_distance_without_normalisation():
    """The histogram's sum is taken for a constant."""
    root = np.sqrt(P.sum() * Q.sum())
    return Scalar(hellinger, P, -0.5 * np.sqrt(Q / P) / root / (2 * hellinger(P)))


def haversine(x):
    """Radians: latitude, longitude."""
    y = np.array([0.7, -0.4])
    a = np.sin((x[0] - y[0]) / 2) ** 2 + np.cos(x[0]) * np.cos(y[0]) * np.sin((x[1] - y[1]) / 2) ** 2
    return 2 * np.arcsin(np.sqrt(a))


def haversine_grad(x, second=1.0):
    y = np.array([0.7, -0.4])
    s = np.sin((x[1] - y[1]) / 2)
    a = np.sin((x[0] - y[0]) / 2) ** 2 + np.cos(x[0]) * np.cos(y[0]) * s**2
    da = np.array([0.5 * np.sin(x[0] - y[0]) - second * np.sin(x[0]) * np.cos(y[0]) * s**2,
                   0.5 * np.cos(x[0]) * np.cos(y[0]) * np.sin(x[1] - y[1])])  # fmt: skip
    return da / np.sqrt(a * (1 - a))


@right
def great_circle():
    """The haversine formula."""
    x = np.array([0.2, 0.9])
    return Scalar(haversine, x, haversine_grad(x))


@wrong
def great_circle_without_the_cosine():
    """The cosine of the latitude is not differentiated."""
    x = np.array([0.2, 0.9])
    return Scalar(haversine, x, haversine_grad(x, second=0))
