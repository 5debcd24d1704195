"""Convolutions: against scalar twins, SciPy and PyTorch, numerical derivatives, the identity of the adjoint, and each other."""

import naive
import numpy as np
import pytest
from scipy.signal import correlate2d

from npvae import kernels, ops
from npvae.gradcheck import complex_step_grad
from npvae.ops import convolution
from npvae.ops.convolution import Window

SIZES = [  # B, (Y, X) of the large image, I, O, K, stride, padding
    (1, (1, 1), 1, 1, 1, 1, (0, 0)),
    (2, (4, 5), 3, 2, 3, 1, (1, 1)),
    (2, (6, 4), 1, 3, 4, 2, (1, 1)),
    (1, (4, 6), 2, 1, 5, 2, (1, 2)),
    (3, (4, 4), 2, 2, 2, 2, (0, 0)),
    (1, (3, 3), 1, 2, 3, 3, (4, 5)),  # a periodic image comes round more than once
    (1, (7, 9), 2, 3, 3, 2, (2, 0)),
]
sizes = pytest.mark.parametrize("size", SIZES, ids=str)
edges_of_both_kinds = pytest.mark.parametrize("edges", convolution.EDGES)
dtypes = pytest.mark.parametrize("dtype", ["float64", "float32"])
TOLERANCE = {"float64": 1e-13, "float32": 1e-5}  # of compiled layers: sums of hundreds of numbers, in another order
PAIRS = {False: (convolution.convolution_forward, convolution.convolution_backward),
         True: (convolution.transposed_convolution_forward, convolution.transposed_convolution_backward)}  # fmt: skip
both_ways = pytest.mark.parametrize("is_transposed", [False, True], ids=["convolution", "transposed"])


def case(size, is_transposed=False, dtype="float64", edges="zeros", bias_of_pixels=False):
    """x, W, b and dpre of a convolution, or of the transposed one that makes the large image; and how it moves."""
    B, (Y, X), n_in, n_out, K, stride, padding = size
    small = [convolution.n_places(n, K, stride, padding) for n in (Y, X)]
    of_x, of_pre = ((B, *small, n_out), (B, Y, X, n_in)) if is_transposed else ((B, Y, X, n_in), (B, *small, n_out))
    of_W = (n_out, K, K, n_in) if is_transposed else (K, K, n_in, n_out)
    of_b = of_pre[1:] if bias_of_pixels else of_pre[3:]
    rng = np.random.default_rng(1)
    return [naive.draw(rng, shape, dtype) for shape in (of_x, of_W, of_b, of_pre)], (stride, padding, edges)


# ---- against scalar twins, SciPy and PyTorch ----


@dtypes
@edges_of_both_kinds
@sizes
@both_ways
def test_convolution_equals_its_twin(is_transposed, size, edges, dtype):
    (x, W, b, dpre), (stride, padding, _) = case(size, is_transposed, dtype, edges)
    forward, backward = PAIRS[is_transposed]
    name, periodic = forward.__name__.removesuffix("_forward"), edges == "periodic"
    pre, cache = forward(x, W, b, stride, padding, edges)
    lists = [a.tolist() for a in (x, W, b)]
    naive.assert_close(pre, getattr(naive, f"{name}_forward")(*lists, stride, *padding, periodic), dtype)
    expected = getattr(naive, f"{name}_backward")(dpre.tolist(), *lists[:2], stride, padding[0], periodic)
    for grad, theirs in zip(backward(dpre, cache), expected, strict=True):
        naive.assert_close(grad, theirs, dtype)


@sizes
@edges_of_both_kinds
def test_convolution_is_scipys_correlation_of_each_channel(size, edges):
    (x, W, b, _), (stride, (before, after), _) = case(size, edges=edges)
    pre, _ = convolution.convolution_forward(x, W, b, stride, (before, after), edges)
    mode = "wrap" if edges == "periodic" else "constant"
    for n, o in np.ndindex(len(x), len(b)):
        planes = [np.pad(x[n, ..., c], (before, after), mode) for c in range(x.shape[3])]
        expected = b[o] + sum(correlate2d(plane, W[..., c, o], "valid") for c, plane in enumerate(planes))
        np.testing.assert_allclose(pre[n, ..., o], expected[::stride, ::stride], rtol=0, atol=1e-10)


@sizes
@both_ways
def test_values_and_gradients_are_pytorchs(is_transposed, size):
    torch = pytest.importorskip("torch")
    (x, W, b, dpre), (stride, (before, after), edges) = case(size, is_transposed)
    forward, backward = PAIRS[is_transposed]
    pre, cache = forward(x, W, b, stride, (before, after), edges)
    theirs = [torch.from_numpy(a).requires_grad_() for a in (x, W, b)]
    images, F = theirs[0].permute(0, 3, 1, 2), torch.nn.functional  # channels first
    if is_transposed:
        made = F.conv_transpose2d(images, theirs[1].permute(0, 3, 1, 2).contiguous(), theirs[2], stride)
        made = made[:, :, before : made.shape[2] - after, before : made.shape[3] - after]
    else:
        made = F.conv2d(F.pad(images, (before, after) * 2), theirs[1].permute(3, 2, 0, 1).contiguous(), theirs[2], stride)
    made = made.permute(0, 2, 3, 1)
    (made * torch.from_numpy(dpre)).sum().backward()
    np.testing.assert_allclose(pre, made.detach().numpy(), rtol=0, atol=1e-10)
    for grad, tensor in zip(backward(dpre, cache), theirs, strict=True):
        np.testing.assert_allclose(grad, tensor.grad.numpy(), rtol=0, atol=1e-10)


# ---- derivatives ----


def assert_are_gradients(is_transposed, wrt):
    """The gradient with respect to one argument, for every size and both kinds of edges."""
    forward, backward = PAIRS[is_transposed]
    place = ("x", "W", "b").index(wrt)
    for size in SIZES[1:6]:
        for edges in convolution.EDGES:
            (*args, dpre), how = case(size, is_transposed, edges=edges, bias_of_pixels=wrt == "b" and edges == "zeros")

            def loss(value, args=args, dpre=dpre, how=how):
                return (forward(*args[:place], value, *args[place + 1 :], *how)[0] * dpre).sum()

            grad = backward(dpre, forward(*args, *how)[1])[place]
            naive.assert_close(grad, complex_step_grad(loss, args[place]), tolerance=1e-12)


def test_CONV_x_is_the_derivative_with_respect_to_the_image():
    assert_are_gradients(False, "x")


def test_CONV_W_is_the_derivative_with_respect_to_the_kernel():
    assert_are_gradients(False, "W")


def test_CONV_b_is_the_derivative_with_respect_to_the_bias():
    assert_are_gradients(False, "b")


def test_TRANSPOSED_x_is_the_derivative_with_respect_to_the_image():
    assert_are_gradients(True, "x")


def test_TRANSPOSED_W_is_the_derivative_with_respect_to_the_kernel():
    assert_are_gradients(True, "W")


def test_TRANSPOSED_b_is_the_derivative_with_respect_to_the_bias():
    assert_are_gradients(True, "b")


@edges_of_both_kinds
@pytest.mark.parametrize("padding", [(0, 0), (1, 2), (4, 7)])
def test_PAD_is_the_derivative_of_the_padded_image(padding, edges):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 3, 4, 2))
    padded, cache = convolution.pad_forward(x, padding, edges)
    dpadded = rng.standard_normal(padded.shape)
    dx = convolution.pad_backward(dpadded, cache)
    naive.assert_is_gradient(dx, lambda x: (convolution.pad_forward(x, padding, edges)[0] * dpadded).sum(), x)


@both_ways
@edges_of_both_kinds
def test_a_pair_changes_nothing_and_its_backward_is_linear(is_transposed, edges):
    (*args, dpre), how = case(SIZES[4], is_transposed, edges=edges)
    forward, backward = PAIRS[is_transposed]
    naive.assert_pure_and_linear(lambda *args: forward(*args, *how), args, backward, [dpre])


# ---- what convolutions are ----


@sizes
@edges_of_both_kinds
def test_the_transposed_convolution_is_the_adjoint(size, edges):
    """⟨T x, y⟩ = ⟨x, Tᵀ y⟩, with the kernel's axis of the small image's channels first in place of last."""
    (x, W, b, y), how = case(size, edges=edges)
    pre, _ = convolution.convolution_forward(x, W, np.zeros_like(b), *how)
    kernel = np.ascontiguousarray(np.moveaxis(W, 3, 0))
    back, _ = convolution.transposed_convolution_forward(y, kernel, np.zeros(x.shape[3]), *how)
    assert back.shape == x.shape
    assert np.vdot(pre, y) == pytest.approx(np.vdot(x, back), rel=1e-12, abs=1e-12)


def test_dx_of_stride_one_is_a_convolution_with_the_kernel_turned():
    (x, W, b, dpre), how = case((2, (5, 6), 2, 3, 3, 1, (1, 1)))
    _, cache = convolution.convolution_forward(x, W, b, *how)
    turned = W[::-1, ::-1].swapaxes(2, 3)
    expected, _ = convolution.convolution_forward(dpre, turned, np.zeros(2), *how)
    np.testing.assert_allclose(convolution.convolution_backward(dpre, cache)[0], expected, rtol=0, atol=1e-13)


def test_a_periodic_convolution_commutes_with_translations():
    (x, W, b, _), how = case((2, (6, 4), 2, 3, 3, 1, (1, 1)), edges="periodic")
    pre, _ = convolution.convolution_forward(x, W, b, *how)
    moved, _ = convolution.convolution_forward(np.roll(x, (2, 1), (1, 2)), W, b, *how)
    np.testing.assert_allclose(moved, np.roll(pre, (2, 1), (1, 2)), rtol=0, atol=1e-13)


def test_a_kernel_of_one_pixel_is_an_affine_map_of_the_channels():
    (x, W, b, _), how = case((2, (3, 4), 5, 3, 1, 1, (0, 0)))
    pre, _ = convolution.convolution_forward(x, W, b, *how)
    np.testing.assert_allclose(pre, x @ W[0, 0] + b, rtol=0, atol=1e-13)


@pytest.mark.parametrize(("size", "K", "stride", "padding", "message"), [
    (28, 5, 2, (2, 2), r"a kernel of 5 in steps of 2 does not fit 28 pixels with 2 \+ 2 of padding: "
                       r"\(28 \+ 2 \+ 2 − 5\)/2 \+ 1 = 14.5"),
    (3, 7, 1, (1, 1), r"\(3 \+ 1 \+ 1 − 7\)/1 \+ 1 = -1"),
    (4, 2, 0, (0, 0), "stride must be at least 1"),
    (4, 2, 3, (-1, 0), "padding at least 0; got 2, 3 and -1, 0"),
])  # fmt: skip
def test_sizes_that_do_not_fit_are_refused_with_their_arithmetic(size, K, stride, padding, message):
    with pytest.raises(ValueError, match=message):
        convolution.convolution_forward(np.zeros((1, size, size, 1)), np.zeros((K, K, 1, 1)), np.zeros(1), stride, padding)


def test_a_transposed_convolution_without_pixels_is_refused():
    with pytest.raises(ValueError, match=r"\(1 − 1\) · 2 \+ 3 − 2 − 1 = 0"):
        convolution.transposed_convolution_forward(np.zeros((1, 1, 1, 1)), np.zeros((1, 3, 3, 1)), np.zeros(1), 2, (2, 1))


def test_edges_of_another_kind_are_refused():
    with pytest.raises(ValueError, match="edges must be one of zeros, periodic; got 'open'"):
        convolution.convolution_forward(np.zeros((1, 4, 4, 1)), np.zeros((3, 3, 1, 1)), np.zeros(1), 1, (1, 1), "open")


@both_ways
def test_channels_that_the_kernel_does_not_have_are_refused(is_transposed):
    with pytest.raises(ValueError, match=r"x must be \(B, Y, X, 3\), since the kernel has 3 input channels; got shape"):
        PAIRS[is_transposed][0](np.zeros((1, 4, 4, 2)), np.zeros((3, 3, 3, 3)), np.zeros(3))


# ---- layers, and the compiled ones ----

LAYERS = [  # B, (Y, X) of what the layer is given, I, O, Window's stride, padding, edges, is_transposed; K
    ((3, (6, 6), 2, 17), (2, (1, 1), "zeros", False), 4),
    ((3, (6, 4), 1, 33), (2, (1, 2), "periodic", False), 5),
    ((2, (3, 3), 33, 1), (2, (1, 1), "zeros", True), 4),
    ((2, (4, 3), 5, 50), (1, (1, 1), "periodic", True), 3),
    ((1, (2, 2), 1, 1), (1, (0, 0), "zeros", False), 2),  # fewer rows and columns than a tile has
]
layer_cases = pytest.mark.parametrize(("shape", "how", "K"), LAYERS)


def layer(shape, how, K, dtype, bias_of_pixels=False):
    """x, W, b, the Window, and dh of a layer."""
    (B, (Y, X), n_in, n_out), rng = shape, np.random.default_rng(2)
    window = Window(Y, X, *how)
    made = np.prod(convolution.made_size(window, K)) * n_out
    W_shape = (n_in, K, K, n_out) if window.is_transposed else (K, K, n_in, n_out)
    shapes = (B, Y * X * n_in), W_shape, (made if bias_of_pixels else n_out,), (B, made)
    x, W, b, dh = (naive.draw(rng, shape, dtype) for shape in shapes)
    return x, W / W.dtype.type(n_in**0.5 * K), b, window, dh  # so that pre is of the order of 1


@layer_cases
@pytest.mark.parametrize("activation", ops.ACTIVATIONS)
def test_a_layer_is_a_convolution_then_an_activation(activation, shape, how, K):
    x, W, b, window, dh = layer(shape, how, K, "float64")
    h, cache = ops.filter_forward(x, W, b, activation, window)
    forward, backward = PAIRS[window.is_transposed]
    pre, own = forward(x.reshape(len(x), *window[:2], -1), W, b, *window[2:5])
    expected, activated = ops.ACTIVATIONS[activation][0](pre)
    np.testing.assert_array_equal(h, expected.reshape(len(x), -1))
    dpre = ops.ACTIVATIONS[activation][1](dh.reshape(pre.shape), activated)
    for grad, theirs in zip(ops.filter_backward(dh, cache), backward(dpre, own)):
        np.testing.assert_array_equal(grad.ravel(), theirs.ravel())


@dtypes
@layer_cases
@pytest.mark.parametrize(("activation", "bias_of_pixels"), [("identity", True), ("tanh", False), ("silu", True)])
def test_the_compiled_layer_is_numpys(activation, bias_of_pixels, shape, how, K, dtype):
    x, W, b, window, dh = layer(shape, how, K, dtype, bias_of_pixels)
    h, cache = ops.filter_forward(x, W, b, activation, window)
    ours, own_cache = kernels.filter_forward(x, W, b, activation, window)
    naive.assert_close(ours, h, dtype, TOLERANCE[dtype])
    for need_dx in (True, False):
        expected, grads = ops.filter_backward(dh, cache, need_dx), kernels.filter_backward(dh.copy(), own_cache, need_dx)
        assert (grads[0] is None) == (expected[0] is None) == (not need_dx)
        for grad, theirs in zip(grads[0 if need_dx else 1 :], expected[0 if need_dx else 1 :]):
            naive.assert_close(grad, theirs, dtype, TOLERANCE[dtype])


@both_ways
def test_the_compiled_layer_is_numpys_for_more_images_than_a_block_holds(is_transposed):
    window = Window(14, 14, 1, (2, 2), "zeros", is_transposed)
    channels = (3, 8) if is_transposed else (8, 3)
    x, W, b, window, dh = layer((5, window[:2], *channels), window[2:], 5, "float64")
    patches = 14 * 14 * 25 * 8
    assert 1 <= kernels.convolution.BLOCK // patches < 5
    h, cache = ops.filter_forward(x, W, b, "relu", window)
    ours, own_cache = kernels.filter_forward(x, W, b, "relu", window)
    naive.assert_close(ours, h)
    for grad, theirs in zip(kernels.filter_backward(dh, own_cache), ops.filter_backward(dh, cache)):
        naive.assert_close(grad, theirs)


@both_ways
@pytest.mark.parametrize("moved", [0, 1, 2])
def test_the_compiled_layer_takes_the_complex_step(is_transposed, moved):
    *args, window, dh = layer(*LAYERS[2 if is_transposed else 1], "float64")

    def loss(value):
        return (kernels.filter_forward(*args[:moved], value, *args[moved + 1 :], "tanh", window)[0] * dh).sum()

    grad = kernels.filter_backward(dh, kernels.filter_forward(*args, "tanh", window)[1])[moved]
    naive.assert_close(grad, complex_step_grad(loss, args[moved]), tolerance=1e-12)


def test_the_compiled_layer_writes_nothing_that_it_is_given():
    *args, window, dh = layer(*LAYERS[0], "float64")
    given = [array.copy() for array in (*args, dh)]
    for activation in ("identity", "relu"):
        h, cache = kernels.filter_forward(*args, activation, window)
        kept = h.copy()
        first, again = (kernels.filter_backward(dh, cache) for _ in range(2))
        assert all(a.tobytes() == b.tobytes() for a, b in zip((h, *args, dh, *first), (kept, *given, *again), strict=True))


@dtypes
def test_tiles_of_every_width(dtype):
    """Fewer columns than a vector has numbers, as many, more, and no multiple; more rows than a tile has."""
    for n_out in (1, 15, 16, 17, 25, 32, 40, 48, 64, 70):
        for is_transposed in (False, True):
            x, W, b, window, dh = layer((2, (4, 3), 3, n_out), (1, (1, 1), "zeros", is_transposed), 3, dtype)
            h, cache = ops.filter_forward(x, W, b, "identity", window)
            ours, own_cache = kernels.filter_forward(x, W, b, "identity", window)
            naive.assert_close(ours, h, dtype, TOLERANCE[dtype])
            for grad, theirs in zip(kernels.filter_backward(dh, own_cache), ops.filter_backward(dh, cache)):
                naive.assert_close(grad, theirs, dtype, TOLERANCE[dtype])
