"""Exercise 7: a network with one hidden layer.

    pre1 = x W1 + b1,   h1 = tanh(pre1),   out = h1 W2 + b2

Shapes: x (B, D), W1 (D, H), b1 (H,), W2 (H, n_out), b2 (n_out,). The data x need no gradient.

Nothing here is new: exercise 2, tanh, exercise 2 once more. What is new is the order. The gradient goes through the last layer
first, and each layer hands the gradient of its input to the one before it.

Read before: lesson 05, examples/learn/05_a_network_fits_a_function.py.

Task: replace each `...` in two_layers_backward by one line.

Hints
* dh1 is the "dx" of the second layer: it goes along W2 backward.
* The slope of tanh is 1 - h1², with the output h1 that is in the cache.
* Before you use a product, write its shapes down: (B, n_out) and (H, n_out) have to give (B, H). The judge takes
  H = n_out = 3, so that shapes do not save you from a wrong transpose.

    python examples/learn/check.py 7

Compare with, after solving: mlp_backward in npvae/ops/mlp.py, which does this for any number of layers.
"""

import numpy as np


def two_layers_forward(x, W1, b1, W2, b2):
    pre1 = x @ W1 + b1  # (B, D) @ (D, H) + (H,) -> (B, H)
    h1 = np.tanh(pre1)  # (B, H)
    out = h1 @ W2 + b2  # (B, H) @ (H, n_out) + (n_out,) -> (B, n_out)
    return out, (x, pre1, h1, W2)


def two_layers_backward(dout, cache):
    x, pre1, h1, W2 = cache
    dW2 = ...  # (H, n_out)     out = h1 @ W2 + b2
    db2 = ...  # (n_out,)       out = h1 @ W2 + b2
    dh1 = ...  # (B, H)         out = h1 @ W2 + b2
    dpre1 = ...  # (B, H)       h1 = np.tanh(pre1)
    dW1 = ...  # (D, H)         pre1 = x @ W1 + b1
    db1 = ...  # (H,)           pre1 = x @ W1 + b1
    return dW1, db1, dW2, db2
