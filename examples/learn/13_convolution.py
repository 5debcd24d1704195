# %% [markdown]
# # 13 A convolution and its way back, on a 4 × 4 image
#
# **Why.** A dense layer that sees an image has a weight for every pair of pixels, and learns each corner anew. A convolution
# has one small kernel that looks everywhere. Its backward pass has the name of being difficult, because of all the indices. On
# an image of 16 pixels it can be written out: (CONV-x), (CONV-W) and (CONV-b) of `npvae/ops/convolution.py`.
#
# **Read before.** Lesson 02: an affine map and its three gradients. Lesson 04: how a gradient is checked. Dumoulin & Visin
# 2016, "A guide to convolution arithmetic for deep learning".
#
# **Prediction.** A kernel of 3 × 3 pixels has 2 × 2 places on an image of 4 × 4. Written as the matrix of an affine map from
# 16 numbers to 4 the convolution is mostly zeros: each place meets 9 pixels, so **36** entries are not zero, and among them
# there are only 9 different numbers.

# %%
# ruff: noqa: N816 (dW is the field's own name)
import matplotlib.pyplot as plt
import numpy as np
from showing import keep

import npvae
from npvae.ops.convolution import (
    convolution_backward,
    convolution_forward,
    transposed_convolution_forward,
)

# %% [markdown]
# ## Forward
#
# Put the kernel on the image, multiply what lies on each other, add up: one number for each place of the kernel.
#
#     pre_yx = Σ_ij x_{y+i, x+j} W_ij + b
#
# Mathematicians call this a correlation; in their convolution the kernel is turned by 180° first. A network learns its kernels,
# so it does not matter which way round they are kept.

# %%
rng = np.random.default_rng(13)
x, W, b = rng.integers(0, 4, (4, 4)).astype(float), np.array([[1.0, 2, -1], [-3, 3, 1], [-2, 1, 2]]), 0.5
pre = np.full((2, 2), b)
for y, v in np.ndindex(2, 2):
    for i, j in np.ndindex(3, 3):
        pre[y, v] += x[y + i, v + j] * W[i, j]
print(f"image\n{x}\nkernel\n{W}\npre\n{pre}")

# %% [markdown]
# ## Backward, with indices
#
# Nothing is new. Each product of the forward pass has two factors, and each factor receives dpre of that place times the other
# factor (lesson 01). Ways are added. So take the loops as they are, and turn every line round:

# %%
dpre = rng.standard_normal((2, 2))
dx, dW, db = np.zeros_like(x), np.zeros_like(W), 0.0
for y, v in np.ndindex(2, 2):
    db += dpre[y, v]
    for i, j in np.ndindex(3, 3):
        dx[y + i, v + j] += dpre[y, v] * W[i, j]  # pre[y, v] += x[y + i, v + j] * W[i, j]
        dW[i, j] += dpre[y, v] * x[y + i, v + j]  # pre[y, v] += x[y + i, v + j] * W[i, j]

# %% [markdown]
# ## Backward, as convolutions
#
# Read the two lines for one fixed entry of the result.
#
#     dW_ij = Σ_yv x_{y+i, v+j} dpre_yv     (CONV-W)  the forward formula, with dpre as the kernel
#     dx_uw = Σ_ij dpre_{u−i, w−j} W_ij     (CONV-x)  the indices run against each other: the kernel turned by 180°, on dpre
#                                                     with two rows and columns of zeros around it
#     db    = Σ_yv dpre_yv                  (CONV-b)
#
# So the backward pass of a correlation is a correlation, twice. That needs a function for one channel and no bias:


# %%
def correlate(image, kernel, padding=0):
    """The package's convolution of one image with one kernel."""
    no_bias, how = np.zeros(1), (1, (padding, padding))
    return convolution_forward(image[None, :, :, None], kernel[:, :, None, None], no_bias, *how)[0][0, :, :, 0]


for name, loop, fast in ("dW", dW, correlate(x, dpre)), ("dx", dx, correlate(dpre, W[::-1, ::-1], padding=2)):
    print(f"{name}: loops and correlation differ by at most {np.abs(loop - fast).max():.0e}")
    assert np.allclose(loop, fast, rtol=0, atol=1e-13)

# %% [markdown]
# The package's pair does this for many images, channels, strides and edges. It is judged like every pair, and so is one whose
# author has forgotten to turn the kernel. Where dpre has the shape of the image the forgotten turn goes unnoticed by shapes.


# %%
def not_turned(dpre, cache):
    wrong, dW, db = convolution_backward(dpre, (cache[0], cache[1], cache[2][::-1, ::-1], *cache[3:]))
    return wrong, dW, db


images, kernels, biases = rng.standard_normal((2, 4, 4, 2)), rng.standard_normal((3, 3, 2, 2)), rng.standard_normal(2)
arguments = images, kernels, biases, 1, (1, 1)
right = npvae.gradcheck.check_pair(convolution_forward, convolution_backward, *arguments, wrt=("x", "W", "b"))
wrong = npvae.gradcheck.check_pair(convolution_forward, not_turned, *arguments, wrt=("x", "W", "b"), assert_passed=False)
print(f"npvae's pair: {right.verdict}. Without the turn: {wrong.verdict}")
assert (right.verdict, wrong.verdict) == ("passed", "wrong")

# %% [markdown]
# ## The matrix
#
# A convolution is linear in the image, so it is a matrix A that acts on the 16 pixels. Its columns are what it makes of single
# white pixels. dx is Aᵀ dpre, as for every affine map.
#
# The matrix Aᵀ by itself, as a forward pass, is called a transposed convolution. It makes a large image of a small one: each
# number of the small image paints the kernel into the large one. Decoders are made of it. It does not undo the convolution:
# Aᵀ A is not the identity.

# %%
A = np.array([correlate(pixel.reshape(4, 4), W).ravel() for pixel in np.eye(16)]).T  # (4, 16)
assert np.allclose(A.T @ dpre.ravel(), dx.ravel(), rtol=0, atol=1e-13)
painted, _ = transposed_convolution_forward(dpre[None, :, :, None], W[None, :, :, None], np.zeros(1))
assert np.allclose(painted[0, :, :, 0], dx, rtol=0, atol=1e-13)
print(f"A is {A.shape[0]} × {A.shape[1]}; the first of its rows: {A[0].astype(int)}")

# %% [markdown]
# ## How often a pixel is painted
#
# With steps of 2 pixels (a stride of 2) a transposed convolution doubles an image. How many numbers paint each pixel? A kernel
# of ones tells. 3 is no multiple of 2: some pixels are painted by one number, some by two, some by four, and a decoder has to
# learn weights against this pattern, or one sees a chessboard (Odena, Dumoulin & Olah 2016). With 4 × 4 pixels each is painted
# by four. That is why `ConvolutionalVAE` has kernels of 4 and steps of 2.


# %%
def times_painted(K):
    """How many pixels of 7 × 7 paint each pixel in the middle of the large image."""
    ones = np.ones((1, 7, 7, 1)), np.ones((1, K, K, 1)), np.zeros(1)
    return transposed_convolution_forward(*ones, stride=2)[0][0, 3:-3, 3:-3, 0].astype(int)


for K in (3, 4):
    print(f"kernel of {K}, stride 2: a pixel is painted {sorted(set(times_painted(K).ravel()))} times")

# %% [markdown]
# ## The picture
#
# Above: the matrix A, the same nine numbers in every row, shifted; and Aᵀ, the way back. Below: dx is a sum of four kernels,
# one for each place; and the two patterns of paint.

# %%
figure = plt.figure(figsize=(10.5, 6.2), layout="constrained")
above, below = figure.subfigures(2, 1, height_ratios=[1, 1.15])
limit = np.abs(W).max()
for axes, matrix, title in zip(above.subplots(1, 2, width_ratios=[2.2, 1]), (A, A.T), ("A: pre = A x + b", "Aᵀ: dx = Aᵀ dpre")):
    axes.imshow(matrix, cmap="RdBu_r", vmin=-limit, vmax=limit)
    axes.set(title=title, xticks=range(0, matrix.shape[1], 4), yticks=range(0, matrix.shape[0], 4))
    axes.set_xlabel("pixel of x" if matrix is A else "place")
    axes.set_ylabel("place" if matrix is A else "pixel of x")
places = []
for y, v in np.ndindex(2, 2):
    places.append(np.zeros((4, 4)))
    places[-1][y : y + 3, v : v + 3] = dpre[y, v] * W
assert np.allclose(sum(places), dx, rtol=0, atol=1e-13)
limit = max(np.abs(place).max() for place in (*places, dx))
row = below.subplots(1, 7, width_ratios=[1] * 5 + [1.3, 1.3])
for n, (axes, image) in enumerate(zip(row, [*places, dx])):
    axes.imshow(image, cmap="RdBu_r", vmin=-limit, vmax=limit)
    axes.set_title(f"place {n + 1}  {'+' if n < 3 else '='}" if n < 4 else "dx", fontsize=10)
    axes.set(xticks=[], yticks=[])
for axes, K in zip(row[5:], (3, 4)):
    axes.imshow(times_painted(K), cmap="Greys", vmin=0, vmax=5)
    axes.set_title(f"times painted,\nkernel {K}, stride 2", fontsize=10)
    axes.set(xticks=[], yticks=[])
    for y, v in np.ndindex(4, 4):
        count = times_painted(K)[y, v]
        axes.text(v, y, count, ha="center", va="center", fontsize=7, color="white" if count > 2 else "black")
figure.suptitle("A convolution is a matrix with few different numbers; its backward pass is the transpose")
keep(figure, "13_convolution")

# %%
n_entries = np.count_nonzero(A)
assert n_entries == 36
print(f"predicted 36, measured {n_entries}")
