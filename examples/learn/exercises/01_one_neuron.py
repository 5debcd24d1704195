"""Exercise 1: one neuron and the chain rule.

One number x goes through one neuron, and its output h is compared with a target:

    pre = w x + b,   h = sigmoid(pre) = 1/(1 + e^-pre),   loss = (h - target)²/2

The backward pass walks through these lines from the last to the first. In npvae dname is always the gradient of the final loss
with respect to name. The function is handed dloss, the gradient with respect to its own output: 1 if nothing comes after it.
Each line multiplies the gradient of its output by one slope:

    dinput = doutput * (slope of the output with respect to the input)

Read before: lesson 01, examples/learn/01_one_neuron.py.

Task: replace each `...` in neuron_backward by one line of code. The comment quotes the forward line that it differentiates.

Hints
* The slope of the sigmoid can be written with its output alone: h (1 - h).
* pre = w * x + b has three inputs, and so three slopes: that with respect to w is x.

    python examples/learn/check.py 1

Compare with, after solving: sigmoid_backward in npvae/ops/layers.py.
"""

import numpy as np


def neuron_forward(x, w, b, target):
    pre = w * x + b
    h = 1 / (1 + np.exp(-pre))
    error = h - target
    loss = 0.5 * error**2
    return loss, (x, w, pre, h, error)


def neuron_backward(dloss, cache):
    x, w, pre, h, error = cache
    derror = ...  # loss = 0.5 * error**2
    dh = ...  # error = h - target
    dpre = ...  # h = 1 / (1 + np.exp(-pre))
    dw = ...  # pre = w * x + b
    dx = ...  # pre = w * x + b
    db = ...  # pre = w * x + b
    return dx, dw, db
