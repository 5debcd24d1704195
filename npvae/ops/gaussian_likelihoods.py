"""Gaussian likelihoods whose variances are learned: one σ² for all of the data, or one for each pixel from the decoder.

With a fixed σ² it is `npvae.ops.likelihood.gaussian_nll_forward`. Sums over the data dimensions are accumulated in float64
whatever the dtype. See `npvae.ops.layers` for how to read a pair.

Shapes: B batch, D data; the decoder's output may carry a leading axis of S samples per datum over the same x (B, D).
"""

import math

import numpy as np

from npvae.core.numerics import accumulator
from npvae.ops.latent import LOGVAR_MAX

MIN_LOGVAR = -2 * math.log(255)  # the floor of a learned log-variance, see `bounded_logvar`


def bounded_logvar(raw, min_logvar):
    """Clip a raw log-variance to [min_logvar, 20]: the values, and which of them were inside. Beyond the bounds the slope is 0.

    Why there is a floor: −log p(x|z) has the term ½ logvar and so no lower bound. A pixel that never varies is predicted
    exactly, and then every step of logvar downwards makes the loss smaller. MIN_LOGVAR is σ = 1/255, one grey level of data in
    [0, 1], which hold no smaller difference. For other data give 2 log of their resolution.
    """
    above, below = raw.real > LOGVAR_MAX, raw.real < min_logvar
    return np.where(above, LOGVAR_MAX, np.where(below, min_logvar, raw)), ~(above | below)


def gaussian_parameters(output, min_logvar=MIN_LOGVAR):
    """The decoder's output (..., B, 2D) as mean, its first D columns, and bounded logvar, its last D; and which were inside."""
    n_features = output.shape[-1] // 2
    mean, raw = output[..., :n_features], output[..., n_features:]  # (..., B, 2D) -> (..., B, D), (..., B, D)
    logvar, inside = bounded_logvar(raw, min_logvar)
    return (mean, logvar), inside


def gaussian_learned_nll_forward(output, x, min_logvar=MIN_LOGVAR):
    """−log p(x|z) for p(x|z) = N(x; mean(z), diag(σ²(z))), both from the decoder, in nats. The support is all real x.

    output (..., B, 2D) (see `gaussian_parameters`), x (B, D) -> nll (..., B). With r = mean − x and v = log σ²,

        nll = Σ_d ½ (r² e^−v + v + log 2π)

    Lamacraft, "Parameterization", with diagonal Σ′(z); Kingma & Welling 2013, appendix C.2. Term by term,
        (GAUSSIAN-learned-mean)    dmean   = dnll r e^−v
        (GAUSSIAN-learned-logvar)  dlogvar = dnll ½ (1 − r² e^−v), and 0 beyond the bounds
    The latter is 0 at σ² = r²: the variance follows the squared residual.
    """
    (mean, logvar), inside = gaussian_parameters(output, min_logvar)
    residual, precision = mean - x, np.exp(-logvar)  # (..., B, D)
    per_pixel = residual * residual * precision + logvar
    constant = 0.5 * x.shape[-1] * np.log(2 * np.pi)
    nll = 0.5 * per_pixel.sum(axis=-1, dtype=accumulator(per_pixel)) + constant  # (..., B, D) -> (..., B)
    return nll, (residual, precision, inside)


def gaussian_learned_nll_backward(dnll, cache):
    """Backward of the Gaussian nll with learned variances: dnll (..., B) -> doutput (..., B, 2D)."""
    residual, precision, inside = cache
    dnll = dnll[..., None].astype(residual.dtype)  # (..., B, 1)
    scaled = residual * precision
    dmean = dnll * scaled  # (GAUSSIAN-learned-mean)
    dlogvar = np.where(inside, dnll * (0.5 * (1 - residual * scaled)), 0)  # (GAUSSIAN-learned-logvar)
    return np.concatenate([dmean, dlogvar], axis=-1)  # (..., B, D), (..., B, D) -> (..., B, 2D)


def gaussian_global_nll_forward(mean, logvar, x, min_logvar=MIN_LOGVAR):
    """−log p(x|z) for p(x|z) = N(x; mean(z), σ² I), where logvar = log σ² is one parameter of the model, in nats.

    mean (..., B, D), logvar (1,), x (B, D) -> nll (..., B). With r = mean − x and v = logvar, bounded as above, it is
    ½ (Σ_d r_d² e^−v + D (v + log 2π)). All rows share v:
        (GAUSSIAN-global-mean)    dmean   = dnll r e^−v
        (GAUSSIAN-global-logvar)  dlogvar = Σ_rows dnll ½ (D − Σ_d r_d² e^−v), and 0 beyond the bounds
    """
    bounded, inside = bounded_logvar(logvar, min_logvar)
    bounded = bounded.astype(accumulator(bounded))  # (1,)
    residual, precision = mean - x, np.exp(-bounded)  # (..., B, D), (1,)
    squares = (residual * residual).sum(axis=-1, dtype=accumulator(residual))  # (..., B, D) -> (..., B)
    nll = 0.5 * (squares * precision + x.shape[-1] * (bounded + np.log(2 * np.pi)))
    return nll, (residual, precision, squares, inside, logvar.dtype)


def gaussian_global_nll_backward(dnll, cache):
    """Backward of the Gaussian nll with one learned variance: dnll (..., B) -> dmean (..., B, D), dlogvar (1,)."""
    residual, precision, squares, inside, dtype = cache
    dmean = residual * (dnll * precision)[..., None].astype(residual.dtype)  # (GAUSSIAN-global-mean)
    slope = 0.5 * (residual.shape[-1] - squares * precision)  # (..., B)
    dlogvar = np.where(inside, (dnll * slope).sum(), 0).astype(dtype)  # (GAUSSIAN-global-logvar) (..., B) -> (1,)
    return dmean, dlogvar


def optimal_variance(mean, x):
    """The σ² of `gaussian_global_nll_forward` at which the mean nll over these rows is smallest: the mean squared residual.

    mean (..., B, D), x (B, D) -> a number. (GAUSSIAN-global-logvar) with equal dnll is 0 where e^v = Σ r²/(number of entries).
    Rybkin, Daniilidis & Levine 2021 put it into the loss in place of a trained parameter.
    """
    residual = mean - x
    return (residual * residual).mean(dtype=accumulator(residual))


def gaussian_sample(mean, logvar, noise):
    """A draw of x ~ N(mean, e^logvar) from standard normal noise of mean's shape; logvar of that shape, or (1,)."""
    return mean + np.exp(0.5 * logvar) * noise
