"""What the proof covers: every op and the model, at generic arguments and in every regime.

A regime is where a formula or its rounding changes: below, at and above a kink, inside and outside of the clip, saturated
logits. A check that never visits a branch says nothing about it.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from npvae import bounds, latent, layers, likelihood, optim
from npvae.backend import BACKENDS, load_ops
from npvae.vae import LIKELIHOODS, VAE

ACTIVATIONS = tuple(name for name in layers.ACTIVATIONS if name != "identity")
LOGITS = (0.0, 1.0, 20.0, 40.0, 100.0, 1e4)
TARGETS = (0.0, 0.3, 1.0)


class Pair(NamedTuple):
    """A forward/backward pair and the arguments that it is checked at."""

    name: str
    forward: Callable
    backward: Callable
    args: tuple
    wrt: tuple  # names of the arguments that backward differentiates
    on_kink: bool = False  # differences straddle a kink here, or drown in rounding: only the complex step can judge


class ModelCase(NamedTuple):
    """A model in float64 with the batch, the noise, the weight of the KL and the objective that it is checked with."""

    name: str
    model: VAE
    x: np.ndarray
    eps: np.ndarray
    beta: float
    objective: str = "elbo"


def subjects(backends=BACKENDS):
    """Everything to be proven: the small pairs, then each back end's composites and models."""
    pairs = op_pairs() + [pair for backend in backends for pair in composite_pairs(backend)]
    return pairs + [case for backend in backends for case in model_cases(backend)]


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
    bounds = np.array([[low - 5, low, low + 1, 0.0, high - 1, high, high + 5]])
    pairs += [
        Pair("clip logvar", *clip, (normal((4, 3)),), ("raw",)),
        Pair("clip logvar, beyond, on, inside the bounds", *clip, (bounds,), ("raw",), True),
    ]
    mu, logvar = normal((4, 3)), normal((4, 3))
    sample = latent.reparameterize_forward, latent.reparameterize_backward
    kl = latent.gaussian_kl_forward, latent.gaussian_kl_backward
    pairs += [
        Pair("sampler", *sample, (mu, logvar, normal((4, 3))), ("mu", "logvar")),
        Pair("sampler, 5 samples", *sample, (mu, logvar, normal((5, 4, 3))), ("mu", "logvar")),
        Pair("sampler, 1 row, 1 sample", *sample, (mu[:1], logvar[:1], normal((1, 1, 3))), ("mu", "logvar")),
        Pair("Gaussian KL", *kl, (mu, logvar), ("mu", "logvar")),
    ]
    return pairs + bound_pairs() + nll_pairs("", likelihood)


def bound_pairs():
    """The divergence of samples, and the bounds: generic, one sample, the share of a larger batch with one beta
    for each dimension, one sample that dominates."""
    rng = np.random.default_rng(6)
    normal, beta = rng.standard_normal, np.array([0.5, 1.0, 2.0])
    sampled = latent.sampled_kl_forward, latent.sampled_kl_backward
    elbo = bounds.elbo_forward, bounds.elbo_backward
    iwae = bounds.iwae_forward, bounds.iwae_backward
    free_bits = bounds.free_bits_forward, bounds.free_bits_backward
    kl = np.array([0.1, 0.5, 2.0])
    return [
        Pair("sampled KL", *sampled, (normal((5, 4, 3)), normal((4, 3)), normal((5, 4, 3))), ("z", "logvar")),
        Pair("−ELBO", *elbo, (normal(4), normal((4, 3)), 1.0, 4), ("nll", "kl")),
        Pair("−ELBO, 5 samples, share, betas", *elbo, (normal((5, 4)), normal((4, 3)), beta, 9), ("nll", "kl")),
        Pair("−IWAE bound", *iwae, (normal((5, 4)), normal((5, 4, 3)), 1.0, 4), ("nll", "kl")),
        Pair("−IWAE bound, share, betas", *iwae, (normal((5, 4)), normal((5, 4, 3)), beta, 9), ("nll", "kl")),
        Pair("−IWAE bound, 1 sample", *iwae, (normal((1, 4)), normal((1, 4, 3)), 2.0, 4), ("nll", "kl")),
        Pair("−IWAE bound, one dominates", *iwae, (300 * normal((5, 4)), normal((5, 4, 3)), 1.0, 4), ("nll", "kl"), True),
        Pair("free bits, per dimension", *free_bits, (kl, 0.3, 0.0), ("mean_kl",)),
        Pair("free bits, in total, above", *free_bits, (kl, 0.0, 2.5), ("mean_kl",)),
        Pair("free bits, in total, below", *free_bits, (kl, 0.0, 2.7), ("mean_kl",), True),
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
    """The composite ops of a back end's table."""
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
    return pairs + nll_pairs(f"{backend} ", ops)


def model_cases(backend):
    """Depths 0 to 3, every activation, both likelihoods, one and several rows and samples, fresh and trained parameters."""
    cases = []
    sparse = model_at((110,), "relu", "bernoulli", backend, 5, None, 100, n_features=40, p=0.15)
    cases.append(ModelCase(f"{backend} VAE 40-110-2 relu bernoulli, B 5, 15 % ones, after 100 steps", *sparse, 1.0))
    settings = [  # hidden, activation, B, S, beta
        ((), "relu", 1, None, 1.0),
        ((6,), "relu", 4, None, 1.0),
        ((6,), "tanh", 3, 4, 0.5),
        ((6, 4), "sigmoid", 3, 1, 2.0),
        ((6, 4), "softplus", 4, None, 1.0),
        ((5, 4, 3), "silu", 3, 2, 1.0),
        ((5, 4, 3), "relu", 3, None, 1.0),
    ]
    for kind in LIKELIHOODS:
        for hidden, activation, B, S, beta in settings:
            for n_steps in (0, 100):
                model, x, eps = model_at(hidden, activation, kind, backend, B, S, n_steps)
                age = f"after {n_steps} steps" if n_steps else "fresh"
                name = f"{backend} VAE {'-'.join(map(str, [7, *hidden, 2]))} {activation} {kind}"
                cases.append(ModelCase(f"{name}, B {B}, S {S or 1}, {age}", model, x, eps, beta))
        for hidden, S, n_steps, beta in [((6,), 4, 0, 2.0), ((6,), 5, 100, 1.0), ((5, 4, 3), 1, 100, 1.0)]:
            name = f"{backend} VAE {'-'.join(map(str, [7, *hidden, 2]))} tanh {kind} iwae, B 3, S {S}, after {n_steps} steps"
            cases.append(ModelCase(name, *model_at(hidden, "tanh", kind, backend, 3, S, n_steps), beta, "iwae"))
    return cases


def model_at(hidden, activation, kind, backend, B, S, n_steps, n_features=7, p=0.5):
    """A small float64 model with generic biases after n_steps of Adam, with noise and data that it was not trained on (at the
    bottom of its own loss the gradient cancels, and rounding is all that there is to compare)."""
    rng = np.random.default_rng(3)
    model = VAE(n_features, 2, hidden, activation, kind, backend, "float64", seed=4, sigma=0.5)
    model.theta += 0.2 * rng.standard_normal(model.theta.size)
    shape = (2, B, n_features)
    x_train, x = (rng.random(shape) < p).astype(float) if kind == "bernoulli" else rng.standard_normal(shape)
    noise = rng.standard_normal((n_steps + 1, S or 1, B, 2))
    optimizer, state = optim.Adam(1e-2), optim.initial_state(optim.Adam(), model.theta)
    grad = np.empty_like(model.theta)
    for eps in noise[1:]:
        model.backward(model.forward(x_train, eps)[1], out=grad)
        optimizer.step(model.theta, grad, state)
    return model, x, noise[0] if S else noise[0, 0]
