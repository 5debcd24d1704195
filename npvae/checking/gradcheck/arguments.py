"""What the checks share: theta and its gradient as dicts, random directions, errors, and what a function modifies.

Below `as_dicts`, theta, grad and the direction v are dicts name -> array.
"""

import math

import numpy as np

from .report import Row

EPS = np.finfo(np.float64).eps  # rounding: the gap between 1 and the next float64


def as_tuple(value):
    """What a function returned, as a tuple of its members: a single value becomes a tuple of one."""
    return value if isinstance(value, tuple) else (value,)


def float64_array(name, value):
    """value as an array, or ValueError under its name unless it is float64 and not empty."""
    value = np.asarray(value)
    if value.dtype != np.float64 or value.size == 0:
        raise ValueError(f"{name} must be a float64 array with entries, got {value.dtype} {value.shape}: "
                         "convert with .astype(np.float64), since float32 rounding would hide errors")  # fmt: skip
    return value


def of_dict(f):
    """f of one array as a function of the dict {"theta": array}."""
    return lambda theta: f(theta["theta"])


def as_dicts(f, theta, grad):
    """f, theta and grad with dicts in place of single arrays (under the name "theta"); every tensor of theta is float64."""
    if not isinstance(theta, dict):
        f, theta, grad = of_dict(f), {"theta": theta}, {"theta": grad}
    return f, {name: float64_array(name, value) for name, value in theta.items()}, grad


def misfits(theta, grad, threshold):
    """A failed row for each gradient that is missing, too many, not finite, or not of its tensor's shape and dtype."""
    rows = []
    for name in [*theta, *(name for name in grad if name not in theta)]:
        has, needs = (f"{np.asarray(d[name]).dtype} {np.shape(d[name])}" if name in d else "nothing" for d in (grad, theta))
        if has != needs:
            note = f"gradient is {has}, argument is {needs}"
            rows.append(Row(name, np.shape(theta.get(name)), math.inf, threshold, note=note))
        elif not np.all(np.isfinite(grad[name])):
            k = index_of_largest(np.where(np.isfinite(grad[name]), 0.0, np.inf))
            value = float(np.asarray(grad[name])[k])
            rows.append(Row(name, theta[name].shape, math.nan, threshold, k, value, note="gradient is not finite"))
    return rows


def random_direction(theta, names, rng):
    """A direction v of normal numbers in the tensors of names, and zero in the others."""
    return {name: rng.standard_normal(value.shape) if name in names else np.zeros(value.shape) for name, value in theta.items()}


def moved(theta, h, v):
    """θ + hv; complex for an imaginary h."""
    return {name: theta[name] + h * v[name] for name in theta}


def entry_products(grad, v):
    """The terms g_i v_i of the slope g·v, (n,), of the tensors in which v is not zero."""
    return np.concatenate([np.ravel(grad[name] * v[name]) for name in v if np.any(v[name])])


def scalar_value(f, theta):
    """f(theta), or ValueError if it is not a scalar."""
    value = f(theta)
    if np.shape(value) != ():
        raise ValueError(f"f must return a scalar, got an array of shape {np.shape(value)}")
    return value


def relative_error(difference, scale):
    """difference / scale, where 0 / 0 is 0 (equal to the last bit) and anything else over 0 is infinite."""
    return 0.0 if difference == 0 else math.inf if scale == 0 else float(difference) / float(scale)


def index_of_largest(difference):
    """Index of the largest entry, as a tuple of int. NaN counts as the largest, as argmax has it."""
    k = np.argmax(difference)
    return tuple(int(i) for i in np.unravel_index(k, np.shape(difference)))


def modifications(culprit, names, before, after):
    """A sentence for each array in which culprit, "forward" or "backward", has changed a bit."""
    return [f"{culprit} modifies {name}" for name, a, b in zip(names, before, after) if not same_bits(a, b)]


def same_bits(a, b):
    """Whether two arrays have the same shape and bits. What is no array is not compared and counts as the same."""
    return not isinstance(a, np.ndarray) or (a.shape == b.shape and a.tobytes() == b.tobytes())
