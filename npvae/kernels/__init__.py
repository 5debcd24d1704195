"""Compiled twins of the NumPy ops, and the table `NUMBA` that puts them in place; the Ising kernel lives here too.

What has no twin here stays NumPy's: the simple optimisers, of a few passes each.
"""

from npvae.backend import NUMPY
from npvae.kernels.latent import latent_backward, latent_forward
from npvae.kernels.layers import dense_backward, dense_forward
from npvae.kernels.likelihood import (
    bernoulli_nll_backward,
    bernoulli_nll_forward,
    binarize,
    gaussian_nll_backward,
    gaussian_nll_forward,
)
from npvae.kernels.optim import adam_step
from npvae.kernels.vae import gradient, workspace

NUMBA = NUMPY._replace(
    dense_forward=dense_forward,
    dense_backward=dense_backward,
    latent_forward=latent_forward,
    latent_backward=latent_backward,
    bernoulli_nll_forward=bernoulli_nll_forward,
    bernoulli_nll_backward=bernoulli_nll_backward,
    gaussian_nll_forward=gaussian_nll_forward,
    gaussian_nll_backward=gaussian_nll_backward,
    binarize=binarize,
    adam_step=adam_step,
    gradient=gradient,
    workspace=workspace,
)
