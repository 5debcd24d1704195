"""How good a trained model is: ELBO, importance-weighted log-likelihood, active units, parts of the KL, bits per dimension.

For models with a Gaussian latent variable: they have `encode`, `infer` and `nll` (`npvae.models.latent_variable`). Data x
(B, D) is what the model describes: for the Bernoulli likelihood zeros and ones, so binarise grey images first
(`npvae.model_input`). uint8 data mean what they meant in training (`npvae.core.levels`). Of a conditional model x is a tuple
(x, condition), and p(x) stands for p(x|condition). `rng` is a Generator or a seed. All sums and exponentials are in float64,
whatever the model's dtype.

Shapes: B data, D data dimensions, L latent, S samples per datum.
"""

import math
from threading import Lock
from typing import NamedTuple

import numpy as np

from npvae.core import checks, levels
from npvae.core.numerics import log_sum_exp
from npvae.core.progress import progress_bar
from npvae.core.workers import Workers, workers_for
from npvae.models.protocol import Measure
from npvae.ops.full_posterior import full_posterior_forward, full_sample_forward
from npvae.ops.gaussian_kl import solve_forward
from npvae.ops.latent import reparameterize_forward

ROWS_PER_PASS = 250  # decoder rows at a time: keeps memory flat and the products in cache
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
    batch, rng = _checked(model, x), np.random.default_rng(rng)
    n_samples, n_rows = checks.integer("n_samples", n_samples, 1), len(batch[0])
    nll = np.zeros((n_samples, n_rows))
    kl = np.empty(n_rows)
    for rows in _slices(n_rows, ROWS_PER_PASS):
        part = [array[rows] for array in batch]
        kl[rows] = _kl_of_rows(model, part).sum(axis=1)  # (B, L) -> (B,)
        for s in range(n_samples):
            nll[s, rows] = _log_weights(model, part, rng, 1)[1][0]
    mean_nll, mean_kl = float(nll.mean()), float(kl.mean())
    error = math.sqrt(nll.var(axis=0, ddof=1).sum() / n_samples) / n_rows if n_samples > 1 else math.nan
    return Elbo(-mean_nll - mean_kl, mean_nll, mean_kl, error)


def log_likelihood(model, x, n_samples=100, rng=None, progress=False):
    """Importance-weighted estimate of log p(x) of each datum, (B,) in nats. Burda, Grosse & Salakhutdinov 2016, equation 8:

        log p(x) ≥ E[log 1/S Σ_s w_s],  w_s = p(x, z_s)/q(z_s|x),  z_s ~ q(z|x)

    For S = n_samples = 1 it is the ELBO in expectation, and it grows with S towards log p(x).
    """
    batch, rng = _checked(model, x), np.random.default_rng(rng)
    n_samples, n_rows = checks.integer("n_samples", n_samples, 1), len(batch[0])
    rows_per_pass = max(1, min(n_rows, ROWS_PER_PASS // min(n_samples, 100)))
    samples_per_pass = max(1, ROWS_PER_PASS // rows_per_pass)
    passes = _slices(n_rows, rows_per_pass)
    own_rngs = rng.spawn(len(passes))  # of each pass its own: the result does not depend on who takes which

    def of_rows(number):
        part = [array[passes[number]] for array in batch]
        total = np.full(len(part[0]), -np.inf)  # log Σ_s w_s so far
        for samples in _slices(n_samples, samples_per_pass):
            log_w, _ = _log_weights(model, part, own_rngs[number], samples.stop - samples.start)  # (S, B)
            total = np.logaddexp(total, log_sum_exp(log_w))
        with one_at_a_time:
            bar.update(len(total))
        return total - math.log(n_samples)

    one_at_a_time, n_workers = Lock(), workers_for(model.theta.size * n_rows * n_samples)
    with progress_bar(progress, total=n_rows, desc="log-likelihood") as bar:
        if n_workers == 1:  # no threads to start, which takes longer than a single row
            return np.concatenate([of_rows(number) for number in range(len(passes))])
        with Workers(n_workers) as workers:
            return np.concatenate(workers.deal(of_rows, range(len(passes))))


def _checked(model, x):
    """The batch of a model as its `check` returns it: x an array, or a tuple of arrays."""
    return model.check(*(x if isinstance(x, tuple) else (x,)))


def _log_weights(model, batch, rng, n_samples):
    """log w = log p(x|z) − log q(z|x)/p(z), and nll = −log p(x|z), of S samples of each row: (S, B) each."""
    eps = rng.standard_normal((n_samples, len(batch[0]), model.n_latent))  # (S, B, L)
    z, kl = model.infer(eps, *batch)  # (S, B, L) each
    nll = model.nll(z, *batch)
    return -nll - kl.sum(axis=-1), nll  # (S, B, L) -> (S, B)


def _kl_of_rows(model, batch):
    """KL(q(z|x) ‖ p(z)) in closed form, in the parts of the latent dimensions, (B, L)."""
    no_noise = np.zeros((1, len(batch[0]), model.n_latent))
    return model.infer(no_noise, *batch, objective="elbo")[1]


def posterior(model, x):
    """mu(x) and logvar(x) of all rows, (n, L) each in float64."""
    batch = _checked(model, x)
    encoded = [model.encode(*(array[rows] for array in batch)) for rows in _slices(len(batch[0]), ROWS_PER_PASS)]
    mu, logvar = (np.concatenate(parts).astype(np.float64) for parts in zip(*encoded))
    return mu, logvar


def kl_per_dimension(model, x):
    """Mean over the data of each latent dimension's part of KL(q(z|x) ‖ p(z)), (L,) in nats: near 0 where z_l is not used.

    Of a diagonal posterior it is KL(q(z_l|x) ‖ p(z_l)), of a full one that of z_l given those before it
    (`npvae.ops.full_posterior.full_kl_forward`).
    """
    batch = _checked(model, x)
    slices = _slices(len(batch[0]), ROWS_PER_PASS)
    kl = np.concatenate([_kl_of_rows(model, [array[rows] for array in batch]) for rows in slices])  # (n, L)
    return kl.mean(axis=0)


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
    if isinstance(x, tuple):
        raise ValueError("kl_parts needs one prior for all rows, and that of a conditional model may differ from row to row")
    return _parts(model, x, kl_per_dimension(model, x), np.random.default_rng(rng))


def _parts(model, x, kl, rng):
    """KlParts of the rows x (n, D), whose mean KL of each latent dimension is kl (L,)."""
    if model.posterior == "full":
        log_ratio = _log_q_ratio_full(model, *_checked(model, x), rng)
    else:
        log_ratio = _log_q_ratio(*posterior(model, x), rng)
    information = float(np.mean(log_ratio))
    return KlParts(information, float(kl.sum()) - information)


def _log_q_ratio(mu, logvar, rng):
    """log q(z|x) − log q(z) at one draw z for each datum, (n,), of diagonal posteriors, (n, L) each."""
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
    return log_q_given_own - log_q


def _log_q_ratio_full(model, x, rng):
    """As `_log_q_ratio`, of full posteriors: with y = F⁻¹ (z − mu), log q(z|x) = −½ |y|² − Σ_l log F_ll and a constant."""
    (mu, factor), _ = full_posterior_forward(model.encoder_output(x).astype(np.float64))  # (n, L), (n, L, L)
    n, n_latent = mu.shape
    eps = rng.standard_normal(mu.shape)
    z, _ = full_sample_forward(mu, factor, eps)  # (n, L)
    log_det = np.log(np.diagonal(factor, axis1=1, axis2=2)).sum(axis=1)  # (n,)
    log_q = np.full(n, -np.inf)
    for rows in _slices(n, max(1, PAIRS_PER_PASS // (n * n_latent))):
        identity = np.broadcast_to(np.eye(n_latent), factor[rows].shape)
        inverse, _ = solve_forward(factor[rows], identity)  # (rows, L, L): all z share it
        y = inverse @ z.T - inverse @ mu[rows, :, None]  # (rows, L, L) @ (L, n) -> (rows, L, n)
        log_q = np.logaddexp(log_q, log_sum_exp(-0.5 * (y * y).sum(axis=1) - log_det[rows, None]))
    return -0.5 * (eps * eps).sum(axis=1) - log_det - (log_q - math.log(n))


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

    kind = getattr(model, "data_kind", "real")
    if kind != "real":
        return [Measure("bits_per_dimension", bits(), "bits", "of the grey levels 0 to 255" if kind == "levels" else "")]
    found = [Measure("bits_per_dimension", bits(), "bits", "of a density in the units of x: it may be negative")]
    if levels.kept_by(model) == levels.GREY:
        found.append(Measure("bits_per_grey_level", bits(math.log2(255)), "bits", "per dimension, of the levels 0 to 255"))
    return found


def measures(model, x, n_samples, seed=0, progress=False):
    """What `npvae evaluate` tells of a model with a latent variable, on rows x (n, D), as a list of Measures. Of a conditional
    model x is (x, condition); the parts of its KL are left out, since its prior may differ from row to row."""
    bound = elbo(model, x, seed, ELBO_SAMPLES)
    is_conditional = isinstance(x, tuple)
    kl = kl_per_dimension(model, x)
    parts = [] if is_conditional else _parts_measures(model, x, kl, seed)
    log_p, of_kl = "log p(x)", "= mutual information + aggregate KL"
    if is_conditional:
        log_p, of_kl = "log p(x|condition)", "KL(q(z|x, condition) ‖ p(z|condition))"
    likelihood = float(log_likelihood(model, x, n_samples, seed, progress).mean())
    active = int(active_units(model, x).sum())
    return [
        Measure("elbo", bound.elbo, "nats", f"± {bound.standard_error:.3f}, the noise of {ELBO_SAMPLES} z per datum"),
        Measure("nll", bound.nll, "nats", "−ELBO = nll + kl"),
        Measure("kl", bound.kl, "nats", of_kl),
        *parts,
        Measure("elbo_standard_error", bound.standard_error),
        Measure("elbo_samples", ELBO_SAMPLES),
        Measure("log_likelihood", likelihood, "nats", f"{log_p} is at least this; {n_samples} samples per datum"),
        Measure("log_likelihood_samples", n_samples),
        *bits_measures(model, {"elbo": bound.elbo, "log_likelihood": likelihood}),
        *sigma_measures(model, x),
        Measure("active_units", active, f"of {model.n_latent}", f"Var(mu) over the data above {ACTIVE}"),
        Measure("n_latent", model.n_latent),
        Measure("kl_per_dimension", kl.tolist(), "nats"),
    ]


def _parts_measures(model, x, kl, seed):
    information, aggregate_kl = _parts(model, x, kl, np.random.default_rng(seed))
    most = math.log(len(x))
    return [
        Measure("mutual_information", information, "nats", f"I(x; z): what z tells about x, at most {most:.3f}"),
        Measure("aggregate_kl", aggregate_kl, "nats", "KL(q(z) ‖ p(z)): how far all rows' z together are from the prior"),
    ]


def sigma_measures(model, x):
    """Of a learned standard deviation: how large it is, and how often it lies on its floor, as Measures; [] without one.

    At the floor the likelihood would grow without bound, and the figures above depend on where the floor was put.
    """
    p_x_given_z = model.p_x_given_z
    if not hasattr(p_x_given_z, "logvar"):
        return []
    batch = _checked(model, x)
    sums = []  # of log σ², and how many lie on the floor, each divided by their number
    for rows in _slices(len(batch[0]), ROWS_PER_PASS):
        part = [array[rows] for array in batch]
        mu, _ = model.encode(*part)
        logvar = p_x_given_z.logvar(model.decoder_output(mu, *part[1:]), model.parameters)
        weight = len(mu) / len(batch[0])
        sums.append((weight * logvar.mean(dtype=np.float64), weight * (logvar <= p_x_given_z.min_logvar).mean()))
    mean, share = map(sum, zip(*sums))
    note = f"at mu(x), geometric mean; {share:.1%} lie on the floor min_sigma = {model.min_sigma:.4g}"
    return [Measure("sigma", math.exp(0.5 * mean), "x", note), Measure("sigma_at_floor", float(share))]


def _slices(n, size):
    return [slice(start, min(start + size, n)) for start in range(0, n, size)]
