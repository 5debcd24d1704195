"""Backward passes that are wrong as people get them wrong, and whether `npvae.checking` notices.

A gradient check is worth what it catches. Each function of the first list replaces a right function by one with a mistake
that people make; the cases that it touches are put before the checks, and at least one check has to fail. The second list
holds mistakes in the probability: forward and backward agree, so that no gradient check can see them, and the tests of
samples, divergences and normalisation have to.

    python tests/support/mistakes.py     prints the kill matrix, tests/support/kill_matrix.md
"""

import functools
import sys
from collections.abc import Callable
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))  # where the test files are

import test_diffusion
import test_diffusion_ops
import test_evaluate
import test_hierarchical
import test_latent
import test_likelihood

from npvae import models, ops
from npvae.checking import cases, run
from npvae.models import autoencoder, evaluate, latent_chain, objectives, vae
from npvae.models.vae import VAE
from npvae.ops import bounds, chains, diffusion, latent, layers, likelihood, mlp, noise_schedule
from npvae.ops.bounds import elbo_backward, iwae_backward, iwae_forward
from npvae.ops.chains import (
    descend_back,
    noise_of_each,
    per_sample_backward,
    transition_backward,
    transition_forward,
    transition_kl_backward,
    transition_kl_forward,
)
from npvae.ops.diffusion import (
    denoising_backward,
    denoising_forward,
    diffuse_backward,
    gaussian_reconstruction_backward,
    gaussian_reconstruction_forward,
    levels_nll_backward,
    levels_nll_forward,
    predict_backward,
    prior_kl_backward,
    prior_kl_forward,
    transition,
    weight_backward,
)
from npvae.ops.latent import (
    LOGVAR_MAX,
    LOGVAR_MIN,
    clip_logvar_backward,
    clip_logvar_forward,
    gaussian_kl_backward,
    gaussian_kl_forward,
    latent_backward,
    latent_sampled_backward,
    reparameterize_backward,
    reparameterize_forward,
    sampled_kl_backward,
    sampled_kl_forward,
)
from npvae.ops.layers import (
    affine_backward,
    relu_backward,
    relu_forward,
    sigmoid_and_complement,
    softplus_backward,
    softplus_forward,
    tanh_backward,
    tanh_forward,
)
from npvae.ops.likelihood import (
    bernoulli_nll_backward,
    bernoulli_nll_forward,
    gaussian_nll_backward,
    gaussian_nll_forward,
)
from npvae.ops.mlp import mlp_backward
from npvae.ops.noise_schedule import blocks_input_backward, schedule_backward

# Whatever holds ops by name; `ops` is the table that the models call.
MODULES = (ops, layers, mlp, latent, likelihood, bounds, chains, diffusion, noise_schedule, vae, autoencoder, evaluate,
           objectives, latent_chain)  # fmt: skip
RAISES = "raises"  # an error in a check (mostly shapes that do not fit) gives a mistake away as well
GRADIENT_COLUMNS = (*run.CHECKS, RAISES)
VAE_METHODS = {name: getattr(VAE, name) for name in ("forward", "backward", "gradient")}

GRADIENT_BUFFERS = {}

# Cases, by the beginning of their names.
AFFINE = ("affine", "numpy dense tanh")
SAMPLER = ("sampler", "numpy latent")
KL = ("Gaussian KL", "numpy latent")
CLIP = ("clip logvar", "numpy latent, clipped")
BERNOULLI = ("Bernoulli nll",)
GAUSSIAN = ("Gaussian nll",)
SAMPLES = "numpy VAE 7-6-2 tanh gaussian, B 3, S 4, after"  # with beta = 0.5
SQUARE = "numpy VAE 7-6-2 relu bernoulli, B 4, S 1, after"  # as many rows as the posterior has columns
DEEP = "numpy VAE 7-5-4-3-2 relu gaussian, B 3, S 1, fresh"
IWAE_MODEL = "numpy VAE 7-6-2 tanh gaussian iwae, B 3, S 4, after"
ELBO, IWAE = ("−ELBO",), ("−IWAE", IWAE_MODEL)
SAMPLED_KL = ("sampled KL", "numpy latent sampled", IWAE_MODEL)
PLAIN = "numpy VAE 7-2 relu gaussian, B 1, S 1, after"
CHAIN = ("numpy HierarchicalVAE 3-3-(2)-2-(2) tanh bernoulli, S 2, after",)
CHAIN_IWAE = "numpy HierarchicalVAE 3-2-(2)-2-(1)-2-(2) tanh bernoulli iwae, S 2, after"
DIFFUSION = ("numpy Diffusion 2 columns, T 5, linear, noise, fourier, gaussian, matching, B 4, fresh",)
DATA = ("numpy Diffusion 3 columns, T 4, cosine, data, fourier, gaussian, continuous, B 3, fresh",)
LEARNED_ENDS = ("numpy Diffusion 2 columns, T 3, learned, noise, steps, gaussian, matching, B 4, fresh",)
LEVELS = ("numpy Diffusion 2 columns, T 4, learned, score, fourier, levels, matching, B 3, fresh",)
CONTINUOUS = ("numpy Diffusion 1 columns, T 3, learned, data, fourier, gaussian, continuous, B 1, fresh",)
CONSISTENCY = ("numpy Diffusion 2 columns, T 4, linear, noise, steps, gaussian, consistency, B 4, fresh",)


class Mistake(NamedTuple):
    """A wrong function or several: build() gives them as name -> function."""

    name: str
    how: str  # people make it
    build: Callable
    put_before: tuple  # cases, by the beginnings of their names


MISTAKES, PROBABILITY_MISTAKES = [], []


def register(mistakes, function, build, prefixes):
    mistakes.append(Mistake(function.__name__.replace("_", " "), function.__doc__, build, prefixes))
    return function


def mistake(target, *prefixes):
    """The decorated function stands in for `target`."""
    return lambda function: register(MISTAKES, function, lambda: {target: function}, prefixes)


def mistake_in_pair(op, *prefixes):
    """The decorated function returns a forward and a backward that stand in for those of `op`."""
    return lambda function: register(MISTAKES, function, lambda: pair(op, *function()), prefixes)


def probability_mistake(*prefixes):
    """The decorated function returns consistent functions with a wrong meaning, name -> function."""
    return lambda function: register(PROBABILITY_MISTAKES, function, function, prefixes)


def pair(op, forward, backward):
    return {f"{op}_forward": forward, f"{op}_backward": backward}


# ------------------------------------------------------------------------------------------------------- affine layers


@mistake("affine_backward", *AFFINE)
def bias_gradient_is_a_mean(dpre, cache):
    """mean(axis=0) in place of sum(axis=0): "the gradient is averaged over the batch"."""
    dx, dW, db = affine_backward(dpre, cache)
    db /= len(dpre)
    return dx, dW, db


@mistake("affine_backward", *AFFINE, SAMPLES)
def batch_size_divided_out_twice(dpre, cache):
    """Each layer divides by B, and so does the loss: 1/B²."""
    dx, dW, db = affine_backward(dpre, cache)
    dW /= len(dpre)
    db /= len(dpre)
    return dx, dW, db


@mistake("affine_backward", *AFFINE, SQUARE)
def batch_axis_found_by_its_length(dpre, cache):
    """The axis that is not n_out long is summed over, which is the wrong one where B = n_out."""
    dx, dW, db = affine_backward(dpre, cache)
    batch_axis = 1 - dpre.shape.index(len(db))
    db[:] = dpre.sum(axis=batch_axis)
    return dx, dW, db


@mistake("affine_backward", *AFFINE)
def dW_transposed_and_reshaped(dpre, cache):
    """dpreᵀ x in place of xᵀ dpre, forced into the shape of W."""
    dx, dW, db = affine_backward(dpre, cache)
    dW[:] = (dpre.T @ cache[0]).reshape(dW.shape)
    return dx, dW, db


@mistake("affine_backward", *AFFINE, SQUARE)
def dx_through_W_untransposed(dpre, cache):
    """dx = dpre W: it runs where W is square, which is where its author tried it."""
    dx, dW, db = affine_backward(dpre, cache)
    return dpre @ cache[1] if len(cache[1]) else dx, dW, db  # a network's first layer needs no dx: W is empty there


@mistake("affine_backward", *AFFINE)
def dx_through_W_reshaped(dpre, cache):
    """reshape(n_out, n_in) taken for the transpose."""
    W = cache[1]
    _, dW, db = affine_backward(dpre, cache)
    return dpre @ W.reshape(W.shape[::-1]), dW, db


@mistake("affine_backward", *AFFINE)
def last_row_left_out(dpre, cache):
    """A loop over range(B - 1)."""
    dx, dW, db = affine_backward(dpre, cache)
    dW[:] = cache[0][:-1].T @ dpre[:-1]
    return dx, dW, db


@mistake("affine_backward", *AFFINE)
def one_entry_off_by_half(dpre, cache):
    """A wrong weight at one index, like an end point treated as an inner one."""
    dx, dW, db = affine_backward(dpre, cache)
    dW[1, 2] *= 1.5
    return dx, dW, db


@mistake("affine_backward", *AFFINE)
def weight_decay_in_the_gradient(dpre, cache):
    """A penalty that the loss does not contain: the gradient is not zero for a zero upstream."""
    dx, dW, db = affine_backward(dpre, cache)
    dW += 1e-4 * cache[1]
    return dx, dW, db


@mistake("affine_backward", *AFFINE)
def gradient_clipped_silently(dpre, cache):
    """np.clip(dW, -1, 1), left over from a search for exploding gradients."""
    dx, dW, db = affine_backward(dpre, cache)
    np.clip(dW, -1, 1, out=dW)
    return dx, dW, db


@mistake("affine_backward", *AFFINE)
def bias_summed_in_float32(dpre, cache):
    """A single-precision accumulator inside a double-precision path."""
    dx, dW, db = affine_backward(dpre, cache)
    db[:] = dpre.sum(axis=0, dtype=np.float32)
    return dx, dW, db


# --------------------------------------------------------------------------------------------------------- activations


@mistake("tanh_backward", "tanh", "numpy dense tanh")
def nine_tenths(dh, cache):
    """A leftover factor, small enough to pass a tolerance of 10 %."""
    return 0.9 * tanh_backward(dh, cache)


@mistake("softplus_backward", "softplus", "numpy dense softplus")
def off_in_the_eighth_digit(dh, cache):
    """A constant typed with eight digits."""
    return (1 + 1e-8) * softplus_backward(dh, cache)


@mistake_in_pair("tanh", "tanh", "numpy dense tanh")
def tanh_slope_from_the_input():
    """1 − pre²: the cache holds the input, the formula wants the output."""
    return lambda pre: (np.tanh(pre), pre), tanh_backward


@mistake("tanh_backward", "tanh", "numpy dense tanh")
def tanh_slope_of_the_output(dh, cache):
    """1 − tanh(h)²: tanh is applied once more to what is tanh(pre) already."""
    return tanh_backward(dh, np.tanh(cache))


@mistake("tanh_backward", "tanh", "numpy dense tanh")
def float32_rounding_inside(dh, cache):
    """A conversion to float32 for speed, in the middle of a float64 path."""
    return tanh_backward(dh, cache.astype(np.float32))


@mistake("sigmoid_backward", "sigmoid", "numpy dense sigmoid")
def sigmoid_slope_without_complement(dh, cache):
    """σ′ = σ: the factor 1 − σ is forgotten."""
    return dh * cache[0]


@mistake("sigmoid_backward", "sigmoid", "numpy dense sigmoid")
def sigmoid_slope_of_the_output(dh, cache):
    """σ(h)(1 − σ(h)): the derivative is taken at h in place of pre."""
    p, one_minus_p = sigmoid_and_complement(cache[0])
    return dh * p * one_minus_p


@mistake("sigmoid_backward", "sigmoid", "numpy dense sigmoid")
def sigmoid_complement_cancels(dh, cache):
    """h(1 − h), which is exactly 0 from pre = 37 on."""
    h, _ = cache
    return dh * h * (1 - h)


@mistake("relu_backward", "relu", "numpy dense relu")
def relu_works_in_place(dh, cache):
    """dh[pre <= 0] = 0 writes into the upstream gradient, which others read too."""
    dh[cache <= 0] = 0
    return dh


@mistake("relu_backward", "relu", "numpy dense relu")
def relu_masked_by_the_upstream(dh, cache):
    """The mask is dh > 0 in place of pre > 0."""
    return np.where(dh > 0, dh, 0)


@mistake("relu_backward", "relu", "numpy dense relu")
def relu_slope_1_at_the_kink(dh, cache):
    """Forward takes pre <= 0 for off, backward takes pre < 0: they disagree at zero padding and dead inputs."""
    return np.where(cache < 0, 0, dh)


@mistake("relu_backward", "relu", "numpy dense relu")
def relu_passes_everything(dh, cache):
    """Straight through: the mask is forgotten."""
    return dh.copy()


@mistake("softplus_backward", "softplus", "numpy dense softplus")
def softplus_slope_is_its_output(dh, cache):
    """softplus′ = softplus, in analogy to the exponential, in place of σ."""
    return dh * softplus_forward(cache)[0]


@mistake("silu_backward", "silu", "numpy dense silu")
def silu_without_its_second_term(dh, cache):
    """The product rule is forgotten: the slope is σ(pre) alone."""
    return dh * cache[1]


@mistake("silu_backward", "silu", "numpy dense silu")
def upstream_taken_for_ones(dh, cache):
    """The local slope without dh, tried on the loss f = h.sum() only."""
    h, sigmoid, complement = cache
    return sigmoid + h * complement


# --------------------------------------------------------------------------------------------------- caches and purity


@mistake_in_pair("relu", "relu", SQUARE)
def cache_of_the_latest_forward():
    """The cache lives on the module: the next forward overwrites it before this one's backward."""
    latest = {}

    def forward(pre):
        h, latest["cache"] = relu_forward(pre)
        return h, None

    return forward, lambda dh, cache: relu_backward(dh, latest["cache"])


@mistake_in_pair("reparameterize", "sampler", SAMPLES)
def cache_of_the_first_forward():
    """The cache is made once and kept, for "the shapes are always the same"."""
    kept = []

    def forward(mu, logvar, eps):
        z, cache = reparameterize_forward(mu, logvar, eps)
        kept.append(cache)
        return z, kept[0]

    return forward, reparameterize_backward


@mistake_in_pair("relu", "relu", SQUARE)
def output_buffer_shared_by_layers():
    """One buffer per shape saves allocations, until two layers of one shape hold it at the same time."""
    buffers = {}

    def forward(pre):
        buffer = buffers.setdefault((pre.shape, pre.dtype), np.empty_like(pre))
        buffer[:] = relu_forward(pre)[0]
        return buffer, pre

    return forward, relu_backward


@mistake_in_pair("reparameterize", *SAMPLER)
def logvar_halved_in_place():
    """logvar *= 0.5 inside of the forward: the KL afterwards sees half of it."""

    def forward(mu, logvar, eps):
        logvar *= 0.5
        return reparameterize_forward(mu, 2 * logvar, eps)

    return forward, reparameterize_backward


@mistake_in_pair("reparameterize", "sampler", SAMPLES)
def noise_drawn_in_forward():
    """The sampler draws its own noise: two calls differ, and no derivative can be compared."""
    rng = np.random.default_rng(0)

    def forward(mu, logvar, eps):
        return reparameterize_forward(mu, logvar, rng.standard_normal(eps.shape).astype(eps.dtype))

    return forward, reparameterize_backward


@mistake_in_pair("reparameterize", "sampler", SAMPLES)
def noise_drawn_again_in_backward():
    """Backward calls the random generator once more, in place of using the forward's draw."""
    rng = np.random.default_rng(0)

    def backward(dz, cache):
        sigma, eps = cache
        return reparameterize_backward(dz, (sigma, rng.standard_normal(eps.shape).astype(eps.dtype)))

    return reparameterize_forward, backward


@mistake_in_pair("tanh", "tanh")
def cache_on_the_module():
    """The same, seen on the pair alone: no model is needed to notice it."""
    latest = {}

    def forward(pre):
        h, latest["cache"] = tanh_forward(pre)
        return h, None

    return forward, lambda dh, cache: tanh_backward(dh, latest["cache"])


@mistake("tanh_backward", "tanh", "numpy dense tanh")
def gradient_buffer_reused(dh, cache):
    """Backward writes into a buffer of its own, and the next call overwrites what this one returned."""
    buffer = GRADIENT_BUFFERS.setdefault((dh.shape, dh.dtype), np.empty_like(dh))
    buffer[:] = tanh_backward(dh, cache)
    return buffer


# ------------------------------------------------------------------------------------------------------------- sampler


@mistake("reparameterize_backward", *SAMPLER)
def sampler_without_half(dz, cache):
    """∂σ/∂logvar = σ: the derivative with respect to log σ, the network gives log σ²."""
    dmu, dlogvar = reparameterize_backward(dz, cache)
    return dmu, 2 * dlogvar


@mistake("reparameterize_backward", *SAMPLER)
def sampler_with_variance_for_sigma(dz, cache):
    """½ σ² eps: e^logvar in place of e^(logvar/2), in backward only."""
    sigma, eps = cache
    return reparameterize_backward(dz, (sigma * sigma, eps))


@mistake("reparameterize_backward", *SAMPLER)
def sampler_without_eps(dz, cache):
    """dlogvar = dz σ/2: the noise is taken for a constant that drops out."""
    sigma, eps = cache
    return reparameterize_backward(dz, (sigma, np.ones_like(eps)))


@mistake("reparameterize_backward", *SAMPLER)
def sampler_trains_mu_only(dz, cache):
    """The path from z to logvar is cut: σ is taken for a constant."""
    dmu, dlogvar = reparameterize_backward(dz, cache)
    return dmu, 0 * dlogvar


@mistake("reparameterize_backward", *SAMPLER)
def samples_averaged(dz, cache):
    """mean over the samples: the loss has divided by S before."""
    dmu, dlogvar = reparameterize_backward(dz, cache)
    S = dz.shape[0] if dz.ndim == 3 else 1
    return dmu / S, dlogvar / S


@mistake("reparameterize_backward", *SAMPLER)
def samples_not_summed(dz, cache):
    """The gradients keep the axis of the samples that mu and logvar do not have."""
    sigma, eps = cache
    return dz, dz * eps * (0.5 * sigma)


@mistake("reparameterize_backward", *SAMPLER)
def first_sample_only(dz, cache):
    """dz[0]: written for S = 1, and never revisited."""
    sigma, eps = cache
    return reparameterize_backward(dz[0], (sigma, eps[0])) if dz.ndim == 3 else reparameterize_backward(dz, cache)


@mistake("reparameterize_backward", *SAMPLER)
def rows_and_samples_swapped(dz, cache):
    """(S, B, L) is reshaped to (B, S, L), not transposed, so that gradients land in other rows."""
    sigma, eps = cache
    per_row = (*sigma.shape[:1], -1, *sigma.shape[1:])
    dlogvar = (dz * eps).reshape(per_row).sum(axis=1) * (0.5 * sigma)
    return dz.reshape(per_row).sum(axis=1), dlogvar


# ------------------------------------------------------------------------------------------------- divergence and clip


@mistake("gaussian_kl_backward", *KL)
def KL_without_half(dkl, cache):
    """dlogvar = e^logvar − 1: the ½ of the KL is lost."""
    dmu, dlogvar = gaussian_kl_backward(dkl, cache)
    return dmu, 2 * dlogvar


@mistake("gaussian_kl_backward", *KL)
def KL_for_log_std(dkl, cache):
    """σ² written e^(2 logvar): the formula of a network that gives log σ."""
    mu, variance_minus_1 = cache
    return dkl * mu, dkl * ((1 + variance_minus_1) ** 2 - 1)


@mistake("gaussian_kl_backward", *KL)
def KL_of_logvar_with_the_sign_of_the_ELBO(dkl, cache):
    """½(1 − e^logvar), copied from a paper that maximises."""
    dmu, dlogvar = gaussian_kl_backward(dkl, cache)
    return dmu, -dlogvar


@mistake("gaussian_kl_backward", *KL)
def KL_of_mu_dropped(dkl, cache):
    """The KL's gradient goes to logvar only."""
    dmu, dlogvar = gaussian_kl_backward(dkl, cache)
    return 0 * dmu, dlogvar


@mistake("gaussian_kl_backward", *KL)
def KL_of_logvar_dropped(dkl, cache):
    """The KL's gradient goes to mu only."""
    dmu, dlogvar = gaussian_kl_backward(dkl, cache)
    return dmu, 0 * dlogvar


@mistake("gaussian_kl_backward", *KL)
def KL_of_logvar_without_its_entropy(dkl, cache):
    """½ e^logvar: the term −logvar is overlooked."""
    dmu, _ = gaussian_kl_backward(dkl, cache)
    return dmu, dkl * 0.5 * (1 + cache[1])


@mistake("latent_backward", "numpy latent")
def gradient_through_z_overwritten(dz, dkl, cache):
    """dmu = ... twice, where the second should be +=: the gradient of the KL replaces the one through z."""
    return latent_backward(0 * dz, dkl, cache)


@mistake("latent_backward", "numpy latent")
def gradient_of_the_KL_overwritten(dz, dkl, cache):
    """The same, the other way round: what is left is the gradient of a noisy autoencoder."""
    return latent_backward(dz, 0 * dkl, cache)


@mistake("latent_backward", "numpy latent")
def mu_and_logvar_swapped(dz, dkl, cache):
    """concatenate([dlogvar, dmu]): the halves of the posterior in the wrong order."""
    dmu, dlogvar = np.split(latent_backward(dz, dkl, cache), 2, axis=1)
    return np.concatenate([dlogvar, dmu], axis=1)


@mistake("latent_backward", "numpy latent")
def clip_masks_mu_as_well(dz, dkl, cache):
    """The mask of the log-variance is applied to both halves."""
    return latent_backward(dz, dkl, cache) * np.tile(cache[0], 2)


@mistake("latent_backward", "numpy latent")
def clip_masks_only_the_path_through_z(dz, dkl, cache):
    """The KL's gradient of logvar goes round the clip."""
    inside, z_cache, kl_cache = cache
    through_z = latent_backward(dz, 0 * dkl, cache)
    through_kl = latent_backward(0 * dz, dkl, (np.ones_like(inside), z_cache, kl_cache))
    return through_z + through_kl


@mistake("clip_logvar_backward", *CLIP)
def clip_mask_ignored(dlogvar, cache):
    """np.clip in forward, nothing in backward."""
    return dlogvar.copy()


@mistake("clip_logvar_backward", *CLIP)
def clip_mask_inverted(dlogvar, cache):
    """The gradient passes where it was clipped."""
    return clip_logvar_backward(dlogvar, ~cache)


@mistake_in_pair("clip_logvar", *CLIP)
def clip_mask_excludes_the_bounds():
    """< and > where <= and >= belong: no gradient on the bounds themselves, where the clip changes nothing."""

    def forward(raw):
        logvar, _ = clip_logvar_forward(raw)
        return logvar, (raw.real > LOGVAR_MIN) & (raw.real < LOGVAR_MAX)

    return forward, clip_logvar_backward


# --------------------------------------------------------------------------------------------------------- likelihoods


@mistake("bernoulli_nll_backward", *BERNOULLI)
def saturated_sigmoid_cancels(dnll, cache):
    """σ(l) − x, the textbook form, which is 0 at l = 40, x = 1 where the truth is −4e-18."""
    logits, x = cache
    return (sigmoid_and_complement(logits)[0] - x) * dnll[..., None].astype(logits.dtype)


@mistake("bernoulli_nll_backward", *BERNOULLI)
def overflow_hidden_by_nan_to_num(dnll, cache):
    """e^l/(1 + e^l) is inf/inf from l = 710 on, and nan_to_num makes it 0."""
    logits, x = cache
    p = np.nan_to_num(np.exp(logits) / (1 + np.exp(logits)))
    return (p - x) * dnll[..., None].astype(logits.dtype)


@mistake("bernoulli_nll_backward", "Bernoulli nll", SQUARE)
def gradient_of_the_probability(dnll, cache):
    """(p − x)/(p(1 − p)), the gradient with respect to p: the chain rule through the sigmoid is missing."""
    p, one_minus_p = sigmoid_and_complement(cache[0])
    return bernoulli_nll_backward(dnll, cache) / (p * one_minus_p)


@mistake("bernoulli_nll_backward", *BERNOULLI)
def sigmoid_chained_twice(dnll, cache):
    """(p − x) p(1 − p): the sigmoid's slope is in p − x already."""
    p, one_minus_p = sigmoid_and_complement(cache[0])
    return bernoulli_nll_backward(dnll, cache) * p * one_minus_p


@mistake("bernoulli_nll_backward", *BERNOULLI)
def gradient_averaged_over_pixels(dnll, cache):
    """The loss sums over D, the gradient is that of the mean."""
    return bernoulli_nll_backward(dnll, cache) / cache[1].shape[-1]


@mistake("gaussian_nll_backward", *GAUSSIAN, SAMPLES)
def sigma_for_sigma_squared(dnll, cache):
    """The residual is divided by σ, not by σ²."""
    residual, variance = cache
    return gaussian_nll_backward(dnll, (residual, np.sqrt(variance)))


@mistake("gaussian_nll_backward", *GAUSSIAN, SAMPLES)
def variance_forgotten(dnll, cache):
    """mean − x, as for σ = 1."""
    return gaussian_nll_backward(dnll, (cache[0], 1.0))


@mistake("gaussian_nll_backward", *GAUSSIAN)
def residual_with_the_wrong_sign(dnll, cache):
    """x − mean in place of mean − x."""
    return -gaussian_nll_backward(dnll, cache)


@mistake("gaussian_nll_backward", *GAUSSIAN)
def float64_for_float32(dnll, cache):
    """The result of np.sqrt is an np.float64, and one such number makes a float32 array float64."""
    residual, variance = cache
    sigma = np.sqrt(variance)
    return gaussian_nll_backward(dnll, (residual, 1.0)) / sigma**2


@mistake("gaussian_nll_backward", *GAUSSIAN)
def float64_upstream_not_rounded(dnll, cache):
    """The nll is accumulated in float64, and its upstream gradient makes everything below float64."""
    residual, variance = cache
    return residual * (dnll / variance)[..., None]


# ------------------------------------------------------------------------------------------------------- whole models


@mistake("elbo_backward", *ELBO, SAMPLES)
def batch_size_forgotten(dloss, cache):
    """The loss is a mean over the batch, the gradient a sum."""
    dnll, dkl = elbo_backward(dloss, cache)
    return len(dkl) * dnll, len(dkl) * dkl


@mistake("elbo_backward", *ELBO, SAMPLES)
def number_of_samples_forgotten(dloss, cache):
    """The loss is a mean over the samples, the gradient a sum."""
    dnll, dkl = elbo_backward(dloss, cache)
    return dnll.size // len(dkl) * dnll, dkl


@mistake("elbo_backward", *ELBO, SAMPLES)
def beta_forgotten_in_backward(dloss, cache):
    """beta weighs the KL in the loss only."""
    nll, kl, _ = cache
    return elbo_backward(dloss, (nll, kl, 1.0))


@mistake("elbo_backward", *ELBO, SAMPLES)
def beta_on_the_nll(dloss, cache):
    """beta weighs the other term in the gradient."""
    nll, kl, beta = cache
    return np.mean(beta) * elbo_backward(dloss, cache)[0], elbo_backward(dloss, (nll, kl, 1.0))[1]


@mistake("elbo_backward", *ELBO, SAMPLES)
def KL_averaged_over_latents_in_the_gradient(dloss, cache):
    """kl.mean() in the gradient, the sum over L in the loss."""
    dnll, dkl = elbo_backward(dloss, cache)
    return dnll, dkl / dkl.shape[1]


@mistake("iwae_backward", *IWAE)
def importance_weights_not_applied(dloss, cache):
    """The gradient of the ELBO of S samples: every sample has the weight 1/S."""
    share, *others = cache
    return iwae_backward(dloss, (np.full_like(share, 1 / len(share)), *others))


@mistake("iwae_backward", *IWAE)
def importance_weights_squared(dloss, cache):
    """The weights are applied to the loss, and once more to its gradient."""
    share, *others = cache
    return iwae_backward(dloss, (share * share, *others))


@mistake("iwae_backward", *IWAE)
def importance_weights_normalised_over_the_batch(dloss, cache):
    """The softmax runs along the wrong axis, or along both."""
    share, *others = cache
    return iwae_backward(dloss, (share / share.shape[1], *others))


@mistake("iwae_backward", *IWAE)
def importance_weights_on_the_nll_only(dloss, cache):
    """The divergence in the weights is taken for a constant."""
    dnll, dkl = iwae_backward(dloss, cache)
    return dnll, 0 * dkl


@mistake("sampled_kl_backward", *SAMPLED_KL)
def divergence_of_samples_not_through_z(dkl, cache):
    """log p(z) depends on z, which depends on mu and logvar: the term dkl z is forgotten."""
    dz, dlogvar = sampled_kl_backward(dkl, cache)
    return 0 * dz, dlogvar


@mistake("sampled_kl_backward", *SAMPLED_KL)
def log_of_the_variance_not_differentiated(dkl, cache):
    """The density of q holds log σ, whose derivative is forgotten."""
    dz, dlogvar = sampled_kl_backward(dkl, cache)
    return dz, 0 * dlogvar


@mistake("latent_sampled_backward", *SAMPLED_KL)
def gradient_through_z_and_divergence_overwritten(dz, dkl, cache):
    """z feeds the decoder and the divergence, and only the second gradient is kept."""
    return latent_sampled_backward(0 * dz, dkl, cache)


@mistake("free_bits_backward", "free bits")
def free_bits_ignored_in_backward(dkl, cache):
    """The loss has its floor, the gradient pulls on every dimension all the same."""
    return np.full(len(cache), dkl)


@mistake("VAE.gradient", IWAE_MODEL)
def fused_step_without_the_objective(model, x, eps, beta=1.0, objective="elbo", *args, **options):
    """The fast path of training knows the ELBO only."""
    return VAE_METHODS["gradient"](model, x, eps, beta, "elbo", *args, **options)


@mistake("VAE.gradient", SAMPLES)
def fused_step_without_beta(model, x, eps, beta=1.0, *args, **options):
    """The fast path of training was not told of a new argument; forward and backward are right."""
    return VAE_METHODS["gradient"](model, x, eps, 1.0, *args, **options)


@mistake("VAE.backward", SAMPLES)
def KL_averaged_over_latents(model, cache, dloss=1.0, out=None):
    """kl.mean() in the gradient, the sum over L in the loss."""
    nll, kl, beta = cache.bound
    return VAE_METHODS["backward"](model, cache._replace(bound=(nll, kl, beta / model.n_latent)), dloss, out)


@mistake("VAE.backward", DEEP)
def middle_layer_not_trained(model, cache, dloss=1.0, out=None):
    """Gradients written out by hand for two layers; a third is silently left at zero."""
    grads = VAE_METHODS["backward"](model, cache, dloss, out)
    grads["encoder.1.W"][:] = 0
    grads["encoder.1.b"][:] = 0
    return grads


@mistake("VAE.backward", PLAIN)
def bias_of_the_posterior_not_trained(model, cache, dloss=1.0, out=None):
    """The head's bias is left out of the update."""
    grads = VAE_METHODS["backward"](model, cache, dloss, out)
    grads["posterior.b"][:] = 0
    return grads


@mistake("VAE.backward", PLAIN)
def key_missing(model, cache, dloss=1.0, out=None):
    """A parameter that was added later has no gradient at all."""
    grads = VAE_METHODS["backward"](model, cache, dloss, out)
    del grads["likelihood.b"]
    return grads


@mistake("VAE.backward", PLAIN)
def gradients_accumulate(model, cache, dloss=1.0, out=None):
    """Gradients are added up, and nobody zeroes them between two steps."""
    totals = vars(model).setdefault("totals", {name: 0 for name in model.parameters})
    for name, grad in VAE_METHODS["backward"](model, cache, dloss, out).items():
        totals[name] = totals[name] + grad
    return dict(totals)


@mistake("VAE.backward", SAMPLES)
def KL_divided_by_the_samples(model, cache, dloss=1.0, out=None):
    """1/S on everything: but the KL is in closed form and has no samples."""
    nll, kl, beta = cache.bound
    return VAE_METHODS["backward"](model, cache._replace(bound=(nll, kl, beta * len(kl) / nll.size)), dloss, out)


@mistake("mlp_backward", DEEP)
def layers_not_reversed(dh, caches, need_dx=True):
    """Backward visits the layers in the order of forward."""
    dx, grads = mlp_backward(dh, caches[::-1], need_dx)
    return dx, grads[::-1]


@mistake("mlp_backward", SAMPLES)
def first_decoder_layer_passes_nothing_on(dh, caches, need_dx=True):
    """Every stack's first layer saves dx, the decoder's too, and the encoder is left without a gradient."""
    return mlp_backward(dh, caches, need_dx=False)


@mistake("VAE.backward", PLAIN)
def gradients_of_the_model_in_one_buffer(model, cache, dloss=1.0, out=None):
    """The model keeps one gradient vector: the gradients of the step before change under their owner."""
    buffer = vars(model).setdefault("buffer", np.empty_like(model.theta))
    return VAE_METHODS["backward"](model, cache, dloss, buffer)


@mistake("VAE.backward", PLAIN)
def out_ignored(model, cache, dloss=1.0, out=None):
    """The buffer is accepted, and a fresh one is filled."""
    return VAE_METHODS["backward"](model, cache, dloss)


# ------------------------------------------------------------------------------------------------------------- chains


@mistake("transition_backward", *CHAIN)
def log_variance_of_the_divergence_dropped(dz, dlogvar, cache):
    """logvar of q goes through the sample alone, not through log q."""
    return transition_backward(dz, 0 * dlogvar, cache)


@mistake("transition_kl_backward", *CHAIN)
def divergence_of_a_latent_not_through_it(dkl, cache):
    """z_t is a constant in log p(z_t given z_t+1), as if its gradient came from the decoder alone."""
    dz, dlogvar, dprior = transition_kl_backward(dkl, cache)
    return 0 * dz, dlogvar, dprior


@mistake("transition_kl_backward", *CHAIN)
def prior_of_a_latent_not_trained(dkl, cache):
    """The gradient stops at the prior's output, which N(0, I) never had."""
    dz, dlogvar, dprior = transition_kl_backward(dkl, cache)
    return dz, dlogvar, 0 * dprior


@mistake("transition_kl_backward", *CHAIN)
def variance_of_the_prior_not_trained(dkl, cache):
    """Only the mean of p(z_t given z_t+1) is differentiated."""
    dz, dlogvar, dprior = transition_kl_backward(dkl, cache)
    dprior[:, dprior.shape[1] // 2 :] = 0
    return dz, dlogvar, dprior


@mistake("per_sample_backward", *CHAIN)
def samples_averaged_that_share_a_row(dout, cache):
    """mean for sum where S samples share one q."""
    return per_sample_backward(dout, cache) / cache[0]


@mistake("per_sample_backward", CHAIN_IWAE)
def samples_and_rows_exchanged(dout, cache):
    """Rows read as (B, S) where they stand as (S, B); the ELBO, which weighs all samples alike, does not show it."""
    S, B, n = cache
    return dout.reshape(B, S, n).sum(axis=1)


@mistake("ascend_back", *CHAIN)
def upper_latents_pass_nothing_down(ops, dz, dof_q, caches, latent_backward):
    """z_t+1 is drawn from z_t, and the gradient of that way is forgotten: each q is trained as if it stood alone."""
    grads = []
    for t in reversed(range(len(caches))):
        encoder_cache, cache = caches[t]
        backward = latent_backward if t == len(caches) - 1 else chains.transition_backward
        grads = ops.mlp_backward(backward(dz[t], dof_q[t], cache), encoder_cache, need_dx=False)[1] + grads
    return grads


@mistake("descend_back", *CHAIN)
def latent_above_not_reached_by_the_prior(ops, dz_1, dkls, caches):
    """dx of the prior's network is thrown away: z_t+1 gets no gradient for what it predicts."""
    (dz, dof_q), grads = descend_back(ops, dz_1, dkls, caches)
    return (dz[:1] + [0 * part for part in dz[1:]], dof_q), grads


@mistake("descend_back", *CHAIN)
def decoder_overwritten_by_the_divergence(ops, dz_1, dkls, caches):
    """dz = ... where it ought to be dz += ...: what came from the decoder is lost."""
    (dz, dof_q), grads = descend_back(ops, dz_1, dkls, caches)
    return ([dz[0] - dz_1, *dz[1:]], dof_q), grads


@mistake("descend_back", *CHAIN)
def topmost_divergence_counted_twice(ops, dz_1, dkls, caches):
    """Added in the loop over the latents, and once more behind it."""
    (dz, dof_q), grads = descend_back(ops, dz_1, dkls, caches)
    return (dz, [*dof_q[:-1], 2 * dof_q[-1]]), grads


# ---------------------------------------------------------------------------------------------------------- diffusion


@mistake("denoising_backward", *DIFFUSION)
def weight_of_the_step_dropped(dterm, cache):
    """The "simple" loss in backward, the weighted one in forward."""
    missed, squared, weight = cache
    return denoising_backward(dterm, (missed, squared, np.ones_like(weight)))


@mistake("denoising_backward", *DIFFUSION)
def sign_of_the_predicted_noise(dterm, cache):
    """ε̂ − ε differentiated as ε − ε̂."""
    deps_hat, dweight = denoising_backward(dterm, cache)
    return -deps_hat, dweight


@mistake("denoising_backward", *LEARNED_ENDS)
def weight_not_differentiated(dterm, cache):
    """The schedule's ends are learned, and the weight of the step is taken for a constant."""
    deps_hat, dweight = denoising_backward(dterm, cache)
    return deps_hat, 0 * dweight


@mistake("predict_backward", *DATA)
def output_taken_for_the_noise(deps_hat, cache):
    """The network says x̂_0 or the score, and is trained as if it said ε̂."""
    dx_t, _, dgamma = predict_backward(deps_hat, cache)
    return dx_t, deps_hat.copy(), dgamma


@mistake("predict_backward", *LEARNED_ENDS)
def latent_beside_the_network_forgotten(deps_hat, cache):
    """ε̂ = s x_t + k output: x_t reaches it through the network alone."""
    dx_t, doutput, dgamma = predict_backward(deps_hat, cache)
    return 0 * dx_t, doutput, dgamma


@mistake("predict_backward", *LEARNED_ENDS)
def coefficients_not_differentiated(deps_hat, cache):
    """s and k depend on γ, which is learned."""
    dx_t, doutput, dgamma = predict_backward(deps_hat, cache)
    return dx_t, doutput, 0 * dgamma


@mistake("diffuse_backward", *LEARNED_ENDS)
def latent_taken_for_data(dx_t, cache):
    """x_t is made with a and s of a learned γ, and kept for a constant."""
    dx, dgamma = diffuse_backward(dx_t, cache)
    return dx, 0 * dgamma


@mistake("diffuse_backward", *LEARNED_ENDS)
def noise_grows_and_data_too(dx_t, cache):
    """da/dγ with the sign of ds/dγ."""
    x, eps, a, s = cache
    return diffuse_backward(dx_t, (-x, eps, a, s))


@mistake("weight_backward", *LEARNED_ENDS)
def one_end_of_the_step(dw, cache):
    """γ of the level below is taken for a constant."""
    dgamma_s, dgamma_t = weight_backward(dw, cache)
    return 0 * dgamma_s, dgamma_t


@mistake("weight_backward", *LEARNED_ENDS)
def derivative_of_the_exponential_without_its_one(dw, cache):
    """w for w + 1: that of e^x − 1 is e^x."""
    return weight_backward(dw, cache - 1)


@mistake("prior_kl_backward", *LEARNED_ENDS)
def last_latent_costs_nothing(dkl, cache):
    """The prior term has no weights, so it is left out, though γ_T is learned."""
    return 0 * prior_kl_backward(dkl, cache)


@mistake("gaussian_reconstruction_backward", *LEARNED_ENDS)
def reconstruction_has_no_weights(dnll, cache):
    """Nor has the reconstruction, but γ_1 is learned."""
    return 0 * gaussian_reconstruction_backward(dnll, cache)


@mistake("levels_nll_backward", *LEVELS)
def levels_summed_without_their_weights(dnll, cache):
    """The derivative of log Σ e^... without division by the sum."""
    slope, total = cache
    return levels_nll_backward(dnll, (slope, np.ones_like(total)))


@mistake("schedule_backward", *CONTINUOUS)
def slope_of_the_schedule_forgotten(dgamma, dslope, u):
    """In continuous time the weight is dγ/du, which the ends decide as well."""
    return schedule_backward(dgamma, 0 * dslope, u)


@mistake("schedule_backward", *LEARNED_ENDS)
def ends_exchanged(dgamma, dslope, u):
    """u is 0 at the data's end."""
    return schedule_backward(dgamma, dslope, u)[::-1]


@mistake("blocks_input_backward", *LEARNED_ENDS)
def block_of_another_step(dinput, step, n_columns):
    """Rows of the batch are at different steps."""
    return blocks_input_backward(dinput, np.zeros_like(step), n_columns)


@mistake("consistency_backward", *CONSISTENCY)
def consistency_without_the_factor_of_the_noise(dterm, cache):
    """∂m/∂ε̂ is negative: without it the network is driven away from the noise."""
    return -dterm[:, None] * cache


# ------------------------------------------------------------------------------- probability: forward and backward agree


@probability_mistake(*SAMPLER)
def variance_for_standard_deviation():
    """z = mu + e^logvar eps with its right gradient: the sample has variance σ⁴."""

    def backward(dz, cache):
        dmu, dlogvar = reparameterize_backward(dz, cache)
        return dmu, 2 * dlogvar

    return pair("reparameterize", lambda mu, logvar, eps: reparameterize_forward(mu, 2 * logvar, eps), backward)


@probability_mistake("sampler", SAMPLES)
def noise_turned_down():
    """A tenth of the noise, for sharper pictures: z is not a sample of q."""
    return {"reparameterize_forward": lambda mu, logvar, eps: reparameterize_forward(mu, logvar, 0.1 * eps)}


@probability_mistake(*KL)
def KL_of_the_prior_from_the_posterior():
    """KL(p ‖ q) for KL(q ‖ p), with its right gradient."""

    def forward(mu, logvar):
        precision = np.exp(-logvar)
        return 0.5 * ((1 + mu * mu) * precision - 1 + logvar), (mu, precision)

    def backward(dkl, cache):
        mu, precision = cache
        return dkl * mu * precision, dkl * 0.5 * (1 - (1 + mu * mu) * precision)

    return pair("gaussian_kl", forward, backward)


@probability_mistake(*KL)
def KL_without_half_in_both():
    """The ½ is lost in forward and backward alike."""

    def forward(mu, logvar):
        kl, cache = gaussian_kl_forward(mu, logvar)
        return 2 * kl, cache

    return pair("gaussian_kl", forward, lambda dkl, cache: gaussian_kl_backward(2 * dkl, cache))


@probability_mistake(*BERNOULLI)
def half_of_the_cross_entropy():
    """−x log p alone: the zeros of x are not modelled."""

    def forward(logits, x):
        nll, _ = bernoulli_nll_forward(logits, np.ones_like(x))
        return (x * softplus_forward(-logits)[0]).sum(axis=-1, dtype=nll.dtype), (logits, x)

    def backward(dnll, cache):
        logits, x = cache
        return -x * sigmoid_and_complement(logits)[1] * dnll[..., None].astype(logits.dtype)

    return pair("bernoulli_nll", forward, backward)


@probability_mistake(*BERNOULLI)
def nll_averaged_over_pixels():
    """The mean over D in place of the sum, in both: the KL then counts D times too much."""

    def forward(logits, x):
        nll, cache = bernoulli_nll_forward(logits, x)
        return nll / x.shape[-1], cache

    return pair("bernoulli_nll", forward, lambda dnll, cache: bernoulli_nll_backward(dnll, cache) / cache[1].shape[-1])


@probability_mistake(*BERNOULLI, SQUARE)
def softplus_returned_as_a_probability():
    """decode() ends in softplus, which is positive but may exceed 1; the loss never looks at it."""
    return {"bernoulli_mean": lambda logits: softplus_forward(logits)[0]}


@probability_mistake(*GAUSSIAN, SAMPLES)
def gaussian_not_normalised():
    """The squared error alone: log 2πσ² does not depend on the network, so it is left out."""

    def forward(mean, x, variance):
        nll, cache = gaussian_nll_forward(mean, x, variance)
        return nll - 0.5 * x.shape[-1] * np.log(2 * np.pi * variance), cache

    return pair("gaussian_nll", forward, gaussian_nll_backward)


@probability_mistake(*GAUSSIAN, SAMPLES)
def gaussian_without_half():
    """residual²/σ² without its ½, in both."""

    def forward(mean, x, variance):
        nll, cache = gaussian_nll_forward(mean, x, variance / 2)
        return nll + 0.5 * x.shape[-1] * np.log(2), cache  # the constant stays that of σ²

    return pair("gaussian_nll", forward, gaussian_nll_backward)


@probability_mistake(SAMPLES)
def KL_averaged_over_latents_in_both():
    """kl.mean() in loss and gradient: what is called ELBO can exceed log p(x)."""

    def forward(model, x, eps, beta=1.0, *args, **options):
        return VAE_METHODS["forward"](model, x, eps, beta / model.n_latent, *args, **options)

    return {"VAE.forward": forward}


@probability_mistake(*IWAE)
def number_of_samples_not_divided_out():
    """log Σ w for log 1/S Σ w, the forgotten −log S: the bound exceeds log p(x)."""

    def forward(nll, kl, beta):
        loss, cache = iwae_forward(nll, kl, beta)
        return loss - np.log(len(nll)), cache

    return {"iwae_forward": forward}


@probability_mistake(*SAMPLED_KL)
def divergence_of_samples_without_their_noise():
    """The log-density of q without −½ eps²: the mean over samples is not the KL."""

    def forward(z, logvar, eps):
        kl, cache = sampled_kl_forward(z, logvar, eps)
        return kl + 0.5 * eps * eps, cache

    return {"sampled_kl_forward": forward}


@probability_mistake(*CHAIN)
def every_latent_against_the_standard_normal():
    """log q/p of each latent against N(0, I): what is above has no say, and the sum is no bound of the model that samples."""

    def forward(z, logvar, eps, prior):
        return transition_kl_forward(z, logvar, eps, 0 * prior)

    def backward(dkl, cache):
        dz, dlogvar, dprior = transition_kl_backward(dkl, cache)
        return dz, dlogvar, 0 * dprior

    return pair("transition_kl", forward, backward)


@probability_mistake(*CHAIN)
def density_of_q_without_its_noise():
    """log q(z_t) without −½ eps²: constant in the parameters, so that no gradient changes, but not in the weights."""

    def forward(z, logvar, eps, prior):
        kl, cache = transition_kl_forward(z, logvar, eps, prior)
        return kl + 0.5 * eps * eps, cache

    return {"transition_kl_forward": forward}


@probability_mistake(*CHAIN)
def noise_turned_down_between_latents():
    """z_t drawn with 0.9 σ ("looks cleaner"), its density taken with σ."""
    return {"transition_forward": lambda posterior, eps: transition_forward(posterior, 0.9 * eps)}


@probability_mistake(*CHAIN)
def one_noise_for_all_latents():
    """The noise of z_1 is used again above it: its latents are not independent given what is below."""

    def wrong(eps, widths):
        first, *others = noise_of_each(eps, widths)
        rows = first.reshape(1, -1, first.shape[-1])
        return [first, *(np.ascontiguousarray(np.tile(rows, part.shape[-1])[..., : part.shape[-1]]) for part in others)]

    return {"noise_of_each": wrong}


@probability_mistake(*DIFFUSION)
def continuous_weight_for_a_step():
    """γ_t − γ_s for e^(γ_t − γ_s) − 1, with its right gradient: of T → ∞, too small for any T."""
    return pair("weight", lambda gamma_s, gamma_t: (gamma_t - gamma_s, None), lambda dw, cache: (-dw, dw))


@probability_mistake(*DIFFUSION)
def half_of_the_divergence_lost():
    """‖ε − ε̂‖² without ½, with its right gradient."""

    def forward(eps, eps_hat, weight):
        term, cache = denoising_forward(eps, eps_hat, weight)
        return 2 * term, cache

    def backward(dterm, cache):
        return denoising_backward(2 * dterm, cache)

    return pair("denoising", forward, backward)


@probability_mistake(*DIFFUSION)
def variance_for_standard_deviation_of_a_latent():
    """x_t = a² x + s² ε: a² + s² is 1 as well."""

    def forward(x, eps, gamma):
        a, s = diffusion.signal_and_noise(gamma)
        return a * a * x + s * s * eps, (x, eps, a, s)

    return {"diffuse_forward": forward}


@probability_mistake(*LEARNED_ENDS)
def prior_without_its_logarithm():
    """½ Σ a² (x² − 1) alone, with its right gradient: the KL of the means."""

    def forward(x, gamma):
        kl, cache = prior_kl_forward(x, gamma)
        return kl - 0.5 * x.shape[1] * np.log1p(np.exp(-gamma)), cache

    def backward(dkl, cache):
        _, signal, _, n_columns = cache
        return prior_kl_backward(dkl, cache) + 0.5 * dkl * signal * n_columns

    return pair("prior_kl", forward, backward)


@probability_mistake(*LEARNED_ENDS)
def reconstruction_without_the_mean_of_the_square():
    """−log N at its mean: ½ D is lost, a constant."""

    def forward(x, gamma):
        nll, cache = gaussian_reconstruction_forward(x, gamma)
        return nll - 0.5 * x.shape[1], cache

    return {"gaussian_reconstruction_forward": forward}


@probability_mistake(*LEVELS)
def density_of_grey_levels_for_their_probability():
    """A density at the level, not divided by the sum over all levels."""

    def forward(x, eps, gamma):
        _, (slope, total) = levels_nll_forward(x, eps, gamma)
        return 0.5 * (eps * eps + gamma[:, None] + np.log(2 * np.pi)).sum(axis=1), (np.ones_like(slope), np.ones_like(total))

    return {"levels_nll_forward": forward}


@probability_mistake(*CONSISTENCY)
def divergence_of_the_lecture_for_the_consistency_term():
    """The KL of the step from x_s and the step back from x_u, as if x_t and x_u were independent given x_s."""

    def forward(x_s, x_u, eps_hat, gamma_s, gamma_t, gamma_u):
        ratio, v_q = transition(gamma_s, gamma_t)
        mean, v_p, c = diffusion.backward_step(x_u, eps_hat, gamma_t, gamma_u)
        missed = mean - ratio * x_s
        of_variances = x_s.shape[1] * (v_q / v_p - 1 - np.log(v_q / v_p))[:, 0]
        return 0.5 * (of_variances + (missed * missed / v_p).sum(axis=1)), c * missed / v_p

    return {"consistency_forward": forward}


@probability_mistake(*CONSISTENCY)
def step_back_as_wide_as_the_step_forward():
    """The variance 1 − α_t of the step forward for that of the step back."""

    def wrong(x_t, eps_hat, gamma_s, gamma_t):
        ratio, v = transition(gamma_s, gamma_t)
        c = -v / (diffusion.signal_and_noise(gamma_t)[1] * ratio)
        return x_t / ratio + c * eps_hat, v, c

    return {"backward_step": wrong}


def moments_of_samples():
    test_latent.test_samples_have_the_posterior_mean_and_variance(1.5, -2.0)


def KL_by_quadrature():
    test_latent.test_kl_is_the_integral_of_q_log_q_over_p(1.5, -2.0)


def bernoulli_sums_to_1():
    test_likelihood.test_bernoulli_likelihood_sums_to_one("float64")


def bernoulli_mean_by_enumeration():
    test_likelihood.test_bernoulli_mean_is_the_mean_of_the_likelihood()


def gaussian_integrates_to_1():
    test_likelihood.test_gaussian_likelihood_integrates_to_one_over_a_plane(0.3)


def ELBO_of_the_exact_posterior():
    """−loss = log p(x) for the linear Gaussian model. Its nll is quadratic in eps: eps = ±1 is an exact quadrature."""
    model, x, log_p = test_evaluate.linear_gaussian()
    signs = np.array([[-1, -1], [-1, 1], [1, -1], [1, 1]])
    eps = np.repeat(signs[:, None], len(x), axis=1)  # (S, B, L)
    terms, _ = model.forward(x, eps)
    assert abs(-terms.loss - log_p.mean()) < 1e-10


def IWAE_of_the_exact_posterior():
    """−loss = log p(x) of every sample for the linear Gaussian model: all importance weights are p(x)."""
    model, x, log_p = test_evaluate.linear_gaussian()
    for S in (1, 5):
        terms, _ = model.forward(x, np.random.default_rng(0).standard_normal((S, len(x), model.n_latent)), objective="iwae")
        assert abs(-terms.loss - log_p.mean()) < 1e-10


def exact_posterior_of_a_chain():
    test_hierarchical.test_at_the_exact_posterior_every_weight_is_the_closed_form_of_log_p()


def moments_of_a_chain():
    test_hierarchical.test_the_latents_of_a_datum_are_those_of_the_posterior()


def latents_of_a_diffusion():
    test_diffusion_ops.test_the_deterministic_step_keeps_data_and_noise()
    test_diffusion_ops.test_the_step_back_is_bayes_rule()
    test_diffusion.test_the_elbo_of_the_best_linear_denoiser_is_the_closed_form()


def terms_of_a_diffusion():
    test_diffusion_ops.test_a_denoising_term_is_the_divergence_of_two_steps_back()
    test_diffusion_ops.test_prior_terms_are_the_divergences_from_the_standard_normal()
    test_diffusion_ops.test_gaussian_reconstruction_is_the_mean_of_the_density()
    test_diffusion_ops.test_grey_levels_have_probabilities_that_add_up_to_one(-9.0, "float64")


def both_decompositions_of_a_diffusion():
    test_diffusion.test_both_decompositions_have_the_same_mean("linear", "gaussian")


PROBABILITY_CHECKS = {
    "moments of samples": moments_of_samples,
    "KL by quadrature": KL_by_quadrature,
    "Bernoulli sums to 1": bernoulli_sums_to_1,
    "Bernoulli mean": bernoulli_mean_by_enumeration,
    "Gaussian integrates to 1": gaussian_integrates_to_1,
    "ELBO of the exact posterior": ELBO_of_the_exact_posterior,
    "IWAE of the exact posterior": IWAE_of_the_exact_posterior,
    "exact posterior of a chain": exact_posterior_of_a_chain,
    "moments of a chain": moments_of_a_chain,
    "latents of a diffusion": latents_of_a_diffusion,
    "terms of a diffusion": terms_of_a_diffusion,
    "both ELBOs of a diffusion": both_decompositions_of_a_diffusion,
}


# --------------------------------------------------------------------------------------------------- who catches what


@contextmanager
def patched(wrong):
    """Put wrong functions, name -> function, wherever the package holds the right ones; put those back at the end."""
    with ExitStack() as stack:
        for name, function in wrong.items():
            if name.startswith("VAE."):
                stack.enter_context(mock.patch.object(VAE, name.removeprefix("VAE."), function))
            for module in MODULES:
                if name in vars(module):
                    stack.enter_context(mock.patch.object(module, name, function))
        activations = {key: tuple(wrong.get(f.__name__, f) for f in pair) for key, pair in layers.ACTIVATIONS.items()}
        stack.enter_context(mock.patch.dict(layers.ACTIVATIONS, activations))
        yield


@functools.cache
def right_model_cases():
    """Those before which mistakes are put: built, and trained, by the right code."""
    before = tuple({prefix for m in MISTAKES + PROBABILITY_MISTAKES for prefix in m.put_before})
    examples = [example for kind in models.classes().values() for example in kind.examples("numpy")]
    asked = [e for e in examples if e.name.startswith(before) or any(prefix.startswith(e.name) for prefix in before)]
    return [case for example in asked for case in cases.cases_of(example)]


def cases_of(prefixes):
    """The cases whose names begin with one of the prefixes, made of the functions that are in place now."""
    pairs = [p for p in cases.op_pairs() + cases.composite_pairs("numpy") if p.name.startswith(prefixes)]
    return pairs + [copied(case) for case in right_model_cases() if case.name.startswith(prefixes)]


def copied(case):
    """A model's case in memory of its own: what a mistake writes into it does not reach the next one."""
    batch, noise, others = (run.of_arrays(np.copy, value) for value in (case.batch, case.noise, case.others))
    return case._replace(model=case.model.copy(), batch=batch, noise=noise, others=others)


def failed_gradient_checks(wrong, prefixes):
    """The names in GRADIENT_COLUMNS of the checks that fail on the cases while `wrong` is in place."""
    right_model_cases()  # before anything is wrong
    failed = set()
    with patched(wrong), np.errstate(all="ignore"):
        for case in cases_of(prefixes):
            try:
                failed |= {outcome.check for outcome in run.run(case) if not outcome.report.passed}
            except Exception:  # whatever the mistake makes of it
                failed.add(RAISES)
    return failed


def failed_probability_checks(wrong):
    """The names of the PROBABILITY_CHECKS that fail while `wrong` is in place."""
    failed = set()
    with patched(wrong), np.errstate(all="ignore"):
        for name, check in PROBABILITY_CHECKS.items():
            try:
                check()
            except AssertionError:
                failed.add(name)
    return failed


def kill_matrix():
    """Who catches what: mistake -> failed checks, of MISTAKES, and of PROBABILITY_MISTAKES by either kind of check."""
    gradient = {m.name: failed_gradient_checks(m.build(), m.put_before) for m in MISTAKES + PROBABILITY_MISTAKES}
    probability = {m.name: failed_probability_checks(m.build()) for m in PROBABILITY_MISTAKES}
    return gradient, probability


def false_alarms():
    """The failed checks of the right code, on every case that a mistake was put before."""
    prefixes = {prefix for m in MISTAKES + PROBABILITY_MISTAKES for prefix in m.put_before}
    return failed_gradient_checks({}, tuple(prefixes)) | failed_probability_checks({})


# -------------------------------------------------------------------------------------------------------- as Markdown


def summary(gradient, probability, alarms):
    """The result in one sentence."""
    caught = sum(bool(gradient[m.name]) for m in MISTAKES)
    unseen = sum(not gradient[m.name] and bool(probability[m.name]) for m in PROBABILITY_MISTAKES)
    return (
        f"Wrong gradients caught: {caught} of {len(MISTAKES)} ({100 * caught / len(MISTAKES):.3g} %). Wrong probabilities that "
        f"no gradient check sees, caught by a test of the probability: {unseen} of {len(PROBABILITY_MISTAKES)} "
        f"({100 * unseen / len(PROBABILITY_MISTAKES):.3g} %). False alarms on the right code: {len(alarms)}."
    )


def as_markdown(gradient, probability, alarms):
    """The kill matrix as the text of tests/support/kill_matrix.md."""
    lines = [
        "# Who catches what",
        "",
        "Written by `python tests/support/mistakes.py`. ● where a check fails on the mistake, as it should. Each mistake is",
        "put before the cases of `npvae.checking.cases` whose names begin as given. *raises*: a check ends in an error, mostly",
        "of shapes.",
        "",
        summary(gradient, probability, alarms),
        "",
        "## Wrong gradients",
        "",
        *table(MISTAKES, gradient, GRADIENT_COLUMNS),
        "",
        "## Wrong probabilities, right gradients",
        "",
        *table(PROBABILITY_MISTAKES, probability, PROBABILITY_CHECKS),
    ]
    return "\n".join(lines) + "\n"


def table(mistakes, failed, columns):
    """A row per mistake, then how many each check catches, and how many it alone catches."""
    rows = [["mistake", "how it is made", "put before", *columns, "caught by"]]
    rows.append(["---"] * 3 + [":-:"] * len(columns) + ["--:"])
    for m in mistakes:
        marks = ["●" if column in failed[m.name] else "" for column in columns]
        rows.append([m.name, m.how, "; ".join(m.put_before), *marks, str(len(failed[m.name]))])
    sets = [failed[m.name] for m in mistakes]
    rows.append(["**caught**", "", "", *(str(sum(c in s for s in sets)) for c in columns), str(sum(map(bool, sets)))])
    rows.append(["**caught by it alone**", "", "", *(str(sum(s == {c} for s in sets)) for c in columns), ""])
    return [f"| {' | '.join(row)} |" for row in rows]


if __name__ == "__main__":
    print(as_markdown(*kill_matrix(), false_alarms()), end="")
