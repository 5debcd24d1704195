"""The table of composite ops that a model and its optimiser call: one table per back end, same names and signatures.

`NUMPY` holds the compositions to be read in `layers`, `latent`, `likelihood` and `optim`. A compiled table replaces those
ops that a kernel computes faster and keeps the rest.
"""

from collections.abc import Callable
from typing import NamedTuple

from npvae import latent, layers, likelihood, optim


class Ops(NamedTuple):
    """The composite ops. Where one is defined, there is its docstring."""

    dense_forward: Callable
    dense_backward: Callable
    latent_forward: Callable
    latent_backward: Callable
    latent_sampled_forward: Callable
    latent_sampled_backward: Callable
    bernoulli_nll_forward: Callable
    bernoulli_nll_backward: Callable
    gaussian_nll_forward: Callable
    gaussian_nll_backward: Callable
    binarize: Callable
    sgd_step: Callable
    momentum_step: Callable
    adagrad_step: Callable
    rmsprop_step: Callable
    adam_step: Callable
    gradient: Callable | None = None  # forward and backward of the whole model in one call, where the back end has one
    workspace: Callable | None = None  # the buffers of such a call


NUMPY = Ops(
    dense_forward=layers.dense_forward,
    dense_backward=layers.dense_backward,
    latent_forward=latent.latent_forward,
    latent_backward=latent.latent_backward,
    latent_sampled_forward=latent.latent_sampled_forward,
    latent_sampled_backward=latent.latent_sampled_backward,
    bernoulli_nll_forward=likelihood.bernoulli_nll_forward,
    bernoulli_nll_backward=likelihood.bernoulli_nll_backward,
    gaussian_nll_forward=likelihood.gaussian_nll_forward,
    gaussian_nll_backward=likelihood.gaussian_nll_backward,
    binarize=likelihood.binarize,
    sgd_step=optim.sgd_step,
    momentum_step=optim.momentum_step,
    adagrad_step=optim.adagrad_step,
    rmsprop_step=optim.rmsprop_step,
    adam_step=optim.adam_step,
)

BACKENDS = ("numba", "numpy")


def load_ops(backend):
    """The table of the back end "numpy" or "numba"; Numba is imported only when it is asked for."""
    if backend == "numpy":
        return NUMPY
    from npvae.kernels import NUMBA

    return NUMBA
