"""A model of somebody's own, for `npvae train --model FILE.py`: what training needs, an option, an example, and sample."""

from typing import NamedTuple

import numpy as np

from npvae.core import options
from npvae.core.options import Option
from npvae.core.parameters import Parameters, Theta, views_of
from npvae.models import saved
from npvae.models.protocol import Example


class Terms(NamedTuple):
    loss: float  # −log p(x)


class MeanField:
    """Independent pixels: log p(x) = Σ_d x_d l_d − log(1 + e^l_d), with a logit l_d for each."""

    theta, Terms, data_kind = Theta(), Terms, "binary"
    options = (Option("first_logit", 0.0, "where each logit starts, 50 % is 0", options.number(-9)),)

    def __init__(self, n_features, seed=0, first_logit=0.0, dtype="float32"):
        self.n_features, self.dtype = n_features, np.dtype(dtype)
        self.config = {"n_features": n_features, "seed": seed, "first_logit": first_logit, "dtype": self.dtype.name}
        self.parameters, self.buffers = Parameters({"logits": (n_features,)}, self.dtype), {}
        self.theta = first_logit

    copy = saved.copied

    @classmethod
    def examples(cls, backend):
        yield Example(f"{backend} mean field", cls(5, dtype="float64"), (np.eye(6, 5),), {})

    def check(self, x):
        return (np.asarray(x, self.dtype),)

    def draw(self, rng, x):
        return None

    def forward(self, x, noise=None):
        logits = self.theta
        return Terms((np.log1p(np.exp(logits)) - x * logits).sum(axis=1).mean().item()), x

    def backward(self, cache, dloss=1.0, out=None):
        grads = views_of(np.empty_like(self.theta) if out is None else out, self.parameters.shapes)
        grads["logits"][:] = dloss * (1 / (1 + np.exp(-self.theta)) - cache.mean(axis=0))
        return grads

    def sample(self, n, rng=None):
        return (np.random.default_rng(rng).random((n, self.n_features)) < 1 / (1 + np.exp(-self.theta))).astype(float)
