"""Caches and buffers that two calls share, and noise that nobody sees."""

import numpy as np

from npvae.ops.latent import reparameterize_backward, reparameterize_forward
from npvae.ops.layers import relu_backward, relu_forward, tanh_backward, tanh_forward
from wrong_code import SAMPLER, SAMPLES, SQUARE, mistake, mistake_in_pair

GRADIENT_BUFFERS = {}


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
