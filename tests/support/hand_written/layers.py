"""Affine layers, activations and normalisation as courses and small libraries write them."""

import numpy as np
from scipy.special import erf, expit

from hand_written import Pair, normal, right, wrong

# -------------------------------------------------------------------------------------------------------- affine


def affine(backward, n_in=3, n_out=3, rows=3):
    args = normal(rows, n_in), normal(n_in, n_out, seed=1), np.zeros(n_out)
    return Pair(lambda x, W, b: (x @ W + b, (x, W)), backward, args)


@right
def affine_layer():
    """x W + b."""
    return affine(lambda d, c: (d @ c[1].T, c[0].T @ d, d.sum(axis=0)), n_out=2, rows=5)


@wrong
def affine_bias_averaged():
    """db is the mean over the batch, not the sum."""
    return affine(lambda d, c: (d @ c[1].T, c[0].T @ d, d.mean(axis=0)))


@wrong
def affine_bias_over_the_wrong_axis():
    """db sums over axis 1, which has the right length where batch and width are equal."""
    return affine(lambda d, c: (d @ c[1].T, c[0].T @ d, d.sum(axis=1)))


@wrong
def affine_dx_without_transpose():
    """dx = dout W, which runs for a square W."""
    return affine(lambda d, c: (d @ c[1], c[0].T @ d, d.sum(axis=0)))


@wrong
def affine_dW_transposed():
    """dW = doutᵀ x, which runs for a square W."""
    return affine(lambda d, c: (d @ c[1].T, d.T @ c[0], d.sum(axis=0)))


# --------------------------------------------------------------------------------------------------- activations


def activation(forward, slope, x=None):
    return Pair(lambda x: (forward(x), x), lambda d, x: d * slope(x), (normal(4, 5) if x is None else x,))


@right
def relu_by_a_boolean_buffer():
    """A copy with negative entries set to zero."""

    def relu(x):
        out = x.copy()
        out[out < 0] = 0
        return out

    return activation(relu, lambda x: 1.0 * (x > 0))


@right
def relu_into_a_buffer_of_zeros():
    """A loop over entries that fills np.zeros."""

    def relu(x):
        out = np.zeros(x.shape)
        for i in range(x.shape[0]):
            for j in range(x.shape[1]):
                if x[i, j] > 0:
                    out[i, j] = x[i, j]
        return out

    return activation(relu, lambda x: np.where(x > 0, 1.0, 0.0))


@wrong
def relu_masked_by_the_upstream():
    """The mask is taken from the upstream gradient."""
    return Pair(lambda x: (np.maximum(x, 0), x), lambda d, x: d * (d > 0), (normal(4, 5),))


@right
def leaky_relu_by_maximum():
    """np.maximum(0.1 x, x)."""
    return activation(lambda x: np.maximum(0.1 * x, x), lambda x: np.where(x > 0, 1.0, 0.1))


@right
def elu():
    """np.where(x > 0, x, exp(x) − 1)."""
    return activation(lambda x: np.where(x > 0, x, np.exp(x) - 1), lambda x: np.where(x > 0, 1.0, np.exp(x)))


@wrong
def elu_slope_minus_one():
    """exp(x) − 1 taken for its own derivative."""
    return activation(lambda x: np.where(x > 0, x, np.exp(x) - 1), lambda x: np.where(x > 0, 1.0, np.exp(x) - 1))


@right
def hard_tanh_by_clip():
    """np.clip(x, −1, 1)."""
    return activation(lambda x: np.clip(x, -1, 1), lambda x: 1.0 * (np.abs(x) < 1))


@wrong
def clip_passed_straight_through():
    """The gradient ignores the clip."""
    return activation(lambda x: np.clip(x, -0.5, 0.5), np.ones_like)


def gelu_tanh(x):
    return 0.5 * x * (1 + np.tanh(0.7978845608 * (x + 0.044715 * x**3)))


def gelu_tanh_slope(x, three):
    t = np.tanh(0.7978845608 * (x + 0.044715 * x**3))
    return 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * 0.7978845608 * (1 + three * 0.044715 * x * x)


@right
def gelu_by_tanh():
    """The approximation by tanh."""
    return activation(gelu_tanh, lambda x: gelu_tanh_slope(x, 3))


@wrong(error=0.01)
def gelu_without_its_three():
    """The 3 of the cube's derivative is forgotten."""
    return activation(gelu_tanh, lambda x: gelu_tanh_slope(x, 1))


@right
def gelu_by_erf():
    """The exact one, with SciPy's erf."""
    return activation(
        lambda x: 0.5 * x * (1 + erf(x / np.sqrt(2))),
        lambda x: 0.5 * (1 + erf(x / np.sqrt(2))) + x * np.exp(-0.5 * x * x) / np.sqrt(2 * np.pi),
    )


@right
def swish_by_expit():
    """x times SciPy's expit, which takes no complex numbers."""
    return activation(lambda x: x * expit(x), lambda x: expit(x) + x * expit(x) * (1 - expit(x)))


@wrong
def sigmoid_slope_of_its_output():
    """expit(h) (1 − expit(h)), h being the output already."""
    return Pair(lambda x: (expit(x), expit(x)), lambda d, h: d * expit(h) * (1 - expit(h)), (normal(4, 5),))


# ------------------------------------------------------------------------------------------------- normalisation


def batch_norm(x, gamma, beta, ddof=0):
    mu, var = np.mean(x, axis=0), np.var(x, axis=0, ddof=ddof)
    xhat = (x - mu) / np.sqrt(var + 1e-5)
    return gamma * xhat + beta, (xhat, gamma, var)


def batch_norm_backward(dout, cache, mean_term=True, var_term=True, guard=1e-5):
    xhat, gamma, var = cache
    dxhat = dout * gamma
    dx = dxhat.copy()
    if mean_term:
        dx -= dxhat.mean(axis=0)
    if var_term:
        dx -= xhat * (dxhat * xhat).mean(axis=0)
    return dx / np.sqrt(var + guard), (dout * xhat).sum(axis=0), dout.sum(axis=0)


def of_batch_norm(ddof=0, **options):
    args = normal(6, 3), normal(3, seed=1), np.zeros(3)

    def forward(x, gamma, beta):
        return batch_norm(x, gamma, beta, ddof)

    return Pair(forward, lambda d, c: batch_norm_backward(d, c, **options), args)


@right
def batch_normalisation():
    """np.mean and np.var, on the numbers of default_rng(0)."""
    return of_batch_norm()


@wrong
def batch_normalisation_without_the_mean():
    """The path through the mean is forgotten."""
    return of_batch_norm(mean_term=False)


@wrong
def batch_normalisation_without_the_variance():
    """The path through the variance is forgotten."""
    return of_batch_norm(var_term=False)


@wrong
def batch_normalisation_as_an_affine_map():
    """Mean and variance are taken for constants."""
    return of_batch_norm(mean_term=False, var_term=False)


@wrong(error=5e-6)
def batch_normalisation_without_its_guard():
    """The 1e-5 under the root is forgotten in backward."""
    return of_batch_norm(guard=0)


@wrong
def batch_normalisation_of_the_other_variance():
    """Forward divides by B − 1, backward assumes B."""
    return of_batch_norm(ddof=1)


@right
def batch_normalisation_step_by_step():
    """The long way back through each intermediate result, with np.ones."""

    def forward(x, gamma):
        n = x.shape[0]
        centred = x - x.sum(axis=0) / n
        sq = centred**2
        var = sq.sum(axis=0) / n
        std = np.sqrt(var + 1e-8)
        inv = 1.0 / std
        return gamma * (centred * inv), (centred, std, inv, gamma, n)

    def backward(dout, cache):
        centred, std, inv, gamma, n = cache
        dgamma = np.sum(dout * centred * inv, axis=0)
        dnorm = dout * gamma
        dcentred = dnorm * inv
        dinv = np.sum(dnorm * centred, axis=0)
        dstd = -dinv / std**2
        dvar = 0.5 * dstd / std
        dsq = np.ones(dout.shape) * dvar / n
        dcentred = dcentred + 2 * centred * dsq
        dmu = -dcentred.sum(axis=0)
        return dcentred + np.ones(dout.shape) * dmu / n, dgamma

    return Pair(forward, backward, (normal(6, 3), normal(3, seed=1)))


def layer_norm(axis):
    """Over the features of each row; axis is that of the sums in backward."""

    def forward(x):
        std = np.std(x, axis=1, keepdims=True)
        xhat = (x - x.mean(axis=1, keepdims=True)) / std
        return xhat, (xhat, std)

    def backward(dout, cache):
        xhat, std = cache
        inner = dout.mean(axis=axis, keepdims=True) + xhat * (dout * xhat).mean(axis=axis, keepdims=True)
        return (dout - inner) / std

    return Pair(forward, backward, (normal(5, 4),))


@right
def layer_normalisation_by_std():
    """np.std without a guard, over the features."""
    return layer_norm(1)


@wrong
def layer_normalisation_over_the_batch():
    """Backward averages over the rows."""
    return layer_norm(0)


@right
def unit_norm_rows():
    """x / np.linalg.norm(x, axis=1)."""

    def forward(x):
        norm = np.linalg.norm(x, axis=1, keepdims=True)
        return x / norm, (x / norm, norm)

    def backward(dout, cache):
        unit, norm = cache
        return (dout - unit * (dout * unit).sum(axis=1, keepdims=True)) / norm

    return Pair(forward, backward, (normal(4, 3),))


@wrong
def unit_norm_rows_without_the_projection():
    """The norm is taken for a constant."""

    def forward(x):
        norm = np.linalg.norm(x, axis=1, keepdims=True)
        return x / norm, norm

    return Pair(forward, lambda dout, norm: dout / norm, (normal(4, 3),))
