"""Extrapolation of differences to a step of zero, in windows of neighbouring steps, with estimates of the errors."""

from operator import mul
from typing import NamedTuple

import numpy as np

from .arguments import EPS

NODES = 5  # steps in a window
APART = 4.0  # one-sided slopes are apart beyond so many of their estimated errors


class Window(NamedTuple):
    """What one window of the ladder tells."""

    value: float  # of the two-sided derivative
    error: float  # its estimate: truncation and rounding
    left: float
    right: float
    gap_error: float  # that of right - left

    @property
    def gap(self):
        return abs(self.right - self.left)

    @property
    def split(self):
        """Whether a kink lies at 0 or within the window."""
        return self.gap > APART * self.gap_error


def weights(power, nodes):
    """Those of the extrapolation to h = 0 of slopes at h, h/2, h/4, ... whose error is a series in h^power."""
    x = 0.5 ** (power * np.arange(nodes))
    return np.array([np.prod([xk / (xk - xi) for k, xk in enumerate(x) if k != i]) for i, xi in enumerate(x)])


def limits(power, nodes):
    """Three rows of weights (3, nodes): all slopes, without the first, without the last."""
    fewer = weights(power, nodes - 1)
    return np.stack([weights(power, nodes), np.concatenate([[0], fewer]), np.concatenate([fewer, [0]])]).tolist()


LIMITS = {(power, nodes): limits(power, nodes) for power in (1, 2) for nodes in range(2, NODES + 1)}


def extrapolated(slopes, power, rounding):
    """The limit of slopes at halved steps, and an estimate of its error; rounding is that of each slope. Lists, since these are
    faster than arrays for few numbers."""
    rows = LIMITS[power, len(slopes)]
    value, without_first, without_last = (sum(map(mul, row, slopes)) for row in rows)
    truncation = max(abs(value - without_first), abs(value - without_last))
    return value, truncation + sum(abs(weight) * r for weight, r in zip(rows[0], rounding))


def window(h, ahead, behind, here, noise):
    """The Window of the steps h with f(h), f(-h) and f(0); noise is that of f."""
    right_slopes = [(value - here) / step for value, step in zip(ahead, h)]
    left_slopes = [(here - value) / step for value, step in zip(behind, h)]
    rounding = [(noise + EPS * max(abs(a), abs(b))) / step for a, b, step in zip(ahead, behind, h)]
    doubled = [2 * r for r in rounding]
    value, error = extrapolated([(a + b) / 2 for a, b in zip(right_slopes, left_slopes)], 2, rounding)
    right, right_error = extrapolated(right_slopes, 1, doubled)
    left, left_error = extrapolated(left_slopes, 1, doubled)
    return Window(value, error, left, right, right_error + left_error)
