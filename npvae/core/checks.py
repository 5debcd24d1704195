"""Input checks and their messages: each ValueError is one line with the argument, what it got and what it needs."""

import numbers

import numpy as np


class NpvaeWarning(UserWarning):
    """What goes on, but not quite as asked for."""


def choice(name, value, allowed):
    """Raise ValueError unless value is one of the allowed names."""
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(allowed)}; got {value!r}")


def integer(name, value, minimum, maximum=None):
    """`value` as an int in [minimum, maximum], else ValueError."""
    is_integer = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if not is_integer or value < minimum or (maximum is not None and value > maximum):
        needs = f"of at least {minimum}" if maximum is None else f"from {minimum} to {maximum}"
        raise ValueError(f"{name} must be an integer {needs}; got {value!r}")
    return int(value)


def number(name, value, minimum, exclusive=False):
    """`value` as a finite float of at least `minimum` (above it if exclusive), else ValueError."""
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool) and np.isfinite(value)
    if not is_number or value < minimum or (exclusive and value == minimum):
        raise ValueError(f"{name} must be a finite number {'above' if exclusive else 'of at least'} {minimum}; got {value!r}")
    return float(value)


def plain_array(name, value):
    """`value` as a plain ndarray, not a copy where it is one; ValueError for rows of different lengths and for masked values,
    since what lies behind a mask is no data."""
    parts = value if isinstance(value, list | tuple) else (value,)
    n_masked = sum(np.ma.count_masked(part) for part in parts if isinstance(part, np.ma.MaskedArray))
    if n_masked:
        raise ValueError(f"{name} must hold no masked values; got {n_masked}: fill them or leave out their rows")
    try:
        return np.asarray(value)
    except ValueError:
        raise ValueError(f"{name} must be a rectangular array of numbers; got rows of different lengths") from None


def real_array(name, value, ndims=(2,), n_columns=None):
    """`value` as a real array of non-zero size and one of the given numbers of axes, else ValueError."""
    array = plain_array(name, value)
    width = "D" if n_columns is None else n_columns
    needs = f"{name} must be a real array of shape {' or '.join('(' + 'n, ' * (n - 1) + f'{width})' for n in ndims)}"
    if array.dtype.kind not in "fiub":
        hint = f": if these are numbers, give {name}.astype(float)" if array.dtype == object else ""
        raise ValueError(f"{needs}; got dtype {array.dtype}{hint}")
    if array.ndim not in ndims or n_columns not in (None, array.shape[-1]):
        raise ValueError(f"{needs}; got shape {array.shape}")
    if array.size == 0:
        raise ValueError(f"{needs} with at least one row; got shape {array.shape}")
    return array


def converted(name, array, dtype):
    """`array` C-contiguous and of a model's dtype; ValueError where values are not finite then. For complex128 it is float64,
    since the complex step of a model moves its parameters alone."""
    with np.errstate(over="ignore"):  # a value beyond float32 becomes inf, which is refused below
        array = np.ascontiguousarray(array, np.float64 if dtype == np.complex128 else dtype)
    finite(name, array)
    return array


def finite(name, array):
    """Raise ValueError if an array holds NaN or infinity, saying where."""
    ok = np.isfinite(array)
    if not ok.all():
        index = tuple(int(i) for i in np.argwhere(~ok)[0])
        raise ValueError(f"{name} must be finite; got {array[index]} at {list(index)} ({(~ok).sum()} such values)")


def unit_interval(name, array, dtype=None):
    """An array of floats in [0, 1], as Bernoulli targets must be, else ValueError. A rounding error beyond that, at most four
    units in the last place of 1 in its dtype (or in `dtype`, if that is coarser), is taken away in a copy."""
    low, high = array.min(), array.max()
    if low >= 0 and high <= 1:
        return array
    rounding = 4 * max(np.finfo(kind).eps if np.dtype(kind).kind in "fc" else 0 for kind in (array.dtype, dtype or array.dtype))
    if low < -rounding or high > 1 + rounding:
        hint = f": divide by the largest value there can be, {high:.8g} or more (npvae train --scale)" if low >= 0 else ""
        raise ValueError(f"{name} must lie in [0, 1] for the Bernoulli likelihood; got values from {low} to {high}{hint}")
    return np.clip(array, 0, 1)
