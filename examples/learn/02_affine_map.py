# %% [markdown]
# # 02 The affine map: why dW = xᵀ dpre
#
# **Why.** Nearly all of a network's parameters, and most of its arithmetic, sit in one operation: pre = x W + b. Its backward
# pass is three short lines, (AFFINE-x), (AFFINE-W) and (AFFINE-b) of `npvae/ops/layers.py`. Here they are derived twice: with
# indices, which is a proof, and from the shapes, which is how one remembers them.
#
# **Read before.** Lesson 01: a product hands on the gradient times the other factor; gradients along several ways are added.
# Lectures (2024), "Weights and biases", in the notes that examples/README.md names.
#
# **Prediction.** dW has as many entries as W, but how many independent directions can a batch of B rows teach it? Each row
# adds one outer product of its input and its dpre, a matrix of rank 1. So the rank of dW is at most B, here **4**, although W
# is 8 × 6.

# %%
# ruff: noqa: N816 (dW is the field's own name)
import matplotlib.pyplot as plt
import numpy as np
from showing import keep

import npvae
from npvae.ops.layers import affine_backward, affine_forward

# %% [markdown]
# ## Forward
#
# Each row of x is one datum: x has the shape (B, n_in). W leads from n_in inputs to n_out outputs. Three different sizes, so
# that a wrong product does not fit.

# %%
B, n_in, n_out = 4, 8, 6
rng = np.random.default_rng(4)
x, W, b = rng.standard_normal((B, n_in)), rng.standard_normal((n_in, n_out)), rng.standard_normal(n_out)
pre = x @ W + b  # (B, n_in) @ (n_in, n_out) + (n_out,) -> (B, n_out)

# %% [markdown]
# In components, with r for the row: pre_rj = Σ_i x_ri W_ij + b_j. The rest of the network turns pre into the loss and hands
# back `dpre`, the gradient of the loss with respect to pre. Its shape is that of pre, always. Here it is given as random
# numbers, which stands for any network.

# %%
dpre = rng.standard_normal((B, n_out))

# %% [markdown]
# ## Derivation with indices
#
# W_ij meets x_ri in every row r, and nowhere else. It reaches B numbers, pre_1j to pre_Bj. Along each way the product rule
# gives the other factor, x_ri. The ways are added:
#
#     dW_ij = Σ_r x_ri dpre_rj        (AFFINE-W)
#     db_j  = Σ_r dpre_rj             (AFFINE-b)    the other factor is 1
#     dx_ri = Σ_j dpre_rj W_ij        (AFFINE-x)    x_ri reaches pre_r1 to pre_r,n_out, all in its own row
#
# (The docstrings of the package count the rows with the index b, in which b_j is still the bias.)
#
# Loops say it literally:

# %%
dW, db, dx = np.zeros_like(W), np.zeros_like(b), np.zeros_like(x)
for r in range(B):
    for j in range(n_out):
        db[j] += dpre[r, j]  # pre[r, j] = sum_i x[r, i] * W[i, j] + b[j]
        for i in range(n_in):
            dW[i, j] += x[r, i] * dpre[r, j]  # pre[r, j] = sum_i x[r, i] * W[i, j] + b[j]
            dx[r, i] += dpre[r, j] * W[i, j]  # pre[r, j] = sum_i x[r, i] * W[i, j] + b[j]

# %% [markdown]
# ## Derivation from the shapes
#
# Each gradient is linear in dpre and contains the other factor of the product. dW needs the shape (n_in, n_out). It is made of
# x (B, n_in) and dpre (B, n_out). The index B appears in both and not in the result, so it is summed over:
#
#     (n_in, B) @ (B, n_out) -> (n_in, n_out)     which is  xᵀ @ dpre, and nothing else fits.
#     (B, n_out) @ (n_out, n_in) -> (B, n_in)     which is  dpre @ Wᵀ.
#
# b has no index B. The forward pass copies it to every row (broadcasting), and the reverse of copying is summing, which gives
# (AFFINE-b).

# %%
dW_fast = x.T @ dpre  # pre = x @ W + b, (AFFINE-W) (n_in, B) @ (B, n_out) -> (n_in, n_out)
db_fast = dpre.sum(axis=0)  # pre = x @ W + b, (AFFINE-b) (B, n_out) -> (n_out,)
dx_fast = dpre @ W.T  # pre = x @ W + b, (AFFINE-x) (B, n_out) @ (n_out, n_in) -> (B, n_in)
for name, loop, fast in ("dW", dW, dW_fast), ("db", db, db_fast), ("dx", dx, dx_fast):
    print(f"{name}: loops and products differ by at most {np.abs(loop - fast).max():.0e}")
    assert np.allclose(loop, fast, rtol=0, atol=1e-13)

# %% [markdown]
# ## Shapes are not enough
#
# With square matrices everything fits, also what is wrong. Only a check with numbers sees the missing transposes. `check_pair`
# differentiates the forward numerically and compares every entry (lesson 04 says how). Here it judges the package's pair, and
# a pair whose dW lacks its transpose, on square matrices.


# %%
def without_transpose(dpre, cache):
    x, W = cache
    return dpre @ W.T, x @ dpre, dpre.sum(axis=0)  # wrong: dW should be x.T @ dpre


square = [rng.standard_normal((3, 3)), rng.standard_normal((3, 3)), rng.standard_normal(3)]
right = npvae.gradcheck.check_pair(affine_forward, affine_backward, *square)
wrong = npvae.gradcheck.check_pair(affine_forward, without_transpose, *square, assert_passed=False)
print(f"\nnpvae's affine pair: {right.verdict}. Without the transpose: {wrong.verdict}. The report on that one:\n{wrong}\n")
assert (right.verdict, wrong.verdict) == ("passed", "wrong")

# %% [markdown]
# So write tests with all sizes different, and with numbers that are not symmetric.
#
# ## What a batch can teach
#
# Read (AFFINE-W) row by row of the batch: dW = Σ_r x_r ⊗ dpre_r, where the outer product ⊗ has the entries x_ri dpre_rj. In
# each term all columns are multiples of x_r. So whatever the network and the loss, the step that SGD makes lies in the space
# of the inputs of this batch, and its rank is at most B. A weight whose input is zero in every row has the gradient zero.
#
# The singular values of dW show the rank: how many are not zero.

# %%
terms = [np.outer(x[r], dpre[r]) for r in range(B)]  # B of (n_in, n_out), rank 1 each
assert np.allclose(sum(terms), dW_fast, rtol=0, atol=1e-13)
singular_values = np.linalg.svd(dW_fast, compute_uv=False)
print("singular values of dW:", " ".join(f"{value:.1e}" for value in singular_values))

# %% [markdown]
# ## The picture
#
# Four outer products, one for each row, and their sum. Each of the four is stripes: every column is the same up to a factor.

# %%
figure = plt.figure(figsize=(11, 3.9), layout="constrained")
grid = figure.add_gridspec(1, B + 2, width_ratios=[1] * (B + 1) + [1.9])
limit = np.abs(dW_fast).max()
for place, matrix in enumerate([*terms, dW_fast]):
    axes = figure.add_subplot(grid[place])
    image = axes.imshow(matrix, cmap="RdBu_r", vmin=-limit, vmax=limit)
    row_title = f"row {place + 1}: $x_{place + 1} \\otimes dpre_{place + 1}$"
    axes.set_title(row_title + ("  +" if place < B - 1 else "  =") if place < B else "dW = xᵀ dpre", fontsize=10)
    axes.set(xticks=range(n_out), yticks=range(n_in), xlabel="output j")
    axes.tick_params(labelsize=7)
    if place == 0:
        axes.set_ylabel("input i")
figure.colorbar(image, ax=figure.axes, location="bottom", shrink=0.4, label="gradient")
axes = figure.add_subplot(grid[B + 1])
axes.semilogy(range(1, n_out + 1), singular_values, "o", color="#33608f")
axes.axvline(B + 0.5, color="#c8394b", ls="--", lw=1)
axes.text(B + 0.4, 1e-8, f"rank {B} = rows\nof the batch", color="#c8394b", ha="right")
axes.set(xlabel="number", xticks=range(1, n_out + 1), ylim=(1e-18, 1e3))
axes.set_title("singular values of dW", fontsize=10)
figure.suptitle("The gradient of a weight matrix is a sum of outer products, one for each row of the batch")
keep(figure, "02_affine_map")

# %% [markdown]
# **Now:** exercise 2, `python examples/learn/check.py 2`.

# %%
rank = int((singular_values > 1e-12 * singular_values[0]).sum())
assert rank == B
print(f"predicted {B}, measured {rank}")
