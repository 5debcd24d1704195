"""Probabilistic PCA, the VAE that can be solved with pencil and paper: p(x|z) = N(x; z W + mean, σ² I), p(z) = N(0, I).

A VAE without hidden layers and with the Gaussian likelihood is this model (Lucas et al. 2019): its ELBO reaches log p(x) at the
maximum of the likelihood, so that training can be held against the closed form. Tipping & Bishop 1999.

Shapes: n data, D data dimensions, L latent.
"""

from typing import NamedTuple

import numpy as np

from npvae.core import checks


class PPCA(NamedTuple):
    """A probabilistic PCA model."""

    W: np.ndarray  # (L, D), a row for each latent dimension, as likelihood.W of a VAE
    mean: np.ndarray  # (D,)
    sigma: float  # standard deviation of the noise

    @property
    def covariance(self):
        """Of x: Wᵀ W + σ² I, (D, D)."""
        return self.W.T @ self.W + self.sigma**2 * np.eye(len(self.mean))


def principal_components(x, n_components):
    """Principal component analysis of x (n, D): the mean (D,), the n_components orthonormal axes of largest variance (L, D),
    and the variances along all axes (D,), descending. Those left out add up to the mean squared error of the projection.
    Pearson 1901."""
    x = np.asarray(checks.real_array("x", x), np.float64)
    checks.integer("n_components", n_components, 1, x.shape[1])
    mean = x.mean(axis=0)
    eigenvalues, vectors = np.linalg.eigh(np.cov(x.T, bias=True).reshape(2 * (x.shape[1],)))  # ascending
    eigenvalues, vectors = np.maximum(eigenvalues[::-1], 0), vectors[:, ::-1]
    return mean, vectors[:, :n_components].T, eigenvalues


def maximum_likelihood(x, n_latent, sigma=None):
    """The PPCA of maximum likelihood for x (n, D), with sigma estimated too unless it is given.

    With the eigenvalues λ_1 ≥ λ_2 ≥ ... and eigenvectors U of the data's covariance (Tipping & Bishop 1999, equations 7 and 8):
    σ² is the mean of the D − L eigenvalues left out, and W = (Λ_L − σ² I)^½ U_Lᵀ, up to a rotation of z. Dimensions whose
    eigenvalue is below a given σ² stay unused. ValueError for n_latent beyond D − 1.
    """
    n_features = checks.real_array("x", x).shape[1]
    checks.integer("n_latent", n_latent, 1, n_features - 1)
    mean, axes, eigenvalues = principal_components(x, n_latent)
    variance = eigenvalues[n_latent:].mean() if sigma is None else checks.number("sigma", sigma, 0, exclusive=True) ** 2
    scales = np.sqrt(np.maximum(eigenvalues[:n_latent] - variance, 0))  # (L,)
    return PPCA(scales[:, None] * axes, mean, float(np.sqrt(variance)))


def of_model(model):
    """The PPCA that a VAE without hidden layers in its decoder and with the Gaussian likelihood is; ValueError for others."""
    if model.decoder_hidden or model.likelihood != "gaussian":
        raise ValueError(f"only a linear decoder with the gaussian likelihood is probabilistic PCA; got {model}")
    W, b = (model.parameters[f"likelihood.{name}"].astype(np.float64) for name in "Wb")
    return PPCA(W, b, model.sigma)


def log_likelihood(ppca, x):
    """log p(x) = log N(x; mean, Wᵀ W + σ² I) of each datum, exactly: x (n, D) -> (n,) in nats."""
    residual = np.asarray(x, np.float64) - ppca.mean  # (n, D)
    root = np.linalg.cholesky(ppca.covariance)
    whitened = np.linalg.solve(root, residual.T)  # (D, n)
    log_determinant = 2 * np.log(np.diag(root)).sum()
    return -0.5 * ((whitened**2).sum(axis=0) + log_determinant + len(root) * np.log(2 * np.pi))


def subspace_angle(a, b):
    """The largest angle in degrees between the subspaces that the rows of a and b (L, D) span. Björck & Golub 1973."""
    from scipy.linalg import subspace_angles

    return float(np.degrees(subspace_angles(np.transpose(a), np.transpose(b)).max()))
