"""Convolution and transposed convolution: layers for images, each a forward/backward pair of pure functions.

The same small kernel W looks at every place of an image. What neural networks call a convolution is a cross-correlation, a sum
over the kernel's offsets (i, j) without a flip; for each offset it is one matrix product over the channels, and that is how it
is written here. Its backward pass goes the same way back. Both passes of a transposed convolution are those of a convolution
with forward and backward exchanged: it makes a large image of a small one, as a decoder has to.

    convolution             x (B, Y, X, I), W (K, K, I, O) -> pre (B, Y', X', O)     Y' = (Y + before + after − K)/stride + 1
    transposed convolution  x (B, Y, X, I), W (I, K, K, O) -> pre (B, Y', X', O)     Y' = (Y − 1) stride + K − before − after

Around the image lie `before` and `after` pixels of padding: zeros or, for periodic lattices, the opposite edge. The channels
of a pixel lie side by side (as in "NHWC"): the K I numbers that a row of the kernel meets are then one piece of memory. With a
plane for each channel ("NCHW") they are I pieces of K numbers.

See `npvae.ops.layers` for how to read a pair. Dumoulin & Visin 2016, "A guide to convolution arithmetic for deep learning";
LeCun et al. 1989; transposed: Zeiler et al. 2010. Shapes: B batch, Y and X rows and columns of an image, I and O channels
of input and output, K width of the kernel.
"""

from typing import NamedTuple

import numpy as np

from npvae.ops.layers import ACTIVATIONS

EDGES = ("zeros", "periodic")


class Window(NamedTuple):
    """How the kernel of a layer moves over the images that the layer is given."""

    rows: int  # of an image
    columns: int
    stride: int = 1  # pixels from one place of the kernel to the next
    padding: tuple = (0, 0)  # pixels before the first and after the last, of rows and of columns
    edges: str = "zeros"  # what they hold, one of EDGES
    is_transposed: bool = False


def n_places(size, K, stride, padding):
    """How many places a kernel of K pixels has along `size` pixels; ValueError, with the arithmetic, where they do not fit."""
    (before, after), steps = padding, size + sum(padding) - K
    if min(K, stride) < 1 or min(before, after) < 0:
        raise ValueError(f"kernel and stride must be at least 1, padding at least 0; got {K}, {stride} and {before}, {after}")
    if steps < 0 or steps % stride:
        raise ValueError(f"a kernel of {K} in steps of {stride} does not fit {size} pixels with {before} + {after} of padding: "
                         f"({size} + {before} + {after} − {K})/{stride} + 1 = {steps / stride + 1:g}")  # fmt: skip
    return steps // stride + 1


def transposed_size(size, K, stride, padding):
    """How many pixels a transposed convolution makes of `size`: those along which a kernel of K has `size` places."""
    (before, after), made = padding, (size - 1) * stride + K - sum(padding)
    if min(size, K, stride) < 1 or min(before, after) < 0 or made < 1:
        raise ValueError(f"a transposed kernel of {K} in steps of {stride} makes no image of {size} pixels with {before} + "
                         f"{after} of padding: ({size} − 1) · {stride} + {K} − {before} − {after} = {made}")  # fmt: skip
    return made


def check_channels(x, n_in):
    """ValueError where x is not (B, Y, X, n_in)."""
    if x.ndim != 4 or x.shape[3] != n_in:
        raise ValueError(f"x must be (B, Y, X, {n_in}), since the kernel has {n_in} input channels; got shape {x.shape}")


# ------------------------------------------------------------------------------------------------------------- padding


def pad_forward(x, padding, edges):
    """x (B, Y, X, C) with pixels before and after its rows and columns: (B, Y + before + after, X + before + after, C).

    edges "zeros", or "periodic": beyond an edge the image begins again at the opposite one, as often as it takes. In numbers,
    x̂_uv = x_{u − before, v − before}, the indices modulo Y and X; or 0 where they are outside of x.
    (PAD)  dx_yx = Σ_uv dx̂_uv over the u, v that have this index: all copies of a pixel
    """
    if edges not in EDGES:
        raise ValueError(f"edges must be one of {', '.join(EDGES)}; got {edges!r}")
    around = (0, 0), padding, padding, (0, 0)
    return np.pad(x, around, mode="wrap" if edges == "periodic" else "constant"), (x.shape, padding, edges)


def pad_backward(dpadded, cache):
    """Backward of padding: dpadded (B, Y + before + after, X + before + after, C) -> dx (B, Y, X, C)."""
    shape, (before, _), edges = cache
    if edges == "zeros":
        return dpadded[:, before : before + shape[1], before : before + shape[2]]
    dx = dpadded
    for axis in (1, 2):
        beyond = dx.swapaxes(0, axis)
        dx = np.zeros((shape[axis], *beyond.shape[1:]), dpadded.dtype)
        for u in range(len(beyond)):
            dx[(u - before) % len(dx)] += beyond[u]  # (PAD)
        dx = dx.swapaxes(0, axis)
    return dx


def met(padded, i, j, shape, stride):
    """The pixels that the kernel's offset (i, j) meets at its places: a view (B, Y', X', C) of padded; shape is (Y', X')."""
    n_rows, n_columns = shape
    return padded[:, i : i + stride * (n_rows - 1) + 1 : stride, j : j + stride * (n_columns - 1) + 1 : stride]


# --------------------------------------------------------------------------------------------------------- convolution


def convolution_forward(x, W, b, stride=1, padding=(0, 0), edges="zeros"):
    """Convolution pre_yxo = Σ_ijc x̂_{ys+i, xs+j, c} W_ijco + b_o for each datum, with x̂ the padded image and s the stride.

    x (B, Y, X, I), W (K, K, I, O), b (O,), or (Y', X', O) with a bias for each pixel, -> pre (B, Y', X', O). ValueError for
    sizes that do not fit.

    An entry of W is used at every place, and a pixel by every place that meets it: the chain rule gives
        (CONV-x)  dx̂_uvc = Σ_ijo dpre_yxo W_ijco over the places with ys + i = u, xs + j = v
        (CONV-W)  dW_ijco = Σ_byx x̂_{ys+i, xs+j, c} dpre_yxo
        (CONV-b)  db_o = Σ_byx dpre_yxo
    For s = 1 (CONV-x) says y = u − i: a convolution of dpre with the kernel turned by 180°. (CONV-W) is one of x with dpre.
    """
    K, _, n_in, n_out = W.shape
    check_channels(x, n_in)
    shape = n_places(x.shape[1], K, stride, padding), n_places(x.shape[2], K, stride, padding)  # (Y', X')
    padded, pad_cache = pad_forward(x, padding, edges)
    pre = np.zeros((len(x), *shape, n_out), np.result_type(x, W, b))
    for i, j in np.ndindex(K, K):
        pre += met(padded, i, j, shape, stride) @ W[i, j]  # (B, Y', X', I) @ (I, O) -> (B, Y', X', O)
    return pre + b, (padded, pad_cache, W, b.shape, stride)


def convolution_backward(dpre, cache, need_dx=True):
    """Backward of convolution: dpre (B, Y', X', O) -> dx (B, Y, X, I), or None, dW (K, K, I, O), db of b's shape."""
    padded, pad_cache, W, b_shape, stride = cache
    n_in, n_out = W.shape[2:]
    shape, rows = dpre.shape[1:3], dpre.reshape(-1, n_out)  # (B Y' X', O)
    db = dpre.reshape(-1, *b_shape).sum(axis=0)  # (CONV-b)
    dW, dpadded = np.empty(W.shape, dpre.dtype), np.zeros(padded.shape, dpre.dtype)
    for i, j in np.ndindex(W.shape[:2]):
        dW[i, j] = met(padded, i, j, shape, stride).reshape(-1, n_in).T @ rows  # (CONV-W) (I, B Y' X') @ (B Y' X', O)
        if need_dx:
            met(dpadded, i, j, shape, stride)[...] += dpre @ W[i, j].T  # (CONV-x) (B, Y', X', O) @ (O, I)
    return pad_backward(dpadded, pad_cache) if need_dx else None, dW, db


# ------------------------------------------------------------------------------------------------ transposed convolution


def transposed_convolution_forward(x, W, b, stride=1, padding=(0, 0), edges="zeros"):
    """Transposed convolution: every pixel of x paints the kernel, times its value, into a large image, in steps of the stride.

    x (B, Y, X, I), W (I, K, K, O), b (O,), or (Y', X', O) with a bias for each pixel, -> pre (B, Y', X', O):
        painted_uvo = Σ_ijc x_yxc W_cijo over the places with ys + i = u, xs + j = v,      pre = painted without its padding + b
    That sum is (CONV-x): as a matrix it is the transpose of a convolution, the one with the large image as input and W_cijo as
    its W_ijoc, ⟨T x, y⟩ = ⟨x, Tᵀ y⟩. So its backward pass is that convolution's forward pass, and padding's two passes change
    places:
        (TRANSPOSED-x)  dx_yxc = Σ_ijo dpainted_{ys+i, xs+j, o} W_cijo,      dpainted = dpre with padding
        (TRANSPOSED-W)  dW_cijo = Σ_byx x_yxc dpainted_{ys+i, xs+j, o}
        (TRANSPOSED-b)  db_o = Σ_buv dpre_uvo
    """
    n_in, K, _, n_out = W.shape
    check_channels(x, n_in)
    B, shape, dtype = len(x), x.shape[1:3], np.result_type(x, W, b)
    large = (B, *(transposed_size(size, K, stride, padding) for size in shape), n_out)  # (B, Y', X', O)
    painted = np.zeros((B, *(size + sum(padding) for size in large[1:3]), n_out), dtype)
    for i, j in np.ndindex(K, K):
        met(painted, i, j, shape, stride)[...] += x @ W[:, i, j]  # (B, Y, X, I) @ (I, O) -> (B, Y, X, O)
    pre = pad_backward(painted, (large, padding, edges)) + b
    return pre, (x, W, b.shape, stride, padding, edges)


def transposed_convolution_backward(dpre, cache, need_dx=True):
    """Backward of transposed convolution: dpre (B, Y', X', O) -> dx (B, Y, X, I), or None, dW (I, K, K, O), db of b's shape."""
    x, W, b_shape, stride, padding, edges = cache
    n_in, K, _, n_out = W.shape
    shape, rows = x.shape[1:3], x.reshape(-1, n_in)  # (B Y X, I)
    db = dpre.reshape(-1, *b_shape).sum(axis=0)  # (TRANSPOSED-b)
    dpainted, _ = pad_forward(dpre, padding, edges)
    dW, dx = np.empty(W.shape, dpre.dtype), np.zeros(x.shape, dpre.dtype)
    for i, j in np.ndindex(K, K):
        dmet = met(dpainted, i, j, shape, stride)  # (B, Y, X, O)
        dW[:, i, j] = rows.T @ dmet.reshape(-1, n_out)  # (TRANSPOSED-W) (I, B Y X) @ (B Y X, O)
        if need_dx:
            dx += dmet @ W[:, i, j].T  # (TRANSPOSED-x) (B, Y, X, O) @ (O, I)
    return dx if need_dx else None, dW, db


# -------------------------------------------------------------------------------------------------------------- a layer


class FilterCache(NamedTuple):
    """What the backward pass of a filter layer needs of its forward pass."""

    convolution: tuple
    activated: object
    activation: str
    window: Window
    shape: tuple  # (B, Y', X', O)


def filter_forward(x, W, b, activation, window):
    """A layer of a network whose rows are images: h = activation(convolution or transposed convolution of x with W, + b).

    x (B, Y X I) -> h (B, Y' X' O), images as rows so that dense layers fit before and after; b (O,), or (Y' X' O,) with a bias
    for each pixel; activation is a key of ACTIVATIONS; window a Window. This is the composition that a back end may fuse.
    """
    activation_forward, _ = ACTIVATIONS[activation]
    forward = transposed_convolution_forward if window.is_transposed else convolution_forward
    images = x.reshape(len(x), window.rows, window.columns, -1)  # (B, Y X I) -> (B, Y, X, I)
    bias = b.reshape(*bias_shape(W, b, window))  # (O,) or (Y', X', O)
    pre, cache = forward(images, W, bias, window.stride, window.padding, window.edges)  # -> (B, Y', X', O)
    h, activation_cache = activation_forward(pre)
    return h.reshape(len(x), -1), FilterCache(cache, activation_cache, activation, window, h.shape)  # -> (B, Y' X' O)


def filter_backward(dh, cache, need_dx=True):
    """Backward of a filter layer: dh (B, Y' X' O) -> dx (B, Y X I), dW, db. need_dx=False leaves out dx, which is None then."""
    _, activation_backward = ACTIVATIONS[cache.activation]
    backward = transposed_convolution_backward if cache.window.is_transposed else convolution_backward
    dpre = activation_backward(dh.reshape(cache.shape), cache.activated)
    dx, dW, db = backward(dpre, cache.convolution, need_dx)
    return dx.reshape(len(dx), -1) if need_dx else None, dW, db.reshape(-1)


def bias_shape(W, b, window):
    """Of the bias of a layer: (O,), or (Y', X', O) where there is one for each pixel."""
    n_out = W.shape[-1]
    return (n_out,) if b.size == n_out else (*made_size(window, W.shape[1]), n_out)


def made_size(window, K):
    """Rows and columns of the images that a layer makes with a kernel of K."""
    size = transposed_size if window.is_transposed else n_places
    return tuple(size(n, K, window.stride, window.padding) for n in (window.rows, window.columns))
