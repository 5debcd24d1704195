"""Affine coupling, the invertible layer of a normalizing flow, with its log-determinant; and the flow's first and last step.

A flow maps data x to z by invertible layers, and z has the density N(0, I). With the Jacobian matrix ∂z/∂x of the whole map,

    log p(x) = log N(z; 0, I) + log |det ∂z/∂x|,

and the log-determinants of the layers add up. Each pair here therefore returns its output and its log-determinant, one number
for each row. See `npvae.ops.layers` for how to read a pair.

A coupling layer (Dinh, Sohl-Dickstein & Bengio 2017, section 3.2) keeps some columns of x and moves the others. A network reads
the kept columns and says how the moved ones are scaled and shifted. Below, x stands for the moved columns only.

Shapes: B batch, D columns that are moved (in `standardize_*` and `standard_normal_nll_*`: all of them).
"""

import numpy as np

from npvae.core.numerics import accumulator


def bound_scale_forward(raw, max_scale):
    """Bound the network's raw log-scale to (−c, c), so that its exponential cannot overflow: any shape, c = max_scale > 0.

    log_scale = c tanh(raw/c), which is raw itself near 0. Since tanh' = 1 − tanh²,
    (BOUND)  draw = dlog_scale (1 − tanh²(raw/c)) = dlog_scale (1 − (log_scale/c)²).
    """
    tanh = np.tanh(raw / max_scale)
    return max_scale * tanh, tanh


def bound_scale_backward(dlog_scale, cache):
    """Backward of log_scale = c tanh(raw/c)."""
    tanh = cache
    return dlog_scale * (1 - tanh * tanh)  # (BOUND)


def scale_and_shift_forward(x, log_scale, shift):
    """Scale and shift each entry: y = x e^log_scale + shift, and log_det = Σ_d log_scale_d of each row.

    x, log_scale, shift (B, D) -> y (B, D), log_det (B,) in nats, summed in float64. Dinh et al. 2017, equations 4 to 6.

    log_scale and shift come from columns that this layer keeps. So ∂y_d/∂x_d' = e^log_scale_d for d = d', else 0; kept columns
    have ∂y/∂x = 1; and the matrix of all columns, kept ones first, is triangular: its determinant is Π_d e^log_scale_d.

    log_scale reaches both outputs:
        (COUPLING-x)      dx         = dy ∂y/∂x = dy e^log_scale
        (COUPLING-scale)  dlog_scale = dy ∂y/∂log_scale + dlog_det ∂log_det/∂log_scale = dy x e^log_scale + dlog_det
        (COUPLING-shift)  dshift     = dy ∂y/∂shift = dy
    """
    scale = np.exp(log_scale)
    y = x * scale + shift  # (B, D)
    log_det = log_scale.sum(axis=1, dtype=accumulator(log_scale))  # (B, D) -> (B,)
    return (y, log_det), (x, scale)


def scale_and_shift_backward(dy, dlog_det, cache):
    """Backward of y = x e^log_scale + shift, log_det = Σ_d log_scale_d: dy (B, D), dlog_det (B,) -> dx, dlog_scale, dshift."""
    x, scale = cache
    dx = dy * scale  # (COUPLING-x)
    dlog_scale = dx * x + dlog_det[:, None].astype(dx.dtype)  # (COUPLING-scale) (B, D) + (B, 1), where dx = dy e^log_scale
    dshift = dy.copy()  # (COUPLING-shift)
    return dx, dlog_scale, dshift


def halves(output):
    """The network's output (B, 2D) as raw log-scales and shifts, views of (B, D) each."""
    n_moved = output.shape[1] // 2
    return output[:, :n_moved], output[:, n_moved:]


def coupling_forward(x, output, max_scale):
    """From the network's output to the moved columns: bound the log-scale, scale and shift.

    x (B, D) the columns that are moved; output (B, 2D) of the network that read the others, raw log-scales then shifts
    -> y (B, D), log_det (B,) in nats. This is the composition that a back end may fuse.
    """
    raw, shift = halves(output)  # (B, 2D) -> (B, D), (B, D)
    log_scale, bound_cache = bound_scale_forward(raw, max_scale)
    (y, log_det), affine_cache = scale_and_shift_forward(x, log_scale, shift)
    return (y, log_det), (bound_cache, affine_cache)


def coupling_backward(dy, dlog_det, cache):
    """Backward of `coupling_forward`: dy (B, D), dlog_det (B,) -> dx (B, D), doutput (B, 2D)."""
    bound_cache, affine_cache = cache
    dx, dlog_scale, dshift = scale_and_shift_backward(dy, dlog_det, affine_cache)
    draw = bound_scale_backward(dlog_scale, bound_cache)
    return dx, np.concatenate([draw, dshift], axis=1)  # (B, D), (B, D) -> (B, 2D)


def coupling_inverse(y, output, max_scale):
    """The x of which `coupling_forward` makes y: x = (y − shift) e^−log_scale, (B, D). Dinh et al. 2017, equation 8.

    output (B, 2D) is that of the forward pass: the network reads only columns that the layer keeps, which are the same before
    and after, so that it need not be inverted.
    """
    raw, shift = halves(output)  # (B, 2D) -> (B, D), (B, D)
    log_scale, _ = bound_scale_forward(raw, max_scale)
    return (y - shift) * np.exp(-log_scale)


def standardize_forward(x, log_scale, shift):
    """The first layer, one scale and one shift per column: y = (x − shift) e^−log_scale, log_det = −Σ_d log_scale_d.

    x (B, D), log_scale, shift (D,) -> y (B, D), log_det (B,) in nats. With shift the data's mean and e^log_scale their standard
    deviation, y has mean 0 and variance 1 ("actnorm", Kingma & Dhariwal 2018, section 3.1, whose scale is 1/e^log_scale here).

    All rows share log_scale and shift; with ∂y/∂log_scale = −y:
        (STANDARDIZE-x)      dx         = dy e^−log_scale
        (STANDARDIZE-scale)  dlog_scale = −Σ_b (dy_b y_b + dlog_det_b)
        (STANDARDIZE-shift)  dshift     = −Σ_b dy_b e^−log_scale
    """
    inverse_scale = np.exp(-log_scale)  # (D,)
    y = (x - shift) * inverse_scale  # (B, D)
    log_det = np.full(len(x), -log_scale.sum(dtype=accumulator(log_scale)))  # (B,)
    return (y, log_det), (y, inverse_scale)


def standardize_backward(dy, dlog_det, cache):
    """Backward of `standardize_forward`: dy (B, D), dlog_det (B,) -> dx (B, D), dlog_scale, dshift (D,)."""
    y, inverse_scale = cache
    dx = dy * inverse_scale  # (STANDARDIZE-x)
    dlog_scale = -(dy * y).sum(axis=0) - dlog_det.sum().astype(dy.dtype)  # (STANDARDIZE-scale) (B, D) -> (D,)
    dshift = -dx.sum(axis=0)  # (STANDARDIZE-shift) (B, D) -> (D,)
    return dx, dlog_scale, dshift


def standardize_inverse(y, log_scale, shift):
    """The x of which `standardize_forward` makes y: x = y e^log_scale + shift, (B, D)."""
    return y * np.exp(log_scale) + shift


def standard_normal_nll_forward(z):
    """−log N(z; 0, I) of each row, the density at the end of the flow: z (B, D) -> nll (B,) in nats, summed in float64.

    nll_b = ½ Σ_d (z_bd² + log 2π), so that
    (NORMAL)  dz = dnll z.
    """
    nll = 0.5 * (z * z).sum(axis=1, dtype=accumulator(z)) + 0.5 * z.shape[1] * np.log(2 * np.pi)  # (B, D) -> (B,)
    return nll, z


def standard_normal_nll_backward(dnll, cache):
    """Backward of nll = ½ Σ_d (z_d² + log 2π): dnll (B,) -> dz (B, D)."""
    z = cache
    return dnll[:, None].astype(z.dtype) * z  # (NORMAL) (B, 1) * (B, D)
