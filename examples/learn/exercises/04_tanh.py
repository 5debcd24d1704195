"""Exercise 4: tanh in atoms, where one number goes two ways.

    tanh(pre) = (e^pre - e^-pre)/(e^pre + e^-pre)          any shape, entry by entry

The forward pass is cut into atoms, one operation per line. up and down are used twice, in top and in bottom: their gradient is
the sum of what comes back on both ways.

Read before: lesson 03, examples/learn/03_activations.py.

Task: replace each `...` in tanh_backward by one line, from the last line of the forward to the first.

Hints
* h = top / bottom: the slope with respect to top is 1/bottom; with respect to bottom it is -top/bottom² (quotient rule).
* top = up - down and bottom = up + down: the slopes are 1 and -1, and 1 and 1.
* (e^u)' = e^u, so each exponential is its own slope; mind the minus sign inside of the second one.

When all is right, put your lines into each other on paper. Nearly everything cancels: dpre = dh (1 - h²), one line instead of
five. Delete the other lines, write this one, and check again: the judge accepts it too.

    python examples/learn/check.py 4

Compare with, after solving: tanh_backward in npvae/ops/layers.py.
"""

import numpy as np


def tanh_forward(pre):
    up = np.exp(pre)  # (B, H)
    down = np.exp(-pre)  # (B, H)
    top = up - down  # (B, H)
    bottom = up + down  # (B, H)
    h = top / bottom  # (B, H)
    return h, (pre, up, down, top, bottom, h)


def tanh_backward(dh, cache):
    pre, up, down, top, bottom, h = cache
    dtop = ...  # (B, H)       h = top / bottom
    dbottom = ...  # (B, H)    h = top / bottom
    dup = ...  # (B, H)        top = up - down     and     bottom = up + down
    ddown = ...  # (B, H)      top = up - down     and     bottom = up + down
    dpre = ...  # (B, H)       up = np.exp(pre)    and     down = np.exp(-pre)
    return dpre
