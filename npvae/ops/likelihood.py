"""The likelihood p(x|z): negative log-likelihoods of the decoder's output, and its mean E[x|z].

Sums over the data dimensions are accumulated in float64 whatever the dtype. See `npvae.ops.layers` for how to read a pair.

Shapes: B batch, D data; the decoder's output may carry a leading axis of S samples per datum, (S, B, D), over the same x.
"""

import numpy as np

from npvae.core.numerics import accumulator
from npvae.ops.layers import sigmoid_and_complement


def bernoulli_nll_forward(logits, x):
    """−log p(x|z) for independent Bernoulli variables with success probability σ(logits), in nats.

    logits (..., B, D), x (B, D) in [0, 1] -> nll (..., B). With l = logits, p = σ(l) and 1 − p = σ(−l),
        −x log p − (1 − x) log(1 − p) = x log(1 + e^−l) + (1 − x) log(1 + e^l) = log(1 + e^l) − x l,
    written max(l, 0) − x l + log1p(e^−|l|), which never overflows and keeps its digits when p is 0 or 1.
    Kingma & Welling 2013, appendix C.1.

    With (log(1 + e^l))' = σ(l) and 1 = σ(l) + σ(−l),
        (BERNOULLI-logits)  dlogits = dnll (σ(l) − x) = dnll ((1 − x) σ(l) − x σ(−l)),
    where the second form does not cancel when σ(l) is within rounding of x.
    """
    positive = logits.real > 0
    per_pixel = np.where(positive, logits, 0) - logits * x + np.log1p(np.exp(np.where(positive, -logits, logits)))
    nll = per_pixel.sum(axis=-1, dtype=accumulator(logits))  # (..., B, D) -> (..., B)
    return nll, (logits, x)


def bernoulli_nll_backward(dnll, cache):
    """Backward of the Bernoulli nll: dnll (..., B) -> dlogits (..., B, D)."""
    logits, x = cache
    p, one_minus_p = sigmoid_and_complement(logits)
    dlogits = (1 - x) * p - x * one_minus_p  # (BERNOULLI-logits)
    return dlogits * dnll[..., None].astype(logits.dtype)  # (..., B, D) * (..., B, 1)


def gaussian_nll_forward(mean, x, variance):
    """−log p(x|z) for p(x|z) = N(x; mean, σ² I) with fixed variance σ², in nats.

    mean (..., B, D), x (B, D), variance a number -> nll (..., B) = Σ_d ½ ((x − mean)²/σ² + log 2πσ²).
    Lectures (2025), "VAEs versus autoencoders".

        (GAUSSIAN-mean)  dmean = dnll ∂/∂mean ½ (x − mean)²/σ² = dnll (mean − x)/σ²
    """
    residual = mean - x  # (..., B, D)
    constant = 0.5 * x.shape[-1] * np.log(2 * np.pi * variance)
    nll = (residual * residual).sum(axis=-1, dtype=accumulator(mean)) / (2 * variance) + constant  # -> (..., B)
    return nll, (residual, variance)


def gaussian_nll_backward(dnll, cache):
    """Backward of the Gaussian nll: dnll (..., B) -> dmean (..., B, D)."""
    residual, variance = cache
    return residual * (dnll / variance)[..., None].astype(residual.dtype)  # (GAUSSIAN-mean)


def bernoulli_mean(logits):
    """E[x|z] = σ(logits): the probability of a one, any shape. (The Gaussian's E[x|z] is the decoder's output itself.)"""
    return sigmoid_and_complement(logits)[0]
