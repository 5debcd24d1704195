"""Dense layers one after the other: against the affine map and the activation by hand, and by numerical derivatives."""

import naive
import numpy as np
import pytest

from npvae import gradcheck
from npvae.ops import layers, mlp

ACTIVATIONS = list(layers.ACTIVATIONS)
WIDTHS = [(3, 2), (3, 5, 2), (4, 3, 3, 2)]  # from the input to the output
dtypes = pytest.mark.parametrize("dtype", ["float64", "float32"])
widths_of_all = pytest.mark.parametrize("widths", WIDTHS)


def case(widths, activation="tanh", dtype="float64", B=4):
    """x (B, n_in), the layers, the last one linear, and an upstream gradient dh (B, n_out)."""
    rng = np.random.default_rng(1)
    x, dh = naive.draw(rng, (B, widths[0]), dtype), naive.draw(rng, (B, widths[-1]), dtype)
    names = [activation] * (len(widths) - 2) + ["identity"]
    stack = [(naive.draw(rng, (a, b), dtype), naive.draw(rng, (b,), dtype), n) for a, b, n in zip(widths, widths[1:], names)]
    return x, stack, dh


@dtypes
@widths_of_all
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_the_network_is_affine_maps_and_activations_by_hand(widths, activation, dtype):
    x, stack, dh = case(widths, activation, dtype)
    output, caches = mlp.mlp_forward(x, stack)

    h, inputs, pres = x.tolist(), [], []
    for W, b, name in stack:
        inputs.append(h)
        pres.append(naive.affine_forward(h, W.tolist(), b.tolist()))
        h = naive.activation_forward(name, pres[-1])
    naive.assert_close(output, h, dtype)

    d, expected = dh.tolist(), []
    for i in reversed(range(len(stack))):
        W, _, name = stack[i]
        d, dW, db = naive.affine_backward(naive.activation_backward(name, d, pres[i]), inputs[i], W.tolist())
        expected.insert(0, (dW, db))
    dx, grads = mlp.mlp_backward(dh, caches)
    tolerance = 3 * naive.TOLERANCE[dtype]  # the roundings of three layers add up
    naive.assert_close(dx, d, dtype, tolerance)
    assert len(grads) == len(stack)
    for pair, expected_pair in zip(grads, expected):
        for grad, value in zip(pair, expected_pair, strict=True):
            naive.assert_close(grad, value, dtype, tolerance)


def as_pair(activations):
    """The network as a pair whose arguments are x and every W and b in turn."""

    def forward(x, *parameters):
        stack = [(W, b, name) for W, b, name in zip(parameters[::2], parameters[1::2], activations, strict=True)]
        return mlp.mlp_forward(x, stack)

    def backward(dh, cache):
        dx, grads = mlp.mlp_backward(dh, cache)
        return dx, *(grad for pair in grads for grad in pair)

    return forward, backward


@widths_of_all
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_layer_has_its_gradient_by_the_complex_step(widths, activation):
    x, stack, _ = case(widths, activation)
    parameters = [array for W, b, _ in stack for array in (W, b)]
    gradcheck.check_pair(*as_pair([name for *_, name in stack]), x, *parameters)


def test_layers_in_the_wrong_order_are_seen():
    """The check above would notice backward visiting the layers in the order of forward, even where all shapes fit."""
    x, stack, _ = case((3, 3, 3, 3))
    forward, _ = as_pair([name for *_, name in stack])

    def backward(dh, cache):
        dx, grads = mlp.mlp_backward(dh, cache[::-1])
        return dx, *(grad for pair in grads[::-1] for grad in pair)

    parameters = [array for W, b, _ in stack for array in (W, b)]
    assert not gradcheck.check_pair(forward, backward, x, *parameters, assert_passed=False).passed


@widths_of_all
def test_need_dx_false_leaves_out_dx_alone(widths):
    x, stack, dh = case(widths)
    _, caches = mlp.mlp_forward(x, stack)
    _, full = mlp.mlp_backward(dh, caches)
    dx, grads = mlp.mlp_backward(dh, caches, need_dx=False)
    assert dx is None
    for pair, expected in zip(grads, full, strict=True):
        for grad, value in zip(pair, expected):
            np.testing.assert_array_equal(grad, value)


def test_only_the_first_layer_is_spared_its_dx():
    x, stack, dh = case((4, 3, 3, 2))
    asked = []

    def dense_backward(dh, cache, need_dx=True):
        asked.append(need_dx)
        return layers.dense_backward(dh, cache, need_dx)

    _, caches = mlp.mlp_forward(x, stack)
    mlp.mlp_backward(dh, caches, need_dx=False, dense_backward=dense_backward)
    assert asked == [True, True, False]


def test_a_network_is_pure_and_linear():
    x, stack, dh = case((4, 3, 3, 2))
    forward, backward = as_pair([name for *_, name in stack])
    naive.assert_pure_and_linear(forward, (x, *(a for W, b, _ in stack for a in (W, b))), backward, (dh,))


def test_no_layers_are_the_identity():
    x, _, dh = case((3, 3))
    h, caches = mlp.mlp_forward(x, [])
    assert h is x
    assert caches == []
    assert mlp.mlp_backward(dh, caches) == (dh, [])
