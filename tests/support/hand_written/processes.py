"""Gaussian processes and covariances: cholesky, slogdet, solve, inv."""

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from hand_written import Scalar, normal, right, wrong

# ---------------------------------------------------------------------------------------------- Gaussian processes

POINTS = np.linspace(0, 3, 8)
VALUES = np.sin(2 * POINTS) + 0.1 * normal(8, seed=5)


def covariance(p):
    """Log-amplitude, log-length and log-noise (variances)."""
    d2 = (POINTS[:, None] - POINTS[None, :]) ** 2
    K = np.exp(p[0]) * np.exp(-0.5 * d2 * np.exp(-2 * p[1]))
    return K, d2, K + np.exp(p[2]) * np.eye(len(POINTS))


def marginal_by_cholesky(p):
    _, _, C = covariance(p)
    L = np.linalg.cholesky(C)
    alpha = np.linalg.solve(L.T, np.linalg.solve(L, VALUES))
    return 0.5 * VALUES @ alpha + np.log(np.diag(L)).sum() + 0.5 * len(VALUES) * np.log(2 * np.pi)


def marginal_by_slogdet(p):
    _, _, C = covariance(p)
    return 0.5 * VALUES @ np.linalg.solve(C, VALUES) + 0.5 * np.linalg.slogdet(C)[1]


def marginal_by_scipy(p):
    _, _, C = covariance(p)
    factor = cho_factor(C, lower=True)
    return 0.5 * VALUES @ cho_solve(factor, VALUES) + np.log(np.diag(factor[0])).sum()


def marginal_grad(p, trace=True, two=2.0):
    K, d2, C = covariance(p)
    inverse = np.linalg.inv(C)
    alpha = inverse @ VALUES
    outer = inverse - np.outer(alpha, alpha) if trace else -np.outer(alpha, alpha)
    slopes = [K, K * d2 * np.exp(-2 * p[1]) * two / 2, np.exp(p[2]) * np.eye(len(POINTS))]
    return np.array([0.5 * (outer * dC).sum() for dC in slopes])


KERNEL = np.array([0.2, -0.3, -2.0])


@right
def process_by_cholesky():
    """A Gaussian process's marginal likelihood by np.linalg.cholesky."""
    return Scalar(marginal_by_cholesky, KERNEL, marginal_grad(KERNEL))


@right
def process_by_slogdet():
    """The same by np.linalg.solve and slogdet."""
    return Scalar(marginal_by_slogdet, KERNEL, marginal_grad(KERNEL))


@right
def process_by_scipy():
    """The same by SciPy's cho_factor and cho_solve."""
    return Scalar(marginal_by_scipy, KERNEL, marginal_grad(KERNEL))


@right
def process_with_small_noise():
    """A noise variance of 1e-9: the covariance is nearly singular."""
    p = np.array([0.2, 0.3, np.log(1e-9)])
    return Scalar(marginal_by_cholesky, p, marginal_grad(p))


@wrong
def process_without_the_trace():
    """Only the quadratic form is differentiated, not the determinant."""
    return Scalar(marginal_by_cholesky, KERNEL, marginal_grad(KERNEL, trace=False))


@wrong
def process_with_half_a_length():
    """The 2 of the squared length is forgotten."""
    return Scalar(marginal_by_slogdet, KERNEL, marginal_grad(KERNEL, two=1.0))


@wrong(error=4e-4)
def process_with_small_noise_and_a_sign():
    """A noise variance of 1e-9, its gradient with the wrong sign."""
    p = np.array([0.2, 0.3, np.log(1e-9)])
    return Scalar(marginal_by_cholesky, p, marginal_grad(p) * [1, 1, -1])


def covariance_from_a_factor(symmetric):
    """log det and a quadratic form of L Lᵀ, all of L's entries in use."""
    L, x = np.eye(3) + 0.3 * normal(3, 3), normal(3, seed=1)

    def f(L):
        S = L @ L.T
        return np.linalg.slogdet(S)[1] + x @ np.linalg.inv(S) @ x

    inverse = np.linalg.inv(L @ L.T)
    dS = inverse - np.outer(inverse @ x, inverse @ x)
    return Scalar(f, L, 2 * dS @ L if symmetric else dS @ L)


@right
def covariance_by_its_factor():
    """slogdet and inv of L Lᵀ."""
    return covariance_from_a_factor(True)


@wrong
def covariance_by_its_factor_halved():
    """L stands in L Lᵀ twice, its gradient counts it once."""
    return covariance_from_a_factor(False)
