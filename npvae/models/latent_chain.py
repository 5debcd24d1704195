"""What a model with a chain of latents (`npvae.models.hierarchical`) says of data and of itself: the latents of data, draws
down the chain, the ELBO, and which of the latents it uses.

The importance-weighted log-likelihood is `npvae.evaluate.log_likelihood`. The rest differs from a model with one latent: the KL
has no closed form and is estimated with the samples behind nll, and what x says of an upper latent is a mean over those below.

Shapes: n data, B rows, D data dimensions, S samples per datum, T latents of L_t dimensions, L = Σ_t L_t.
"""

import math
from typing import NamedTuple

import numpy as np

from npvae.core import checks
from npvae.models import evaluate
from npvae.models.protocol import Measure
from npvae.ops.chains import ascend, descend, noise_of_each
from npvae.ops.gaussian_likelihoods import gaussian_sample
from npvae.ops.latent import posterior_forward

ROWS_PER_PASS = 1000  # rows with all their samples at a time


def encode(model, x, t=1):
    """Parameters of q(z_t|z_t-1) where the latents below are at their means: x (B, D) -> mu, logvar (B, L_t), the latter
    clipped. For t = 1 that is q(z_1|x)."""
    (mu,) = model.check(x)
    for layers in model.encoders[: checks.integer("t", t, 1, len(model.latent))]:
        (mu, logvar), _ = posterior_forward(model.ops.mlp_forward(mu, layers)[0])  # (B, L_t-1) -> (B, L_t), (B, L_t)
        mu = np.ascontiguousarray(mu)
    return mu, logvar


def z_1_of(model, z, t, rng=None):
    """z_1 of z_t: z (B, L_t) -> (B, L_1), by the means of p(z_t-1|z_t) or, with a Generator, by draws of it."""
    width = model.latent[checks.integer("t", t, 1, len(model.latent)) - 1]
    z = checks.converted("z", checks.real_array("z", z, n_columns=width), model.dtype)
    for layers in model.priors[: t - 1][::-1]:
        (mu, logvar), _ = posterior_forward(model.ops.mlp_forward(z, layers)[0])  # (B, L_t) -> (B, L_t-1), (B, L_t-1)
        z = mu.copy() if rng is None else gaussian_sample(mu, logvar, rng.standard_normal(mu.shape, mu.dtype))
    return z


def infer(model, eps, x, objective="iwae"):
    """z ~ q(z|x) of all latents from the noise eps (S, B, L), and log q(z|x)/p(z) in parts, (S, B, L) each in float64, x (B, D)
    unchecked. ValueError for the objective "elbo": there is no closed form of the KL."""
    if objective != "iwae":
        raise ValueError("the KL of a chain of latents has no closed form: npvae.models.latent_chain samples it")
    noise = noise_of_each(eps.astype(model.theta.real.dtype), model.latent)
    (z, of_q, _), _ = ascend(model.ops, x, model.encoders, noise, model.ops.latent_sampled_forward)
    (kls, _), _ = descend(model.ops, z, of_q, noise, model.priors)
    n_samples, n_rows = eps.shape[:2]
    return tuple(np.concatenate([part.reshape(n_samples, n_rows, -1) for part in parts], axis=2).astype(np.float64)
                 for parts in (z, kls))  # fmt: skip


class Draws(NamedTuple):
    """What S draws of all latents for each of n rows say, in float64."""

    nll: np.ndarray  # (S, n), −log p(x|z_1) in nats
    kl: np.ndarray  # (S, n), log q(z|x)/p(z)
    kl_per_dimension: np.ndarray  # (L,), means over draws and rows; of lower latents they may be negative
    means: np.ndarray  # (2, n, L), E[z_t|x] of each latent, by the first and by the second half of the draws


def draws(model, x, n_samples=evaluate.ELBO_SAMPLES, rng=None):
    """Draws of z ~ q(z|x) for rows x (n, D), n_samples (at least 2) of each; rng is a Generator or a seed."""
    (x,), rng = model.check(x), np.random.default_rng(rng)
    n_samples, n = checks.integer("n_samples", n_samples, 2), len(x)
    nll, kl_of_rows, means = np.empty((n_samples, n)), np.empty((n_samples, n)), np.empty((2, n, model.n_latent))
    kl_per_dimension = np.zeros(model.n_latent)
    size = max(1, ROWS_PER_PASS // n_samples)
    for rows in (slice(start, min(start + size, n)) for start in range(0, n, size)):
        part = x[rows]
        z, kl = model.infer(rng.standard_normal((n_samples, len(part), model.n_latent)), part)  # (S, B, L) each
        nll[:, rows], kl_of_rows[:, rows] = model.nll(z, part), kl.sum(axis=2)
        kl_per_dimension += kl.mean(axis=0).sum(axis=0) / n
        mu = posterior_means(model, z, part)  # (S, B, L)
        means[0, rows], means[1, rows] = mu[: n_samples // 2].mean(axis=0), mu[n_samples // 2 :].mean(axis=0)
    return Draws(nll, kl_of_rows, kl_per_dimension, means)


def posterior_means(model, z, x):
    """E[z_t|z_t-1] of every latent, those below as in z (S, B, L), and E[z_1|x] for x (B, D): (S, B, L)."""
    n_samples, n_rows = z.shape[:2]
    below = [x, *np.split(z, np.cumsum(model.latent)[:-1], axis=2)]  # T arrays of which each is below a latent, and z_T
    means = []
    for layers, state in zip(model.encoders, below):
        rows = np.ascontiguousarray(state.reshape(-1, state.shape[-1]), model.dtype)  # -> (B, D) or (S B, L_t-1)
        (mu, _), _ = posterior_forward(model.ops.mlp_forward(rows, layers)[0])  # -> (., L_t)
        means.append(np.broadcast_to(mu.reshape(-1, n_rows, mu.shape[1]), (n_samples, n_rows, mu.shape[1])))
    return np.concatenate(means, axis=2)


def active_units(means, threshold=evaluate.ACTIVE):
    """Which dimensions are in use, (L,) bool: those with Var_x(E[z_t|x]) above the threshold, Burda et al. 2016, from the two
    estimates means (2, n, L) of E[z_t|x]: their covariance has no share of the noise, which a variance of either would have."""
    first, second = means - means.mean(axis=1, keepdims=True)
    return (first * second).mean(axis=0) > threshold


def of_each(model, values):
    """Values (L,) of all dimensions as a dict: latent_1, ..., latent_T -> an array (L_t,)."""
    return {f"latent_{t}": part for t, part in enumerate(np.split(values, np.cumsum(model.latent)[:-1]), 1)}


def measures(model, x, n_samples, seed=0, progress=False):
    """What `npvae evaluate` tells of the model, on rows x (n, D), as a list of Measures."""
    found = draws(model, x, rng=seed)
    samples, n = found.nll.shape
    elbo = -found.nll - found.kl  # (S, n)
    error = math.sqrt(elbo.var(axis=0, ddof=1).sum() / samples) / n
    log_p = float(evaluate.log_likelihood(model, x, n_samples, seed, progress).mean())
    mean_elbo, mean_nll, mean_kl = (float(values.mean()) for values in (elbo, found.nll, found.kl))
    kl, active = of_each(model, found.kl_per_dimension), of_each(model, active_units(found.means))
    return [
        Measure("elbo", mean_elbo, "nats", f"± {error:.3f}, the noise of {samples} z per datum"),
        Measure("nll", mean_nll, "nats", "−ELBO = nll + kl"),
        Measure("kl", mean_kl, "nats", "the mean of log q(z|x)/p(z), = that of all latents"),
        Measure("kl_of_each", {name: float(part.sum()) for name, part in kl.items()}, "nats",
                "z_t against what z_t+1 predicts, and the last against N(0, I)"),
        Measure("elbo_standard_error", error),
        Measure("elbo_samples", samples),
        Measure("log_likelihood", log_p, "nats", f"log p(x) is at least this; {n_samples} samples per datum"),
        Measure("log_likelihood_samples", n_samples),
        *evaluate.bits_measures(model, {"elbo": mean_elbo, "log_likelihood": log_p}),
        *evaluate.sigma_measures(model, x),
        Measure("active_units", {name: int(part.sum()) for name, part in active.items()}, "units",
                f"of {', '.join(map(str, model.latent))}: Var(E[z_t|x]) over the data above {evaluate.ACTIVE}"),
        Measure("n_latent", dict(zip(active, model.latent))),
        Measure("kl_per_dimension", {name: part.tolist() for name, part in kl.items()}, "nats"),
    ]  # fmt: skip
