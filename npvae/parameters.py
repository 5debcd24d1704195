"""The layout of the flat parameter vector: names, shapes, views, initial values."""

import math

import numpy as np

from npvae import checks

DTYPES = ("float32", "float64", "complex128")


def check_dtype(dtype):
    """`dtype` (a name or a NumPy dtype) as one of the three that a model can have, else ValueError."""
    try:
        name = np.dtype(dtype).name
    except TypeError:
        name = dtype
    checks.choice("dtype", name, DTYPES)
    return np.dtype(name)


def shapes_of(n_features, hidden, n_latent, decoder_hidden):
    """Names and shapes of the parameters, in the order of theta: W (n_in, n_out) and b (n_out,) of every layer."""
    encoder = [*(f"encoder.{i}" for i in range(len(hidden))), "posterior"]
    decoder = [*(f"decoder.{i}" for i in range(len(decoder_hidden))), "likelihood"]
    widths_in = [n_features, *hidden, n_latent, *decoder_hidden]
    widths_out = [*hidden, 2 * n_latent, *decoder_hidden, n_features]
    shapes = {}
    for name, n_in, n_out in zip(encoder + decoder, widths_in, widths_out):
        shapes[f"{name}.W"], shapes[f"{name}.b"] = (n_in, n_out), (n_out,)
    return shapes


def size_of(shapes):
    """How many numbers the parameters are."""
    return sum(math.prod(shape) for shape in shapes.values())


def views_of(flat, shapes):
    """A dict of views into a flat vector, one per name, in order."""
    views, start = {}, 0
    for name, shape in shapes.items():
        stop = start + math.prod(shape)
        views[name] = flat[start:stop].reshape(shape)
        start = stop
    return views


def zeros(shape, dtype, place=0):
    """Zeros whose first element lies on a cache line, at a quarter of a memory page of its own for each `place` 0 to 3.

    Vectors that are read side by side, as an optimiser does, want both: a processor's vector loads cross no cache line, and
    it does not mistake equal places in a page for the same memory. 3 % of a step; no result depends on it.
    """
    page, dtype = 4096, np.dtype(dtype)
    n_bytes = math.prod(shape) * dtype.itemsize
    memory = np.zeros(n_bytes + 2 * page, np.uint8)
    start = -memory.ctypes.data % page + place * page // 4
    return memory[start : start + n_bytes].view(dtype).reshape(shape)


def glorot_uniform(parameters, rng):
    """Set every W to U(−a, a) with a = √(6/(n_in + n_out)) and leave each b as it is. Glorot & Bengio 2010, equation 16."""
    for value in parameters.values():
        if value.ndim == 2:
            bound = math.sqrt(6 / sum(value.shape))
            value[:] = rng.uniform(-bound, bound, value.shape)


def he_normal(parameters, rng):
    """Set every W to N(0, 2/n_in), made for rectifiers, and leave each b as it is. He et al. 2015, equation 10."""
    for value in parameters.values():
        if value.ndim == 2:
            value[:] = math.sqrt(2 / len(value)) * rng.standard_normal(value.shape)


INITIALIZATIONS = {"glorot": glorot_uniform, "he": he_normal}
