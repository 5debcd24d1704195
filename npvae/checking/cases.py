"""The cases that are checked: every op and every model, at generic arguments and in every regime.

A regime is where a formula or its rounding changes: below, at and above a kink, inside and outside of the clip, saturated
logits. A check that never visits a branch says nothing about it.
"""

from typing import Any, NamedTuple

import numpy as np

from npvae import models
from npvae.checking.distributions import discrete_pairs, full_latent_and_variance_pairs, gaussian_pairs
from npvae.checking.energies import adversarial_pairs, boltzmann_pairs, energy_pairs, score_pairs
from npvae.checking.pair import LOGITS, Pair
from npvae.models.backend import BACKENDS, load_ops
from npvae.ops import boltzmann, bounds, convolution, coupling, discrete, joining, latent, layers, likelihood
from npvae.training.optim import Adam, initial_state

ACTIVATIONS = tuple(name for name in layers.ACTIVATIONS if name != "identity")
TARGETS = (0.0, 0.3, 1.0)
TRAINED = 100  # steps of Adam after which a model is checked again


class ModelCase(NamedTuple):
    """A model in float64 with the batch, the noise and the settings that it is checked with, and rows of another batch."""

    name: str
    model: Any
    batch: tuple
    noise: Any
    settings: dict
    others: tuple  # as many rows as the batch


def cases(backends=BACKENDS):
    """Everything that is checked: the small pairs, then each back end's composites and models."""
    return all_pairs(backends) + [case for backend in backends for case in model_cases(backend)]


def all_pairs(backends=BACKENDS):
    """The small pairs, and each back end's composites."""
    return op_pairs() + [pair for backend in backends for pair in composite_pairs(backend)]


def model_cases(backend):
    """The examples of every model, with generic parameters, and the same after some steps of training."""
    examples = [example for kind in models.classes().values() for example in kind.examples(backend)]
    return [case for example in examples for case in cases_of(example)]


def cases_of(example):
    """One example of a model fresh and trained, on rows that it was not trained on (at the bottom of its own loss the gradient
    cancels, and rounding is all that there is to compare)."""
    rng = np.random.default_rng(3)
    name, model, batch, settings = example
    half = len(batch[0]) // 2 if batch else 0
    others, batch = (tuple(array[part] for array in batch) for part in (slice(half), slice(half, 2 * half)))
    model.theta += 0.2 * rng.standard_normal(model.theta.size)
    yield ModelCase(f"{name}, fresh", model, batch, model.draw(rng, *batch, **settings), settings, others)
    trained = model.copy()
    optimizer, state = Adam(1e-2), initial_state(Adam(), trained.theta)
    grad = np.empty_like(trained.theta)
    for _ in range(TRAINED):
        trained.backward(trained.forward(*others, trained.draw(rng, *others, **settings), **settings)[1], out=grad)
        optimizer.step(trained.theta, grad, state)
    noise = trained.draw(rng, *batch, **settings)
    yield ModelCase(f"{name}, after {TRAINED} steps", trained, batch, noise, settings, others)


def op_pairs():
    """The small pairs of layers, latent and likelihood, at generic arguments and in every regime."""
    normal = np.random.default_rng(0).standard_normal
    args = normal((5, 7)), normal((7, 3)), normal(3)
    affine = layers.affine_forward, layers.affine_backward
    square = normal((3, 3)), normal((3, 3)), normal(3)  # where a transposed W or a wrong axis fits, and only the numbers tell
    pairs = [
        Pair("affine", *affine, args, ("x", "W", "b")),
        Pair("affine, square", *affine, square, ("x", "W", "b")),
    ]
    kinked = np.array([[-1.5, -1e-9, 0.0, 1e-9, 2.0]])  # below, at and above the kink of relu
    for name in ACTIVATIONS:
        forward, backward = layers.ACTIVATIONS[name]
        pairs.append(Pair(name, forward, backward, (normal((4, 5)),), ("pre",)))
        pairs.append(Pair(f"{name}, below, at, above 0", forward, backward, (kinked,), ("pre",), True))
    for name in ("sigmoid", "softplus", "silu"):
        for level in (-40.0, 40.0):
            pair = Pair(f"{name}, at {level:g}", *layers.ACTIVATIONS[name], (np.full((2, 2), level),), ("pre",), True)
            pairs.append(pair)
    clip = latent.clip_logvar_forward, latent.clip_logvar_backward
    low, high = latent.LOGVAR_MIN, latent.LOGVAR_MAX
    edges = np.array([[low - 5, low, low + 1, 0.0, high - 1, high, high + 5]])
    pairs += [
        Pair("clip logvar", *clip, (normal((4, 3)),), ("raw",)),
        Pair("clip logvar, beyond, on, inside the bounds", *clip, (edges,), ("raw",), True),
    ]
    mu, logvar = normal((4, 3)), normal((4, 3))
    sample = latent.reparameterize_forward, latent.reparameterize_backward
    kl = latent.gaussian_kl_forward, latent.gaussian_kl_backward
    pairs += [
        Pair("sampler", *sample, (mu, logvar, normal((4, 3))), ("mu", "logvar")),
        Pair("sampler, 5 samples", *sample, (mu, logvar, normal((5, 4, 3))), ("mu", "logvar")),
        Pair("sampler, 1 row, 1 sample", *sample, (mu[:1], logvar[:1], normal((1, 1, 3))), ("mu", "logvar")),
        Pair("Gaussian KL", *kl, (mu, logvar), ("mu", "logvar")),
        Pair("join, 3 samples", joining.join_forward, joining.join_backward, (normal((6, 3)), normal((2, 4))), ("a",)),
    ]
    pairs += convolution_pairs()
    pairs += bound_pairs() + coupling_pairs() + boltzmann_pairs("", boltzmann) + energy_pairs() + nll_pairs("", likelihood)
    return pairs + adversarial_pairs() + gaussian_pairs() + discrete_pairs("", discrete)


def convolution_pairs():
    """Convolutions and transposed ones: as many channels after as before, where a wrong order of them fits; padding that is no
    multiple of the stride; a periodic image that is met twice by the same place; a bias for each pixel."""
    normal = np.random.default_rng(9).standard_normal
    one_way = convolution.convolution_forward, convolution.convolution_backward
    back = convolution.transposed_convolution_forward, convolution.transposed_convolution_backward
    kernel, wrt = normal((3, 3, 2, 2)), ("x", "W", "b")
    of_pixels, how = normal((3, 2, 2)), (2, (1, 1))
    return [
        Pair("convolution, stride 1", *one_way, (normal((2, 4, 5, 2)), kernel, normal(2), 1, (1, 2)), wrt),
        Pair("convolution, stride 1, periodic", *one_way,
             (normal((2, 4, 3, 2)), kernel, normal(2), 1, (2, 2), "periodic"), wrt),
        Pair("convolution, stride 2", *one_way, (normal((2, 6, 4, 2)), normal((4, 4, 2, 2)), of_pixels, *how), wrt),
        Pair("transposed convolution, stride 2", *back, (normal((2, 3, 2, 2)), normal((2, 4, 4, 2)), normal(2), *how), wrt),
        Pair("transposed convolution, stride 3, periodic", *back,
             (normal((1, 2, 2, 2)), normal((2, 4, 4, 1)), normal((6, 6, 1)), 3, (1, 0), "periodic"), wrt),
    ]  # fmt: skip


def bound_pairs():
    """The divergence of samples, and the bounds: generic, one sample, one beta for each dimension, one sample that
    dominates."""
    rng = np.random.default_rng(6)
    normal, beta = rng.standard_normal, np.array([0.5, 1.0, 2.0])
    sampled = latent.sampled_kl_forward, latent.sampled_kl_backward
    elbo = bounds.elbo_forward, bounds.elbo_backward
    iwae = bounds.iwae_forward, bounds.iwae_backward
    free_bits = bounds.free_bits_forward, bounds.free_bits_backward
    kl = np.array([0.1, 0.5, 2.0])
    free_elbo = bounds.free_bits_elbo_forward, bounds.free_bits_elbo_backward
    return [
        Pair("sampled KL", *sampled, (normal((5, 4, 3)), normal((4, 3)), normal((5, 4, 3))), ("z", "logvar")),
        Pair("−ELBO", *elbo, (normal(4), normal((4, 3)), 1.0), ("nll", "kl")),
        Pair("−ELBO, 5 samples, betas", *elbo, (normal((5, 4)), normal((4, 3)), beta), ("nll", "kl")),
        Pair("−IWAE bound", *iwae, (normal((5, 4)), normal((5, 4, 3)), 1.0), ("nll", "kl")),
        Pair("−IWAE bound, betas", *iwae, (normal((5, 4)), normal((5, 4, 3)), beta), ("nll", "kl")),
        Pair("−IWAE bound, 1 sample", *iwae, (normal((1, 4)), normal((1, 4, 3)), 2.0), ("nll", "kl")),
        Pair("−IWAE bound, one dominates", *iwae, (300 * normal((5, 4)), normal((5, 4, 3)), 1.0), ("nll", "kl"), True),
        Pair("free bits, per dimension", *free_bits, (kl, 0.3, 0.0), ("mean_kl",)),
        Pair("free bits, in total, above", *free_bits, (kl, 0.0, 2.5), ("mean_kl",)),
        Pair("free bits, in total, below", *free_bits, (kl, 0.0, 2.7), ("mean_kl",), True),
        Pair("−ELBO with free bits", *free_elbo, (normal((5, 4)), kl + 0.1 * normal((4, 3)), 0.5, 0.3, 0.0), ("nll", "kl")),
    ]


def coupling_pairs():
    """The ops of a flow: generic, and a raw log-scale that its bound has nearly reached."""
    normal = np.random.default_rng(8).standard_normal
    layer = coupling.coupling_forward, coupling.coupling_backward
    standardize = coupling.standardize_forward, coupling.standardize_backward
    nll = coupling.standard_normal_nll_forward, coupling.standard_normal_nll_backward
    return [
        Pair("coupling", *layer, (normal((4, 3)), normal((4, 6)), 2.0), ("x", "output")),
        Pair("coupling, large scales", *layer, (normal((4, 3)), 4 * normal((4, 6)), 2.0), ("x", "output")),
        Pair("standardize", *standardize, (normal((4, 3)), normal(3), normal(3)), ("x", "log_scale", "shift")),
        Pair("standard normal nll", *nll, (normal((4, 3)),), ("z",)),
    ]


def nll_pairs(prefix, ops):
    """The likelihoods of a module or a table of ops: generic, with samples, and every saturation of the logits."""
    rng = np.random.default_rng(1)
    bernoulli = ops.bernoulli_nll_forward, ops.bernoulli_nll_backward
    gaussian = ops.gaussian_nll_forward, ops.gaussian_nll_backward
    x, grey = rng.standard_normal((3, 7)), rng.random((3, 7))
    grey.flat[:2] = 0, 1
    pairs = [
        Pair(f"{prefix}Bernoulli nll", *bernoulli, (rng.standard_normal((3, 7)), grey), ("logits",)),
        Pair(f"{prefix}Bernoulli nll, 4 samples", *bernoulli, (rng.standard_normal((4, 3, 7)), grey), ("logits",)),
        Pair(f"{prefix}Gaussian nll", *gaussian, (rng.standard_normal((3, 7)), x, 0.3), ("mean",)),
        Pair(f"{prefix}Gaussian nll, 4 samples", *gaussian, (rng.standard_normal((4, 3, 7)), x, 2.0), ("mean",)),
    ]
    for level in LOGITS:
        for target in TARGETS:
            for sign in (-1, 1) if level else (1,):
                args = np.full((1, 2), sign * level), np.full((1, 2), target)
                pairs.append(
                    Pair(f"{prefix}Bernoulli nll, logit {sign * level:g}, x = {target:g}", *bernoulli, args, ("logits",), True)
                )
    return pairs


def composite_pairs(backend):
    """The composite ops of a back end."""
    ops = load_ops(backend)
    rng = np.random.default_rng(2)
    pairs = []
    for activation in layers.ACTIVATIONS:
        args = rng.standard_normal((5, 7)), rng.standard_normal((7, 3)), rng.standard_normal(3), activation
        pairs.append(Pair(f"{backend} dense {activation}", ops.dense_forward, ops.dense_backward, args, ("x", "W", "b")))
    x = (rng.random((9, 12)) < 0.15) * rng.standard_normal((9, 12))
    args = x, rng.standard_normal((12, 110)), rng.standard_normal(110), "tanh"
    pairs.append(Pair(f"{backend} dense sparse x", ops.dense_forward, ops.dense_backward, args, ("x", "W", "b")))
    posterior = rng.standard_normal((4, 6))
    clipped = posterior.copy()
    clipped[:, 3:] = [[-40, -30, 0], [20, 30, 1], [-31, 19, 21], [0.5, 2, -29]]
    latent_ops = ops.latent_forward, ops.latent_backward
    sampled_ops = ops.latent_sampled_forward, ops.latent_sampled_backward
    pairs += [
        Pair(f"{backend} latent", *latent_ops, (posterior, rng.standard_normal((4, 3))), ("posterior",)),
        Pair(f"{backend} latent, 5 samples", *latent_ops, (posterior, rng.standard_normal((5, 4, 3))), ("posterior",)),
        Pair(f"{backend} latent, clipped", *latent_ops, (clipped, np.full((4, 3), 1e-4)), ("posterior",), True),
        Pair(f"{backend} latent sampled", *sampled_ops, (posterior, rng.standard_normal((5, 4, 3))), ("posterior",)),
        Pair(f"{backend} latent sampled, clipped", *sampled_ops, (clipped, np.full((1, 4, 3), 1e-4)), ("posterior",), True),
    ]
    pairs += score_pairs(f"{backend} ", ops)
    pairs += nll_pairs(f"{backend} ", ops) + full_latent_and_variance_pairs(f"{backend} ", ops)
    return pairs + discrete_pairs(f"{backend} ", ops) + boltzmann_pairs(f"{backend} ", ops)
