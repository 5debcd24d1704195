"""Compiled twins of the NumPy ops, and the table `NUMBA` that puts them in place; the Ising kernel lives here too."""

from npvae.backend import Ops
from npvae.kernels.latent import latent_backward, latent_forward, latent_sampled_backward, latent_sampled_forward
from npvae.kernels.layers import dense_backward, dense_forward
from npvae.kernels.likelihood import (
    bernoulli_nll_backward,
    bernoulli_nll_forward,
    binarize,
    gaussian_nll_backward,
    gaussian_nll_forward,
)
from npvae.kernels.optim import adagrad_step, adam_step, momentum_step, rmsprop_step, sgd_step
from npvae.kernels.vae import gradient, workspace

NUMBA = Ops(
    dense_forward=dense_forward,
    dense_backward=dense_backward,
    latent_forward=latent_forward,
    latent_backward=latent_backward,
    latent_sampled_forward=latent_sampled_forward,
    latent_sampled_backward=latent_sampled_backward,
    bernoulli_nll_forward=bernoulli_nll_forward,
    bernoulli_nll_backward=bernoulli_nll_backward,
    gaussian_nll_forward=gaussian_nll_forward,
    gaussian_nll_backward=gaussian_nll_backward,
    binarize=binarize,
    sgd_step=sgd_step,
    momentum_step=momentum_step,
    adagrad_step=adagrad_step,
    rmsprop_step=rmsprop_step,
    adam_step=adam_step,
    gradient=gradient,
    workspace=workspace,
)
