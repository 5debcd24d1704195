"""Binarisation: zeros and ones drawn from grey levels."""

import numpy as np


def binarize(grey, index, noise, scale, x):
    """Draw zeros and ones with grey levels as probabilities, P(x = 1) = scale · grey, to 2⁻¹⁶.

    grey (n, D) of any type with scale · grey in [0, 1]; index (B,) of the rows to draw; noise (B, D) uniform 16-bit integers;
    x (B, D) is overwritten and returned. Afresh for every minibatch this is dynamic binarisation, Salakhutdinov & Murray 2008.
    """
    return np.less(noise, grey[index] * np.float32(scale * 2**16), out=x)
