"""What a VAE minimises: the ELBO, the importance-weighted bound, the ELBO with free bits, as its settings say.

The settings of a step are objective ("elbo" or "iwae"), beta, n_samples, free_bits_per_dimension and free_bits_total.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np

from npvae.core import checks, options
from npvae.core.options import Option
from npvae.ops import bounds
from npvae.ops.bounds import OBJECTIVES

OPTIONS = (
    Option("objective", "elbo", "elbo, or iwae: the importance-weighted bound of --train-samples samples",
           options.one_of(*OBJECTIVES), use="training", metavar="O", choices=OBJECTIVES),
    Option("train_samples", 1, "samples of z per datum and step", options.integer(1), "n_samples", "training", "S"),
    Option("beta", 1.0, "weight of the KL in the loss nll + beta kl; 1 is the ELBO", options.not_negative,
           use="training", metavar="B", annealed=True),
    Option("free_bits_per_dimension", 0.0, "nats of KL that cost nothing, for each latent dimension",
           options.not_negative, use="training", metavar="NATS"),
    Option("free_bits_total", 0.0, "nats of KL that cost nothing, for all latent dimensions together",
           options.not_negative, use="training", metavar="NATS"),
)  # fmt: skip


class Objective(NamedTuple):
    """The ops that an objective goes through: from the posterior to z and kl, and from nll and kl to the loss."""

    latent_forward: Callable
    latent_backward: Callable
    bound_forward: Callable
    bound_backward: Callable


def latent_ops(ops, objective, posterior="diagonal"):
    """The pair from the encoder's output and the noise to z and kl: "iwae" has the kl of each sample, "elbo" that in closed
    form. posterior: "diagonal", "full", or "prior": a diagonal one against a learned prior, whose output the pair takes too."""
    kind = {"diagonal": "latent", "full": "full_latent", "prior": "prior_latent"}[posterior]
    kind += "_sampled" if objective == "iwae" else ""
    return getattr(ops, f"{kind}_forward"), getattr(ops, f"{kind}_backward")


def objective_ops(ops, objective, free_bits_per_dimension=0.0, free_bits_total=0.0, posterior="diagonal"):
    """The Objective of this name, from a table of ops; posterior as in `latent_ops`."""
    latent = latent_ops(ops, objective, posterior)
    if objective == "iwae":
        return Objective(*latent, bounds.iwae_forward, bounds.iwae_backward)
    if couples_rows(free_bits_per_dimension, free_bits_total):
        free = {"per_dimension": free_bits_per_dimension, "total": free_bits_total}
        return Objective(*latent, partial(bounds.free_bits_elbo_forward, **free), bounds.free_bits_elbo_backward)
    return Objective(*latent, bounds.elbo_forward, bounds.elbo_backward)


def check_settings(objective="elbo", beta=1.0, n_samples=1, free_bits_per_dimension=0.0, free_bits_total=0.0):
    """ValueError for settings that cannot be."""
    checks.choice("objective", objective, OBJECTIVES)
    checks.number("beta", beta, 0)
    checks.integer("n_samples", n_samples, 1)
    per_dimension = checks.number("free_bits_per_dimension", free_bits_per_dimension, 0)
    total = checks.number("free_bits_total", free_bits_total, 0)
    if per_dimension and total:
        raise ValueError("free_bits_per_dimension and free_bits_total are two different remedies: give one of them")
    if (per_dimension or total) and objective == "iwae":
        raise ValueError("free bits need the objective elbo: the importance-weighted bound has no KL term to relax")


def validation_settings(objective="elbo", beta=1.0, n_samples=1, **_):
    """Validation rows are measured without free bits, the ELBO with one sample."""
    return {"objective": objective, "beta": beta, "n_samples": n_samples if objective == "iwae" else 1}


def couples_rows(free_bits_per_dimension=0.0, free_bits_total=0.0, **_):
    """Whether the loss is no mean over rows: free bits look at the KL of the whole batch."""
    return bool(free_bits_per_dimension or free_bits_total)


def join(terms, caches, weights, gathered=lambda compute: compute()):
    """From the Terms and caches of a batch's shards, with their shares of the rows as weights, those of the whole batch.

    gathered(compute): the lists of all ranks, this one's being compute(), where others have shards of the batch, too
    (`npvae.core.ranks`)."""
    weights, terms, of_all = zip(*gathered(lambda: [(w, term, cache.bound) for w, term, cache in zip(weights, terms, caches)]))
    loss, ((*_, counts), *_) = bounds.free_bits_elbo_join(of_all, weights)
    means = [float(np.dot(weights, column)) for column in zip(*terms)]
    joined = [cache._replace(bound=(*cache.bound[:-1], counts)) for cache in caches]  # counts are those of the batch
    return type(terms[0])(*means)._replace(loss=loss.item()), joined
