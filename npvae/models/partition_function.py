"""log Z of a Boltzmann machine, and what it takes to say how good the machine is: log p(x), and how far p is from the data.

These functions are methods of `npvae.models.BoltzmannMachine`. log Z is exact where the smaller layer is small enough to be
enumerated, else an estimate by annealed importance sampling, from below on average; reverse annealing gives one from above
(`npvae.ops.partition`). Lectures (2025), "Kullback-Leibler divergence and RBMs": with f the distribution of the data

    KL(f ‖ p) = ⟨log f⟩_f + ⟨E⟩_f + log Z,

where E is the energy of x, here the free energy F. Shapes: n rows, C chains, V visible units, H hidden units.
"""

import math
from typing import NamedTuple

import numpy as np

from npvae.core import checks
from npvae.models import evaluate
from npvae.models.protocol import Measure
from npvae.ops import partition
from npvae.ops.layers import sigmoid_and_complement, softplus_forward
from npvae.ops.uniforms import generators

MOST_UNITS, QUICK_UNITS = 25, 20  # of the smaller layer: that can be enumerated, and that are without being asked
BURN_IN = 1000  # steps of Gibbs sampling from the data, before reverse annealing
METHODS = ("exact", "annealing", "reverse")


class LogPartition(NamedTuple):
    """log Z in nats."""

    log_z: float
    error: float  # one standard error, 0 where log Z is exact
    low: float  # where the mean weight is 3 standard errors away on either side
    high: float
    method: str  # one of METHODS


def inverse_temperatures(steps=(500, 4000, 10000)):
    """From 0 to 1, so many steps to 0.5, to 0.9 and to 1: Salakhutdinov & Murray 2008, section 4.2."""
    edges = (0.0, 0.5, 0.9, 1.0)
    parts = [np.linspace(edges[i], edges[i + 1], checks.integer("steps", n, 1) + 1)[1:] for i, n in enumerate(steps)]
    return np.concatenate([[0.0], *parts])


BETAS = inverse_temperatures()


def base_bias(model, x):
    """The visible biases (V,) of independent units with the mean of rows x (n, V) and, of binary ones, of half a one and half a
    zero more."""
    total = x.sum(axis=0, dtype=np.float64)
    if model.visible == "gaussian":
        return total / len(x)
    return np.log(total + 0.5) - np.log(len(x) - total + 0.5)


def log_partition(model, x=None, method=None, n_chains=100, rng=None, betas=None):
    """log Z of the machine as a LogPartition.

    x         rows (n, V): annealing starts at independent units of their mean (without rows: at the machine's own biases), and
              reverse annealing at chains that have gone 1000 steps from them (without rows: from `sample`)
    method    "exact": by enumeration of the smaller layer, at most 25 units (of Gaussian machines, of the hidden layer);
              "annealing", "reverse"; None: exact up to 20 units, else annealing
    n_chains  independent runs of the annealing
    rng       a Generator or a seed
    betas     the inverse temperatures, rising from 0 to 1; by default `inverse_temperatures()`

    ValueError for what cannot be.
    """
    n_units = model.n_hidden if model.visible == "gaussian" else min(model.n_features, model.n_hidden)
    method = ("exact" if n_units <= QUICK_UNITS else "annealing") if method is None else method
    checks.choice("method", method, METHODS)
    if method != "exact":
        x = None if x is None else model.check(x)[0]
        n_chains, betas = checks.integer("n_chains", n_chains, 1), BETAS if betas is None else checked_betas(betas)
        return annealed(model, x, method, n_chains, np.random.default_rng(rng), betas)
    if n_units > MOST_UNITS:
        raise ValueError(f"at most {MOST_UNITS} units can be enumerated; the smaller layer has {n_units}")
    log_z = float(model.ops.enumerated_log_partition(*model.machine))
    return LogPartition(log_z, 0.0, log_z, log_z, method)


def checked_betas(betas):
    """betas as an array that rises from 0 to 1, or ValueError."""
    betas = np.asarray(betas, np.float64)
    if betas.ndim != 1 or len(betas) < 2 or (betas[0], betas[-1]) != (0, 1) or not (np.diff(betas) >= 0).all():
        raise ValueError(f"betas must rise from 0 to 1; got shape {betas.shape} from {betas.flat[:1]} to {betas.flat[-1:]}")
    return betas


def annealed(model, x, method, n_chains, rng, betas):
    """log Z by annealing or by reverse annealing: `log_partition`."""
    visible_bias, hidden_bias, W, *logvar = model.machine
    base = np.asarray(visible_bias if x is None else base_bias(model, x), np.float64)
    base_log_z = partition.base_log_partition(base, hidden_bias, *logvar)
    if method == "annealing":
        start = independent(base, n_chains, rng, *logvar)
    else:
        betas = betas[::-1]
        start = model.sample(n_chains, rng) if x is None else model.move(x[rng.integers(len(x), size=n_chains)], BURN_IN, rng)
    states = generators(rng, n_chains)
    log_weights, _ = model.ops.anneal(start.astype(W.dtype), states, betas, base, visible_bias, hidden_bias, W, *logvar)
    ratio = partition.log_ratio(log_weights)
    if method == "annealing":
        return LogPartition(base_log_z + ratio.log_mean, ratio.error, base_log_z + ratio.low, base_log_z + ratio.high, method)
    return LogPartition(base_log_z - ratio.log_mean, ratio.error, base_log_z - ratio.high, base_log_z - ratio.low, method)


def independent(base_bias, n, rng, logvar=None):
    """n draws (n, V) of independent visible units of these biases."""
    if logvar is None:
        return (rng.random((n, len(base_bias))) < sigmoid_and_complement(base_bias)[0]).astype(float)
    return base_bias + np.exp(0.5 * logvar) * rng.standard_normal((n, len(base_bias)))


def log_likelihood(model, x, n_samples=100, rng=None):
    """log p(x) = −F(x) − log Z of each datum: x (n, V) -> (n,) in nats; log Z as `log_partition(x)` finds it by itself, with
    n_samples chains where it anneals."""
    return -model.free_energy(x).astype(np.float64) - log_partition(model, x, None, n_samples, rng).log_z


def log_frequencies(x):
    """⟨log f⟩ of the distribution f that rows x (n, V) of zeros and ones are: Σ n_k/n log(n_k/n) over the different rows."""
    _, counts = np.unique(np.packbits(x.astype(bool), axis=1), axis=0, return_counts=True)
    return float((counts / len(x) * np.log(counts / len(x))).sum())


def pseudo_log_likelihood(model, x):
    """Σ_i log p(x_i|all others) of rows x (n, V) of a binary machine, (n,) in nats: log σ(F(x with x_i flipped) − F(x)), Besag
    1975. It needs no Z."""
    (x,), (visible_bias, hidden_bias, W) = model.check(x), model.machine
    pre = x @ W + hidden_bias  # (n, V) @ (V, H) -> (n, H)
    free, total = softplus_forward(pre)[0].sum(axis=1), np.zeros(len(x))  # (n, H) -> (n,)
    for i in range(model.n_features):
        change = 1 - 2 * x[:, i]  # of x_i
        flipped = softplus_forward(pre + change[:, None] * W[i])[0].sum(axis=1)
        total -= softplus_forward(-(free - flipped - change * visible_bias[i]).astype(np.float64))[0]
    return total


def measure(model, x, n_samples=100, seed=0, progress=False):
    """What `npvae evaluate` tells of a machine, on rows x (n, V), as a list of Measures: log p(x), log Z, KL(f ‖ p)."""
    found = log_partition(model, x, None, n_samples, seed)
    free_energy = model.free_energy(x).astype(np.float64)
    log_p, n = float(-free_energy.mean() - found.log_z), len(x)
    of_rows = float(free_energy.std() / math.sqrt(n))
    how = "exact, by enumeration" if found.method == "exact" else f"± {found.error:.3f}, annealing of {n_samples} chains"
    measures = [
        Measure("log_likelihood", log_p, "nats", f"log p(x) = −F(x) − log Z; ± {of_rows:.3f}, the choice of the rows"),
        Measure("log_likelihood_standard_error", math.hypot(of_rows, found.error if math.isfinite(found.error) else 0.0)),
        Measure("log_partition", found.log_z, "nats", f"log Z, {how}"),
        Measure("log_partition_standard_error", found.error if math.isfinite(found.error) else None),
    ]
    if found.method != "exact":
        reverse = log_partition(model, x, "reverse", n_samples, seed)
        measures.append(Measure("log_partition_reverse", reverse.log_z, "nats", "by reverse annealing: too large on average"))
    measures.append(Measure("free_energy", float(free_energy.mean()), "nats", "⟨F⟩ of the rows"))
    if model.visible == "binary":
        of_f = log_frequencies(model.check(x)[0])
        note = f"KL(f ‖ p) = ⟨log f⟩ + ⟨F⟩ + log Z of the rows' own distribution f; ⟨log f⟩ is {of_f:.3f}"
        measures.append(Measure("kl_of_rows", of_f + float(free_energy.mean()) + found.log_z, "nats", note))
        measures.append(Measure("pseudo_log_likelihood", float(pseudo_log_likelihood(model, x).mean()), "nats",
                                "Σ_i log p(x_i|all others)"))  # fmt: skip
    return measures + evaluate.bits_measures(model, log_p)
