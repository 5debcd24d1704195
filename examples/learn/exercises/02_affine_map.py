"""Exercise 2: the affine map, the layer that has most of a network's numbers.

    pre = x W + b,   in components   pre_rj = Σ_i x_ri W_ij + b_j

Shapes: x (B, n_in), W (n_in, n_out), b (n_out,), pre (B, n_out). The batch has B rows, r = 1 to B.

Read before: lesson 02, examples/learn/02_affine_map.py.

Task: replace each `...` in affine_backward by one line. dname has the shape of name, always.

Hints
* Write dW_ij as a sum over all pre_rj that W_ij reaches, put in the slope ∂pre_rj/∂W_ij, then read the sum as a matrix product.
* Shapes almost derive the result: there is one product of x and dproduct (one of them transposed) that has the shape of W.
* b is added to each of the B rows. What is used B times collects B gradients.

    python examples/learn/check.py 2

Compare with, after solving: affine_backward in npvae/ops/layers.py.
"""


def affine_forward(x, W, b):
    product = x @ W  # (B, n_in) @ (n_in, n_out) -> (B, n_out)
    pre = product + b  # (B, n_out) + (n_out,) -> (B, n_out)
    return pre, (x, W)


def affine_backward(dpre, cache):
    x, W = cache
    dproduct = ...  # (B, n_out)     pre = product + b
    db = ...  # (n_out,)             pre = product + b
    dW = ...  # (n_in, n_out)        product = x @ W
    dx = ...  # (B, n_in)            product = x @ W
    return dx, dW, db
