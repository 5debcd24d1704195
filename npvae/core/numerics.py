"""Sums that keep their digits: the dtype that they run in, and the logarithm of a sum of exponentials."""

import numpy as np


def accumulator(values):
    """The dtype that sums of `values` run in: float64, or complex128 for the complex step."""
    return np.result_type(values.dtype, np.float64)


def log_sum_exp(values):
    """log Σ e^values over the first axis, without overflow: (S, B) -> (B,)."""
    largest = values.real.max(axis=0)
    return largest + np.log(np.exp(values - largest).sum(axis=0))
