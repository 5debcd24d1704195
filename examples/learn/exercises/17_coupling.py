"""Exercise 17: a layer of a normalizing flow, with two outputs.

A flow changes variables, and the density changes by the determinant of the map. In a coupling layer (Dinh, Sohl-Dickstein &
Bengio 2017) each entry is scaled and shifted by numbers that come from elsewhere, so that the determinant is the product of the
scales, and its logarithm a sum:

    y = x e^log_scale + shift,   log_det = Σ_d log_scale_d

Shapes: x, log_scale, shift, y (B, D); log_det (B,). Both outputs go into the loss: two gradients come in, dy and dlog_det.

Read before: lesson 10, where gradients of two ways are added. (No lesson is about flows.)

Task: replace each `...` in scale_and_shift_backward by one line.

Hints
* y = x * scale + shift: three inputs, three slopes.
* log_scale is used twice: in scale, and in log_det. The sum over D copies dlog_det_b along row b.
* Each row has its own shift: nothing is summed (compare with the bias of exercise 2).

    python examples/learn/check.py 17

Compare with, after solving: scale_and_shift_backward in npvae/ops/coupling.py.
"""

import numpy as np


def scale_and_shift_forward(x, log_scale, shift):
    scale = np.exp(log_scale)  # (B, D)
    y = x * scale + shift  # (B, D)
    log_det = log_scale.sum(axis=1)  # (B, D) -> (B,)
    return (y, log_det), (x, log_scale, scale)


def scale_and_shift_backward(dy, dlog_det, cache):
    x, log_scale, scale = cache
    dshift = ...  # (B, D)        y = x * scale + shift
    dx = ...  # (B, D)            y = x * scale + shift
    dscale = ...  # (B, D)        y = x * scale + shift
    dlog_scale = ...  # (B, D)    scale = np.exp(log_scale)     and     log_det = log_scale.sum(axis=1)
    return dx, dlog_scale, dshift
