"""Mistakes in p(x|z)."""

import numpy as np

from npvae.ops.layers import sigmoid_and_complement, softplus_forward
from npvae.ops.likelihood import (
    bernoulli_nll_backward,
    bernoulli_nll_forward,
    gaussian_nll_backward,
    gaussian_nll_forward,
)
from wrong_code import SAMPLES, SQUARE, mistake, pair, probability_mistake

BERNOULLI = ("Bernoulli nll",)
GAUSSIAN = ("Gaussian nll",)


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


# ------------------------------------------------------------------------------- probability: forward and backward agree


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
