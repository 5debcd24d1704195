"""How good a trained model is: ELBO, importance-weighted log-likelihood, active units, parts of the KL, bits per dimension.

For models with a Gaussian latent variable: they have `encode`, `decoder_output`, `nll_forward`. Data x (B, D) is what the model
describes: for the Bernoulli likelihood zeros and ones, so binarise grey images first (`npvae.model_input`). uint8 data mean
what they meant in training (`npvae.core.levels`). `rng` is a Generator or a seed. All sums and exponentials are in float64,
whatever the model's dtype.

Shapes: B data, D data dimensions, L latent, S samples per datum.
"""

import math
from typing import NamedTuple

import numpy as np

from npvae.core import checks, levels
from npvae.core.numerics import log_sum_exp
from npvae.core.progress import progress_bar
from npvae.models.protocol import Measure
from npvae.ops.latent import gaussian_kl_forward, reparameterize_forward, sampled_kl_forward

ROWS_PER_PASS = 2000  # decoder rows at a time: keeps memory flat and the products in cache
PAIRS_PER_PASS = 4_000_000  # pairs of data at a time: 32 MB
ACTIVE = 0.01  # variance of mu over the data above which a unit is active, Burda et al. 2016
ELBO_SAMPLES = 10  # draws of z per datum behind the ELBO and its error, in `measures`


class Elbo(NamedTuple):
    """Evidence lower bound in nats, its two parts and its Monte Carlo error: means over the data."""

    elbo: float  # −nll − kl
    nll: float
    kl: float
    standard_error: float  # of elbo, from the noise of z alone (NaN for one sample); the data are taken as given


def elbo(model, x, rng=None, n_samples=1):
    """ELBO = E_q[log p(x|z)] − KL(q(z|x) ‖ p(z)), with S = n_samples draws of z per datum and the KL in closed form.

    The lectures' central equation; Kingma & Welling 2013, equation 3.
    """
    (x,), rng = model.check(x), np.random.default_rng(rng)
    n_samples = checks.integer("n_samples", n_samples, 1)
    nll = np.zeros((n_samples, len(x)))
    kl = np.empty(len(x))
    for rows in _slices(len(x), ROWS_PER_PASS):
        mu, logvar = model.encode(x[rows])
        kl[rows] = gaussian_kl_forward(mu, logvar)[0].sum(axis=1, dtype=np.float64)  # (B, L) -> (B,)
        for s in range(n_samples):
            nll[s, rows] = _log_weights(model, x[rows], mu, logvar, rng, 1)[1][0]
    mean_nll, mean_kl = float(nll.mean()), float(kl.mean())
    error = math.sqrt(nll.var(axis=0, ddof=1).sum() / n_samples) / len(x) if n_samples > 1 else math.nan
    return Elbo(-mean_nll - mean_kl, mean_nll, mean_kl, error)


def log_likelihood(model, x, n_samples=100, rng=None, progress=False):
    """Importance-weighted estimate of log p(x) of each datum, (B,) in nats. Burda, Grosse & Salakhutdinov 2016, equation 8:

        log p(x) ≥ E[log 1/S Σ_s w_s],  w_s = p(x, z_s)/q(z_s|x),  z_s ~ q(z|x)

    For S = n_samples = 1 it is the ELBO in expectation, and it grows with S towards log p(x).
    """
    (x,), rng = model.check(x), np.random.default_rng(rng)
    n_samples = checks.integer("n_samples", n_samples, 1)
    out = np.empty(len(x))
    rows_per_pass = max(1, min(len(x), ROWS_PER_PASS // min(n_samples, 100)))
    samples_per_pass = max(1, ROWS_PER_PASS // rows_per_pass)
    with progress_bar(progress, total=len(x), desc="log-likelihood") as bar:
        for rows in _slices(len(x), rows_per_pass):
            mu, logvar = model.encode(x[rows])
            total = np.full(len(mu), -np.inf)  # log Σ_s w_s so far
            for samples in _slices(n_samples, samples_per_pass):
                log_w, _ = _log_weights(model, x[rows], mu, logvar, rng, samples.stop - samples.start)  # (S, B)
                total = np.logaddexp(total, log_sum_exp(log_w))
            out[rows] = total - math.log(n_samples)
            bar.update(len(mu))
    return out


def _log_weights(model, x, mu, logvar, rng, n_samples):
    """log w = log p(x|z) − log q(z|x)/p(z), and nll = −log p(x|z), of S samples of each row: (S, B) each."""
    mu, logvar = mu.astype(np.float64), logvar.astype(np.float64)  # (B, L)
    eps = rng.standard_normal((n_samples, *mu.shape))  # (S, B, L)
    z, _ = reparameterize_forward(mu, logvar, eps)  # (S, B, L)
    output = model.decoder_output(z.reshape(-1, model.n_latent).astype(model.dtype))  # (S B, L) -> (S B, D)
    nll, _ = model.nll_forward(output.reshape(n_samples, *x.shape), x)  # (S, B, D) -> (S, B)
    kl, _ = sampled_kl_forward(z, logvar, eps)
    return -nll - kl.sum(axis=-1), nll  # (S, B, L) -> (S, B)


def posterior(model, x):
    """mu(x) and logvar(x) of all rows, (n, L) each in float64."""
    (x,) = model.check(x)
    encoded = [model.encode(x[rows]) for rows in _slices(len(x), ROWS_PER_PASS)]
    mu, logvar = (np.concatenate(parts).astype(np.float64) for parts in zip(*encoded))
    return mu, logvar


def kl_per_dimension(model, x):
    """Mean over the data of each latent dimension's KL(q(z_l|x) ‖ p(z_l)), (L,) in nats: near 0 where z_l is not used."""
    return _mean_kl(*posterior(model, x))


def _mean_kl(mu, logvar):
    return gaussian_kl_forward(mu, logvar)[0].mean(axis=0)  # (n, L) -> (L,)


def active_units(model, x, threshold=ACTIVE):
    """Which latent dimensions are in use, (L,) bool: those with Var_x(E_q[z|x]) above the threshold. Burda et al. 2016."""
    return posterior(model, x)[0].var(axis=0) > threshold


class KlParts(NamedTuple):
    """The mean KL(q(z|x) ‖ p(z)) in its two parts, in nats; they add up to it."""

    mutual_information: float  # I(x; z) between a datum of the set and its z: what z tells about which datum it was
    aggregate_kl: float  # KL(q(z) ‖ p(z)) of the aggregate posterior q(z) = 1/n Σ_i q(z|x_i): how far it is from the prior


def kl_parts(model, x, rng=None):
    """E_x KL(q(z|x) ‖ p(z)) = I(x; z) + KL(q(z) ‖ p(z)), q(z) over all n rows of x. Hoffman & Johnson 2016, equation 6.

    I(x; z) = E[log q(z|x) − log q(z)] with one draw z ~ q(z|x) per datum; it is at most log n.
    """
    return _parts(*posterior(model, x), np.random.default_rng(rng))


def _parts(mu, logvar, rng):
    n = len(mu)
    eps = rng.standard_normal(mu.shape)
    z, _ = reparameterize_forward(mu, logvar, eps)  # (n, L)
    log_q_given_own = -0.5 * (eps * eps + logvar).sum(axis=1)  # the constants cancel
    precision = np.exp(-logvar)
    offset = (mu * mu * precision + logvar).sum(axis=1)
    log_q = np.empty(n)
    for rows in _slices(n, max(1, PAIRS_PER_PASS // n)):  # Σ_l (z − mu)²/σ² of every pair, by three products
        distance = (z[rows] ** 2) @ precision.T - 2 * z[rows] @ (mu * precision).T + offset  # (rows, L) @ (L, n)
        log_q[rows] = log_sum_exp(-0.5 * distance.T) - math.log(n)
    information = float(np.mean(log_q_given_own - log_q))
    return KlParts(information, float(_mean_kl(mu, logvar).sum()) - information)


def bits_per_dimension(nats, n_features):
    """A negative log-likelihood (or −ELBO) in nats per datum as bits per data dimension."""
    return nats / (n_features * math.log(2))


def bits_measures(model, log_p):
    """Bits per dimension as Measures; log_p: mean of log p(x) in nats per datum, or a dict of such means.

    Of a density they depend on the unit of x and may be negative. Where x is grey levels / 255, a level is an interval of width
    1/255 and its probability about p(x)/255, which is log2 255 = 7.99 bits more per dimension: comparable to figures for 8-bit
    images as long as the density is smooth on that scale (Theis, van den Oord & Bethge 2016).
    """
    means = log_p if isinstance(log_p, dict) else {"": log_p}

    def bits(more=0.0):
        values = {name: bits_per_dimension(-mean, model.n_features) + more for name, mean in means.items()}
        return values if isinstance(log_p, dict) else values[""]

    if getattr(model, "data_kind", "real") == "binary":
        return [Measure("bits_per_dimension", bits(), "bits")]
    found = [Measure("bits_per_dimension", bits(), "bits", "of a density in the units of x: it may be negative")]
    if levels.kept_by(model) == levels.GREY:
        found.append(Measure("bits_per_grey_level", bits(math.log2(255)), "bits", "per dimension, of the levels 0 to 255"))
    return found


def measures(model, x, n_samples, seed=0, progress=False):
    """What `npvae evaluate` tells of a model with a latent variable, on rows x (n, D), as a list of Measures."""
    bound = elbo(model, x, seed, ELBO_SAMPLES)
    mu, logvar = posterior(model, x)
    information, aggregate_kl = _parts(mu, logvar, np.random.default_rng(seed))
    likelihood = float(log_likelihood(model, x, n_samples, seed, progress).mean())
    active = int((mu.var(axis=0) > ACTIVE).sum())
    return [
        Measure("elbo", bound.elbo, "nats", f"± {bound.standard_error:.3f}, the noise of {ELBO_SAMPLES} z per datum"),
        Measure("nll", bound.nll, "nats", "−ELBO = nll + kl"),
        Measure("kl", bound.kl, "nats", "= mutual information + aggregate KL"),
        Measure("mutual_information", information, "nats", f"I(x; z): what z tells about x, at most {math.log(len(mu)):.3f}"),
        Measure("aggregate_kl", aggregate_kl, "nats", "KL(q(z) ‖ p(z)): how far all rows' z together are from the prior"),
        Measure("elbo_standard_error", bound.standard_error),
        Measure("elbo_samples", ELBO_SAMPLES),
        Measure("log_likelihood", likelihood, "nats", f"log p(x) is at least this; {n_samples} samples per datum"),
        Measure("log_likelihood_samples", n_samples),
        *bits_measures(model, {"elbo": bound.elbo, "log_likelihood": likelihood}),
        Measure("active_units", active, f"of {model.n_latent}", f"Var(mu) over the data above {ACTIVE}"),
        Measure("n_latent", model.n_latent),
        Measure("kl_per_dimension", _mean_kl(mu, logvar).tolist(), "nats"),
    ]


def _slices(n, size):
    return [slice(start, min(start + size, n)) for start in range(0, n, size)]
