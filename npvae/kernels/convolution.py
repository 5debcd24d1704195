"""Compiled twin of the filter layers of `npvae.ops.convolution`: patches of a few images at a time, and products in tiles.

The numbers that the kernel meets at one place are copied side by side, a patch; the patches of an image are the rows of a
matrix, and everything is a product with it ("im2col", Chellapilla, Puri & Simard 2006):

    correlate        patches W        a convolution forward, and a transposed one's dx
    paint            x W, and its rows, patches, added to where they came from: a transposed one forward, a convolution's dx
    patch_gradient   patchesᵀ dpre    dW of a convolution; of a transposed one xᵀ patches

The patches of a whole batch would be K² / stride² times its size: they are made for so few images at a time that they stay in a
core's own cache, where making them again for the backward pass costs less than to read them back from memory.

Shapes as in `npvae.ops.convolution`.
"""

import numpy as np
from numba.extending import overload

from npvae.kernels.compile import jit
from npvae.kernels.dense import tile_4x1, tile_4x3, tile_8x1, tile_8x3
from npvae.kernels.layers import BACKWARD, FORWARD
from npvae.kernels.tiles import has_32_registers, lanes_of, product_tile
from npvae.ops import convolution
from npvae.ops.convolution import FilterCache, check_channels, made_size

BLOCK = 2**17  # numbers of the patches of a block, 512 kB of float32: half of a core's cache
tile_8x2, tile_4x2 = product_tile(8, 2), product_tile(4, 2)


def filter_forward(x, W, b, activation, window):
    """`npvae.ops.convolution.filter_forward`."""
    if np.result_type(x, W, b).kind == "c":
        return convolution.filter_forward(x, W, b, activation, window)
    images = np.ascontiguousarray(x).reshape(len(x), window.rows, window.columns, -1)  # (B, Y X I) -> (B, Y, X, I)
    check_channels(images, W.shape[0 if window.is_transposed else 2])
    shape = len(x), *made_size(window, W.shape[1]), W.shape[3]
    pre = np.empty(shape, W.dtype)
    pass_on = paint if window.is_transposed else correlate
    pass_on(images, matrix_of(W, window), *place(W, window), pre)  # -> (B, Y', X', O)
    pre = pre.reshape(-1, b.size)  # (B Y' X', O), or (B, Y' X' O) where each pixel has a bias
    h = pre if activation == "identity" else np.empty_like(pre)
    FORWARD[activation](pre, b, h)
    return h.reshape(len(x), -1), FilterCache((images, W), (pre, h), activation, window, shape)


def filter_backward(dh, cache, need_dx=True):
    """`npvae.ops.convolution.filter_backward`."""
    if len(cache.convolution) > 2:  # of NumPy's own, which takes complex numbers
        return convolution.filter_backward(dh, cache, need_dx)
    (images, W), (pre, h), window = cache.convolution, cache.activated, cache.window
    dh = np.ascontiguousarray(dh).reshape(pre.shape)
    dpre = dh if cache.activation == "identity" else np.empty_like(pre)
    db = np.empty(pre.shape[1], pre.dtype)
    BACKWARD[cache.activation](dh, pre, h, dpre, db)
    dpre = dpre.reshape(cache.shape)  # -> (B, Y', X', O)
    dW, (large, small) = np.zeros(W.shape, W.dtype), (dpre, images) if window.is_transposed else (images, dpre)
    patch_gradient(large, small, *place(W, window), window.is_transposed, matrix_of(dW, window))
    dx = np.empty_like(images) if need_dx else None
    if need_dx:
        pass_back = correlate if window.is_transposed else paint
        pass_back(dpre, matrix_of(W, window).T.copy(), *place(W, window), dx)
    return dx.reshape(len(dx), -1) if need_dx else None, dW, db


def matrix_of(W, window):
    """W as the matrix of a product with patches: (K K I, O), or (I, K K O) of a transposed convolution; a view."""
    return W.reshape(len(W), -1) if window.is_transposed else W.reshape(-1, W.shape[3])


def place(W, window):
    """What the kernels are told of a window: K, stride, before, after, and whether its edges are periodic."""
    return W.shape[1], window.stride, *window.padding, window.edges == "periodic"


def _correlate(x, W, K, stride, before, after, is_periodic, out):
    """out (B, Y', X', O) = the patches of x (B, Y, X, I) times W (K K I, O)."""
    n_images, n_rows, n_columns, n_out = out.shape
    n_places, (Y, X, n_in) = n_rows * n_columns, x.shape[1:]
    block = max(1, BLOCK // (n_places * len(W)))
    padded = np.zeros((Y + before + after, (X + before + after) * n_in), x.dtype)
    patches, made = np.empty((block * n_places, len(W)), x.dtype), out.reshape(-1, n_out)
    for first in range(0, n_images, block):
        last = min(first + block, n_images)
        for b in range(first, last):
            pad(x[b], before, is_periodic, padded)
            find_patches(padded, K, stride * n_in, stride, K * n_in, n_columns, patches[(b - first) * n_places :][:n_places])
        multiply(patches[: (last - first) * n_places], W, made[first * n_places : last * n_places])


def _paint(x, W, K, stride, before, after, is_periodic, out):
    """out (B, Y', X', O) = the rows of x (B, Y, X, I) W, patches (K, K, O), added up where they lie; W is (I, K K O)."""
    n_images, Y, X, n_in = x.shape
    n_places, (n_rows, n_columns, n_out) = Y * X, out.shape[1:]
    block = max(1, BLOCK // (n_places * W.shape[1]))
    padded = np.empty((n_rows + before + after, (n_columns + before + after) * n_out), x.dtype)
    patches, given = np.empty((block * n_places, W.shape[1]), x.dtype), x.reshape(-1, n_in)
    for first in range(0, n_images, block):
        last = min(first + block, n_images)
        multiply(given[first * n_places : last * n_places], W, patches[: (last - first) * n_places])
        for b in range(first, last):
            padded[:] = 0
            add_patches(patches[(b - first) * n_places :][:n_places], K, stride * n_out, stride, K * n_out, X, padded)
            unpad(padded, before, is_periodic, out[b])


def _patch_gradient(large, small, K, stride, before, after, is_periodic, is_transposed, out):
    """out (K K C, N) += the transposed patches of large (B, Y, X, C) times the pixels of small (B, Y', X', N), of all images;
    is_transposed: out (N, K K C), the transpose."""
    n_images, n_rows, n_columns, n_small = small.shape
    n_places, (Y, X, n_large) = n_rows * n_columns, large.shape[1:]
    size = K * K * n_large
    block = max(1, BLOCK // (n_places * size))
    padded = np.zeros((Y + before + after, (X + before + after) * n_large), large.dtype)
    patches, pixels, part = np.empty((block * n_places, size), large.dtype), small.reshape(-1, n_small), np.empty_like(out)
    for first in range(0, n_images, block):
        last = min(first + block, n_images)
        for b in range(first, last):
            pad(large[b], before, is_periodic, padded)
            found = patches[(b - first) * n_places :][:n_places]
            find_patches(padded, K, stride * n_large, stride, K * n_large, n_columns, found)
        found, seen = patches[: (last - first) * n_places], pixels[first * n_places : last * n_places]
        if is_transposed:
            transposed_multiply(seen, found, part)
        else:
            transposed_multiply(found, seen, part)
        out += part


def _pad(image, before, is_periodic, padded):
    """Write image (Y, X, C) into padded (Y + before + after, (X + before + after) C), whose edges stay unless they are
    periodic."""
    Y, X, n = image.shape
    if is_periodic:
        for u in range(len(padded)):
            for v in range(padded.shape[1] // n):
                for c in range(n):
                    padded[u, v * n + c] = image[(u - before) % Y, (v - before) % X, c]
        return
    rows = image.reshape(Y, X * n)
    for y in range(Y):
        for k in range(X * n):
            padded[before + y, before * n + k] = rows[y, k]


def _unpad(padded, before, is_periodic, image):
    """The backward pass of `pad`: image (Y, X, C) from padded."""
    Y, X, n = image.shape
    rows = image.reshape(Y, X * n)
    if is_periodic:
        rows[:] = 0
        for u in range(len(padded)):
            for v in range(padded.shape[1] // n):
                for c in range(n):
                    image[(u - before) % Y, (v - before) % X, c] += padded[u, v * n + c]
        return
    for y in range(Y):
        for k in range(X * n):
            rows[y, k] = padded[before + y, before * n + k]


def _find_patches(padded, K, step, stride, width, n_columns, patches):
    """Row r of patches (Y' X', K width): K pieces of padded, `width` numbers each, at the place r; the next place is `step`
    numbers further, the next row of places `stride` rows."""
    for r in range(len(patches)):
        y, start = r // n_columns * stride, r % n_columns * step
        for i in range(K):
            for k in range(width):
                patches[r, i * width + k] = padded[y + i, start + k]


def _add_patches(patches, K, step, stride, width, n_columns, padded):
    """The backward pass of `find_patches`: adds to padded."""
    for r in range(len(patches)):
        y, start = r // n_columns * stride, r % n_columns * step
        for i in range(K):
            for k in range(width):
                padded[y + i, start + k] += patches[r, i * width + k]


def multiply(a, b, out):
    """out (n_rows, n_columns) = a b."""
    np.dot(a, b, out)


def transposed_multiply(a, b, out):
    """out (n_rows, n_columns) = aᵀ b."""
    np.dot(a.T, b, out)


@overload(multiply)
def _multiply(a, b, out):
    def product(a, b, out):
        n_rows, n_columns = out.shape
        if n_rows >= 4 and n_columns >= lanes_of(out):
            tiled(a.reshape(-1), a.shape[1], np.int64(1), b.reshape(-1), out.reshape(-1), n_rows, len(b), n_columns)
        else:
            np.dot(a, b, out)

    return product


@overload(transposed_multiply)
def _transposed_multiply(a, b, out):
    def product(a, b, out):
        n_rows, n_columns = out.shape
        if n_rows >= 4 and n_columns >= lanes_of(out):
            tiled(a.reshape(-1), np.int64(1), a.shape[1], b.reshape(-1), out.reshape(-1), n_rows, len(b), n_columns)
        else:
            np.dot(a.T, b, out)

    return product


def _tiled(a, a_row, a_step, b, out, n_rows, n, n_columns):
    """out (n_rows, n_columns) = A B with A[i, k] = a[i a_row + k a_step], as `npvae.kernels.dense.product`, also of fewer
    columns: one vector or more, four rows or more."""
    lanes, tall = lanes_of(out), 8 if has_32_registers() and n_rows >= 8 else 4
    j = 0
    while j < n_columns:
        left = (n_columns - j) // lanes  # 4 as 2 + 2: a tile of one vector loads a number for each product
        n_vectors = 2 if left == 4 else min(3, n_columns // lanes, max(1, left))
        j = min(j, n_columns - n_vectors * lanes)
        i = 0
        while i < n_rows:
            height = tall if n_rows - i > 4 else 4
            i = min(i, n_rows - height)
            where = i * a_row, a_row, a_step, b, j, n_columns, out, out, i * n_columns + j, n_columns, n
            if height == 8:
                if n_vectors == 3:
                    tile_8x3(a, *where)
                elif n_vectors == 2:
                    tile_8x2(a, *where)
                else:
                    tile_8x1(a, *where)
            elif n_vectors == 3:
                tile_4x3(a, *where)
            elif n_vectors == 2:
                tile_4x2(a, *where)
            else:
                tile_4x1(a, *where)
            i += height
        j += n_vectors * lanes


tiled = jit(_tiled)
pad, unpad = jit(_pad), jit(_unpad)
find_patches, add_patches = jit(_find_patches), jit(_add_patches)
correlate, paint, patch_gradient = jit(_correlate), jit(_paint), jit(_patch_gradient)
