"""The likelihoods p(x|z) by name: for each, its ops, and what else a model has to know of it.

The mathematics is in `npvae.ops` (likelihood, gaussian_likelihoods, discrete). A model keeps one object of these classes:

    columns       of the decoder's output for each data dimension
    data_kind     of x: "binary", "real" or "levels" (`npvae.models.protocol`)
    shapes        name -> shape of parameters that the likelihood has beside the decoder's output
    forward       output (..., B, columns D), x (B, D) -> nll (..., B) in nats, and the cache
    backward      dnll (..., B) -> doutput, and the gradients of its own parameters, a tuple in the order of `shapes`
    mean          E[x|z] of the output: (..., columns D) -> (..., D)
    draw          x ~ p(x|z) of the output, in the units of x: (..., D)
    bias          parameters at which the output is what is best for rows x (n, D) where z says nothing
    logvar        where variances are learned: their bounded logarithms
    number        what its compiled twin takes beside output and x: a variance, a bound, or 0 for nothing

`ops` is the table of the model's back end, `parameters` the model's dict.
"""

import math

import numpy as np

from npvae.core.levels import LEVELS, levels_of
from npvae.ops import discrete
from npvae.ops.gaussian_likelihoods import bounded_logvar, gaussian_parameters, gaussian_sample, optimal_variance
from npvae.ops.likelihood import bernoulli_mean

SMALLEST_SIGMA = 1 / 255  # one grey level of data in [0, 1]: e^(MIN_LOGVAR/2)
LOGVAR = "likelihood.logvar"  # the parameter of `GaussianGlobal`


class Bernoulli:
    """x in [0, 1], of zeros and ones: the output is the logit of a one. `ops.bernoulli_nll_forward`."""

    columns, data_kind, shapes, number = 1, "binary", {}, 0.0

    def forward(self, ops, output, x, parameters):
        return ops.bernoulli_nll_forward(output, x)

    def backward(self, ops, dnll, cache):
        return ops.bernoulli_nll_backward(dnll, cache), ()

    def mean(self, output):
        return bernoulli_mean(output)

    def draw(self, output, rng, parameters):
        return (rng.random(output.shape) < bernoulli_mean(output)).astype(output.dtype)

    def bias(self, x):
        """The logit of (k + 1)/(n + 2), k the sum over the n rows: Laplace's rule, finite where a pixel is always black."""
        mean, n = x.mean(axis=0, dtype=np.float64), len(x)  # (D,)
        return {"likelihood.b": np.log((n * mean + 1) / (n * (1 - mean) + 1))}


class Gaussian:
    """Real x, whose standard deviation sigma is given: the output is the mean. `ops.gaussian_nll_forward`."""

    columns, data_kind, shapes = 1, "real", {}

    def __init__(self, sigma):
        self.sigma, self.number = sigma, sigma**2

    def forward(self, ops, output, x, parameters):
        return ops.gaussian_nll_forward(output, x, self.sigma**2)

    def backward(self, ops, dnll, cache):
        return ops.gaussian_nll_backward(dnll, cache), ()

    def mean(self, output):
        return output

    def draw(self, output, rng, parameters):
        return output + self.sigma * rng.standard_normal(output.shape, output.dtype)

    def bias(self, x):
        return {"likelihood.b": x.mean(axis=0, dtype=np.float64)}


class GaussianGlobal:
    """Real x, with one learned variance for all of it, the parameter likelihood.logvar. `ops.gaussian_global_nll_forward`."""

    columns, data_kind, shapes, number = 1, "real", {LOGVAR: (1,)}, 0.0

    def __init__(self, min_sigma):
        self.min_logvar = 2 * math.log(min_sigma)

    def forward(self, ops, output, x, parameters):
        return ops.gaussian_global_nll_forward(output, parameters[LOGVAR], x, self.min_logvar)

    def backward(self, ops, dnll, cache):
        doutput, dlogvar = ops.gaussian_global_nll_backward(dnll, cache)
        return doutput, (dlogvar,)

    def mean(self, output):
        return output

    def draw(self, output, rng, parameters):
        return gaussian_sample(output, self.logvar(output, parameters), rng.standard_normal(output.shape, output.dtype))

    def logvar(self, output, parameters):
        """log σ², (1,), not below its floor."""
        return bounded_logvar(parameters[LOGVAR], self.min_logvar)[0]

    def bias(self, x):
        mean = x.mean(axis=0, dtype=np.float64)
        return {"likelihood.b": mean, LOGVAR: np.log(max(optimal_variance(mean, x), math.exp(self.min_logvar)))}


class GaussianLearned:
    """Real x, with a variance for each dimension from the decoder: D means, then D log-variances.
    `ops.gaussian_learned_nll_forward`."""

    columns, data_kind, shapes = 2, "real", {}

    def __init__(self, min_sigma):
        self.min_logvar = self.number = 2 * math.log(min_sigma)

    def forward(self, ops, output, x, parameters):
        return ops.gaussian_learned_nll_forward(output, x, self.min_logvar)

    def backward(self, ops, dnll, cache):
        return ops.gaussian_learned_nll_backward(dnll, cache), ()

    def mean(self, output):
        return output[..., : output.shape[-1] // 2]

    def draw(self, output, rng, parameters):
        mean = self.mean(output)
        return gaussian_sample(mean, self.logvar(output, parameters), rng.standard_normal(mean.shape, mean.dtype))

    def logvar(self, output, parameters):
        """log σ² of each dimension, (..., D), not below its floor."""
        (_, logvar), _ = gaussian_parameters(output, self.min_logvar)
        return logvar

    def bias(self, x):
        variance = np.maximum(x.var(axis=0, dtype=np.float64), math.exp(self.min_logvar))
        return {"likelihood.b": np.concatenate([x.mean(axis=0, dtype=np.float64), np.log(variance)])}


class Categorical:
    """x of 256 grey levels, level/255: the output has 256 logits for each dimension. `ops.categorical_nll_forward`."""

    columns, data_kind, shapes, number = LEVELS, "levels", {}, 0.0

    def forward(self, ops, output, x, parameters):
        return ops.categorical_nll_forward(output, levels_of(x))

    def backward(self, ops, dnll, cache):
        return ops.categorical_nll_backward(dnll, cache), ()

    def mean(self, output):
        return discrete.categorical_mean(output, LEVELS) / (LEVELS - 1)

    def draw(self, output, rng, parameters):
        uniform = rng.random((*output.shape[:-1], output.shape[-1] // LEVELS))
        return discrete.categorical_sample(output, uniform) / (LEVELS - 1)

    def bias(self, x):
        """The logarithms of how often each level occurs among the rows, plus one (Laplace's rule)."""
        levels = levels_of(x).astype(np.intp)  # (n, D)
        counts = np.stack([np.bincount(column, minlength=LEVELS) for column in levels.T])  # (D, 256)
        return {"likelihood.b": np.log((counts + 1) / (len(x) + LEVELS)).ravel()}


class BetaBinomial:
    """x of 256 grey levels, level/255: D columns of log alpha, then D of log beta. `ops.beta_binomial_nll_forward`."""

    columns, data_kind, shapes, number = 2, "levels", {}, 0.0

    def forward(self, ops, output, x, parameters):
        return ops.beta_binomial_nll_forward(output, levels_of(x), LEVELS - 1)

    def backward(self, ops, dnll, cache):
        return ops.beta_binomial_nll_backward(dnll, cache), ()

    def mean(self, output):
        return discrete.beta_binomial_mean(output, LEVELS - 1) / (LEVELS - 1)

    def draw(self, output, rng, parameters):
        uniform = rng.random((*output.shape[:-1], output.shape[-1] // 2))
        return discrete.beta_binomial_sample(output, uniform, LEVELS - 1) / (LEVELS - 1)

    def bias(self, x):
        """log alpha and log beta of the beta-binomial with the rows' mean and variance."""
        levels = levels_of(x)
        moments = levels.mean(axis=0, dtype=np.float64), levels.var(axis=0, dtype=np.float64)
        return {"likelihood.b": np.concatenate(discrete.beta_binomial_from_moments(*moments, LEVELS - 1))}


LIKELIHOODS = ("bernoulli", "gaussian", "gaussian_global", "gaussian_learned", "categorical", "beta_binomial")


def likelihood_called(name, sigma=0.1, min_sigma=SMALLEST_SIGMA):
    """The likelihood of this name; sigma is the standard deviation of "gaussian", min_sigma the floor of learned ones."""
    return {
        "bernoulli": Bernoulli,
        "gaussian": lambda: Gaussian(sigma),
        "gaussian_global": lambda: GaussianGlobal(min_sigma),
        "gaussian_learned": lambda: GaussianLearned(min_sigma),
        "categorical": Categorical,
        "beta_binomial": BetaBinomial,
    }[name]()
