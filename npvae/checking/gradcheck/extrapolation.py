"""Extrapolation of differences to a step of zero, in windows of neighbouring steps, with estimates of the errors."""

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
    return np.stack([weights(power, nodes), np.concatenate([[0], fewer]), np.concatenate([fewer, [0]])])


LIMITS = {(power, nodes): limits(power, nodes) for power in (1, 2) for nodes in range(2, NODES + 1)}


def extrapolated(slopes, power, rounding):
    """The limit of slopes (n, ...) at halved steps, and an estimate of its error; rounding (n, ...) is that of each slope."""
    rows = LIMITS[power, len(slopes)]
    flat = slopes.reshape(len(slopes), -1)
    value, without_first, without_last = (row.reshape(slopes.shape[1:]) for row in rows @ flat)
    truncation = np.maximum(np.abs(value - without_first), np.abs(value - without_last))
    return value, truncation + (np.abs(rows[0]) @ rounding.reshape(flat.shape)).reshape(value.shape)


def window(h, ahead, behind, here, noise):
    """The Window of steps h (n,) with f(h), f(-h) (n, ...) and f(0); noise is that of f."""
    ahead_change, behind_change = ahead - here, here - behind
    central = (ahead_change + behind_change) / (2 * h)
    rounding = (noise + EPS * np.maximum(np.abs(ahead), np.abs(behind))) / h
    value, error = extrapolated(central, 2, rounding)
    right, right_error = extrapolated(ahead_change / h, 1, 2 * rounding)
    left, left_error = extrapolated(behind_change / h, 1, 2 * rounding)
    return Window(value, error, left, right, right_error + left_error)
