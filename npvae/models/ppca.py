"""Probabilistic PCA, the VAE that can be solved with pencil and paper: p(x|z) = N(x; z W + mean, σ² I), p(z) = N(0, I).

A VAE without hidden layers and with the Gaussian likelihood is this model (Lucas et al. 2019): its ELBO reaches log p(x) at the
maximum of the likelihood, so that training can be held against the closed form. Tipping & Bishop 1999.

Shapes: n data, D data dimensions, L latent.
"""

from typing import NamedTuple

import numpy as np

from npvae.core import checks, levels


class PPCA(NamedTuple):
    """A probabilistic PCA model."""

    W: np.ndarray  # (L, D), a row for each latent dimension, as likelihood.W of a VAE
    mean: np.ndarray  # (D,)
    sigma: float  # standard deviation of the noise
    uint8_scale: float | None = None  # how the uint8 data that it was fitted to were read (`npvae.core.levels`)

    @property
    def covariance(self):
        """Of x: Wᵀ W + σ² I, (D, D)."""
        return self.W.T @ self.W + self.sigma**2 * np.eye(len(self.mean))


def principal_components(x, n_components):
    """Principal component analysis of x (n, D): the mean (D,), the n_components orthonormal axes of largest variance (L, D),
    and the variances along all axes (D,), descending. Those left out add up to the mean squared error of the projection.
    Pearson 1901."""
    x, _ = as_values(x, decides=True)
    checks.integer("n_components", n_components, 1, x.shape[1])
    mean = x.mean(axis=0)
    with np.errstate(over="ignore", invalid="ignore"):  # of data beyond 1e154
        covariance = np.cov(x.T, bias=True).reshape(2 * (x.shape[1],))
    checks.finite("the covariance of x", covariance)
    eigenvalues, vectors = np.linalg.eigh(covariance)  # ascending
    eigenvalues, vectors = np.maximum(eigenvalues[::-1], 0), vectors[:, ::-1]
    return mean, vectors[:, :n_components].T, eigenvalues


def as_values(x, kept=None, decides=False, n_columns=None):
    """x (n, D) in float64, and how it was read if it is uint8 (`npvae.core.levels`), else None; ValueError for bad x."""
    x = checks.real_array("x", x, n_columns=n_columns)
    scale = levels.scale_of(x, "x", kept, decides)
    return scale * checks.converted("x", x, np.float64), scale if x.dtype == np.uint8 else None


def maximum_likelihood(x, n_latent, sigma=None):
    """The PPCA of maximum likelihood for x (n, D), with sigma estimated too unless it is given.

    With the eigenvalues λ_1 ≥ λ_2 ≥ ... and eigenvectors U of the data's covariance (Tipping & Bishop 1999, equations 7 and 8):
    σ² is the mean of the D − L eigenvalues left out, and W = (Λ_L − σ² I)^½ U_Lᵀ, up to a rotation of z. Dimensions whose
    eigenvalue is below a given σ² stay unused. ValueError for n_latent beyond D − 1, and where σ has no estimate: the
    likelihood has no maximum where the data lie within n_latent dimensions (constant columns; no more than n_latent + 1 rows).
    """
    x, uint8_scale = as_values(x, decides=True)
    checks.integer("n_latent", n_latent, 1, x.shape[1] - 1)
    mean, axes, eigenvalues = principal_components(x, n_latent)
    variance = eigenvalues[n_latent:].mean() if sigma is None else checks.number("sigma", sigma, 0, exclusive=True) ** 2
    if sigma is None and variance <= len(eigenvalues) * np.finfo(np.float64).eps * eigenvalues[0]:  # 0 but for rounding
        raise ValueError(f"sigma cannot be estimated: x varies in no more than {n_latent} dimensions; give sigma, or a smaller "
                         "n_latent")  # fmt: skip
    scales = np.sqrt(np.maximum(eigenvalues[:n_latent] - variance, 0))  # (L,)
    return PPCA(scales[:, None] * axes, mean, float(np.sqrt(variance)), uint8_scale)


def of_model(model):
    """The PPCA that a VAE without hidden layers in its decoder and with the Gaussian likelihood is; ValueError for others."""
    if model.decoder_hidden or model.likelihood != "gaussian":
        raise ValueError(f"only a linear decoder with the gaussian likelihood is probabilistic PCA; got {model}")
    W, b = (model.parameters[f"likelihood.{name}"].astype(np.float64) for name in "Wb")
    return PPCA(W, b, model.sigma, levels.kept_by(model))


def log_likelihood(ppca, x):
    """log p(x) = log N(x; mean, Wᵀ W + σ² I) of each datum, exactly: x (n, D) -> (n,) in nats. ValueError for σ = 0, where the
    covariance is singular and there is no density.

    Along the K = min(L, D) axes that W spans, the variance is that of W plus σ²; beside them it is σ².
    """
    residual = as_values(x, ppca.uint8_scale, n_columns=len(ppca.mean))[0] - ppca.mean  # (n, D)
    checks.finite("W", ppca.W)
    variance = checks.number("sigma^2", ppca.sigma**2, 0, exclusive=True)
    _, scales, axes = np.linalg.svd(ppca.W, full_matrices=False)  # (K,), (K, D)
    along = residual @ axes.T  # (n, K)
    beside = residual - along @ axes  # (n, D)
    variances = scales**2 + variance  # (K,)
    D, K = residual.shape[1], len(scales)
    distance = (along**2 / variances).sum(axis=1)  # (n,)
    if K < D:  # else what is beside them is rounding
        distance += (beside**2).sum(axis=1) / variance
    log_determinant = np.log(variances).sum() + (D - K) * np.log(variance)
    return -0.5 * (distance + log_determinant + D * np.log(2 * np.pi))


def subspace_angle(a, b):
    """The largest angle in degrees between the subspaces that the rows of a and b (L, D) span. Björck & Golub 1973."""
    from scipy.linalg import subspace_angles

    return float(np.degrees(subspace_angles(np.transpose(a), np.transpose(b)).max()))
