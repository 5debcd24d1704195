"""Affine map and activations: against scalar twins, numerical derivatives, and the contract of a pair."""

import naive
import numpy as np
import pytest

from npvae.gradcheck import complex_step_grad
from npvae.ops import layers

ACTIVATIONS = list(layers.ACTIVATIONS)
SIZES = [(1, 1, 1), (1, 5, 3), (7, 3, 5), (4, 1, 9)]  # B, n_in, n_out
# Both tails beyond every saturation, and both sides of zero.
TAILS = [-1e4, -100.0, -40.0, -20.0, -1.0, -1e-3, -0.0, 0.0, 1e-3, 1.0, 20.0, 40.0, 100.0, 1e4]

dtypes = pytest.mark.parametrize("dtype", ["float64", "float32"])
layouts = pytest.mark.parametrize("layout", naive.LAYOUTS)
sizes = pytest.mark.parametrize("size", SIZES)
activations = pytest.mark.parametrize("name", ACTIVATIONS)


def affine_case(size, dtype="float64", layout="C"):
    """x, W, b and an upstream gradient dpre."""
    B, n_in, n_out = size
    rng = np.random.default_rng(1)
    return [naive.draw(rng, shape, dtype, layout) for shape in ((B, n_in), (n_in, n_out), (n_out,), (B, n_out))]


def lists(*arrays):
    return [array.tolist() for array in arrays]


# ---- against the scalar twins ----


@dtypes
@layouts
@sizes
def test_affine_equals_its_twin(size, dtype, layout):
    x, W, b, dpre = affine_case(size, dtype, layout)
    pre, cache = layers.affine_forward(x, W, b)
    naive.assert_close(pre, naive.affine_forward(*lists(x, W, b)), dtype)
    for grad, expected in zip(layers.affine_backward(dpre, cache), naive.affine_backward(*lists(dpre, x, W))):
        naive.assert_close(grad, expected, dtype)


@dtypes
@layouts
@activations
def test_activation_equals_its_twin(name, dtype, layout):
    rng = np.random.default_rng(2)
    forward, backward = layers.ACTIVATIONS[name]
    for shape in [(1, 1), (1, 7), (5, 3)]:
        pre, dh = naive.draw(rng, shape, dtype, layout), naive.draw(rng, shape, dtype, layout)
        h, cache = forward(pre)
        naive.assert_close(h, naive.activation_forward(name, pre.tolist()), dtype)
        naive.assert_close(backward(dh, cache), naive.activation_backward(name, *lists(dh, pre)), dtype)


@dtypes
@sizes
@activations
def test_dense_is_affine_then_activation(name, size, dtype):
    x, W, b, dh = affine_case(size, dtype)
    h, cache = layers.dense_forward(x, W, b, name)
    pre = naive.affine_forward(*lists(x, W, b))
    naive.assert_close(h, naive.activation_forward(name, pre), dtype)
    dpre = naive.activation_backward(name, dh.tolist(), pre)
    for grad, expected in zip(layers.dense_backward(dh, cache), naive.affine_backward(dpre, *lists(x, W))):
        naive.assert_close(grad, expected, dtype)


@dtypes
@activations
def test_activation_keeps_its_digits_in_the_tails(name, dtype):
    """Entry by entry, not relative to the largest. tanh' = 1 − h² cancels in the tails: it is held to rounding of 1."""
    pre = np.array([TAILS], dtype)
    forward, backward = layers.ACTIVATIONS[name]
    h, cache = forward(pre)
    slope = backward(np.ones_like(pre), cache)
    rtol, smallest = naive.TOLERANCE[dtype], np.finfo(dtype).tiny
    np.testing.assert_allclose(h, naive.activation_forward(name, pre.tolist()), rtol, smallest)
    atol = np.finfo(dtype).eps if name == "tanh" else smallest
    np.testing.assert_allclose(slope, naive.activation_backward(name, [[1.0] * len(TAILS)], pre.tolist()), rtol, atol)


@dtypes
def test_sigmoid_and_complement_keep_their_digits(dtype):
    x = np.array([TAILS], dtype)
    p, q = layers.sigmoid_and_complement(x)
    rtol, smallest = naive.TOLERANCE[dtype], np.finfo(dtype).tiny
    np.testing.assert_allclose(p, naive.activation_forward("sigmoid", x.tolist()), rtol, smallest)
    np.testing.assert_allclose(q, naive.activation_forward("sigmoid", (-x).tolist()), rtol, smallest)
    assert p.dtype == q.dtype == dtype


def test_relu_below_at_and_above_zero():
    h, cache = layers.relu_forward(np.array([-1.0, -0.0, 0.0, 5e-324, 2.0]))
    assert h.tolist() == [0, 0, 0, 5e-324, 2]
    assert layers.relu_backward(np.full(5, 3.0), cache).tolist() == [0, 0, 0, 3, 3]


def test_relu_lets_nan_through():
    h, cache = layers.relu_forward(np.array([np.nan, -1.0]))
    assert np.isnan(h).tolist() == [True, False]
    assert np.isnan(layers.relu_backward(np.array([np.nan, 1.0]), layers.relu_forward(np.ones(2))[1])).tolist() == [True, False]
    assert layers.relu_backward(np.ones(2), cache).tolist() == [1, 0]  # not masked where pre is NaN


# ---- each labelled identity against numerical derivatives ----


def test_AFFINE_x_is_the_derivative():
    x, W, b, dpre = affine_case((4, 3, 5))
    dx, _, _ = layers.affine_backward(dpre, layers.affine_forward(x, W, b)[1])
    naive.assert_is_gradient(dx, lambda x: (dpre * layers.affine_forward(x, W, b)[0]).sum(), x)


def test_AFFINE_W_is_the_derivative():
    x, W, b, dpre = affine_case((4, 3, 5))
    _, dW, _ = layers.affine_backward(dpre, layers.affine_forward(x, W, b)[1])
    naive.assert_is_gradient(dW, lambda W: (dpre * layers.affine_forward(x, W, b)[0]).sum(), W)


def test_AFFINE_b_is_the_derivative():
    x, W, b, dpre = affine_case((4, 3, 5))
    _, _, db = layers.affine_backward(dpre, layers.affine_forward(x, W, b)[1])
    naive.assert_is_gradient(db, lambda b: (dpre * layers.affine_forward(x, W, b)[0]).sum(), b)


def assert_activation_gradient(name):
    forward, backward = layers.ACTIVATIONS[name]
    pre = np.array([[-3.0, -0.7, -0.01, 0.02], [0.3, 1.5, 2.0, 4.0]])  # no difference step crosses the kink at 0
    dh = naive.draw(np.random.default_rng(3), pre.shape)
    naive.assert_is_gradient(backward(dh, forward(pre)[1]), lambda pre: (dh * forward(pre)[0]).sum(), pre)


def test_RELU_is_the_derivative():
    assert_activation_gradient("relu")


def test_TANH_is_the_derivative():
    assert_activation_gradient("tanh")


def test_SIGMOID_is_the_derivative():
    assert_activation_gradient("sigmoid")


def test_SOFTPLUS_is_the_derivative():
    assert_activation_gradient("softplus")


def test_SILU_is_the_derivative():
    assert_activation_gradient("silu")


@activations
def test_every_activation_has_its_derivative(name):
    """Also those that join the table later, and the identity, which has no label."""
    assert_activation_gradient(name)


@activations
def test_forward_and_backward_agree_at_exactly_zero(name):
    """Where the formulas branch: the complex step follows the branch that the forward takes there."""
    forward, backward = layers.ACTIVATIONS[name]
    pre = np.array([0.0, -0.0])
    slope = complex_step_grad(lambda pre: forward(pre)[0].sum(), pre)
    np.testing.assert_allclose(slope, backward(np.ones(2), forward(pre)[1]), rtol=1e-15)


@activations
@pytest.mark.parametrize("argument", [0, 1, 2])
def test_dense_gradient_by_numerical_derivatives(name, argument):
    *inputs, dh = affine_case((4, 3, 5))
    grads = layers.dense_backward(dh, layers.dense_forward(*inputs, name)[1])

    def loss(value):
        changed = [value if i == argument else inputs[i] for i in range(3)]
        return (dh * layers.dense_forward(*changed, name)[0]).sum()

    naive.assert_is_gradient(grads[argument], loss, inputs[argument])


# ---- the contract of a pair ----


def test_affine_is_pure_and_linear():
    x, W, b, dpre = affine_case((5, 3, 4))
    naive.assert_pure_and_linear(layers.affine_forward, (x, W, b), layers.affine_backward, (dpre,))


@activations
def test_activation_is_pure_and_linear(name):
    pre, _, _, dh = affine_case((5, 4, 4))
    naive.assert_pure_and_linear(layers.ACTIVATIONS[name][0], (pre,), layers.ACTIVATIONS[name][1], (dh,), name == "identity")


@activations
def test_dense_is_pure_and_linear(name):
    x, W, b, dh = affine_case((5, 3, 4))
    naive.assert_pure_and_linear(layers.dense_forward, (x, W, b, name), layers.dense_backward, (dh,))


def test_identity_is_the_identity():
    pre = np.ones((2, 3))
    h, cache = layers.identity_forward(pre)
    np.testing.assert_array_equal(h, pre)
    np.testing.assert_array_equal(layers.identity_backward(2 * pre, cache), 2 * pre)


@activations
def test_need_dx_false_leaves_out_dx_alone(name):
    x, W, b, dh = affine_case((5, 3, 4))
    _, cache = layers.dense_forward(x, W, b, name)
    _, full_dW, full_db = layers.dense_backward(dh, cache)
    dx, dW, db = layers.dense_backward(dh, cache, need_dx=False)
    assert dx is None
    np.testing.assert_array_equal(dW, full_dW)
    np.testing.assert_array_equal(db, full_db)
