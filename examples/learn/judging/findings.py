"""What is wrong with an array where it is simple: shape, sign, factor, transpose, a part of a sum that is missing."""

import numpy as np

CLOSE = 1e-9  # relative to the largest entry: what counts as equal
CAUSES = {
    2: "a factor 1/2 is lost, or a term counted twice",
    0.5: "a factor 2 is lost, or there is a factor 1/2 too many",
    5: "5 is the number of rows B: a mean over the rows belongs here, or is taken too rarely",
    0.2: "5 is the number of rows B: a mean is taken over the rows where a sum is meant",
    7: "7 is the number of samples S: a mean over the samples belongs here",
    1 / 7: "7 is the number of samples S: a mean is taken over the samples where a sum is meant",
    35: "35 is B S: the mean over rows and samples belongs here",
}


def number_array(value):
    """The value as an array of float, or None where it is something else."""
    try:
        array = np.asarray(value)
        return array.astype(float) if array.dtype.kind in "fiub" else None
    except (TypeError, ValueError):
        return None


def fits(value, right, entrywise=False):
    """Whether two arrays have the same shape and are equal to rounding; infinite entries have to be the same."""
    if np.shape(value) != np.shape(right):
        return False
    return error_of(value, right, entrywise) <= CLOSE


def error_of(value, right, entrywise=False):
    """The largest difference, relative to the largest entry of right, or of each entry to itself."""
    with np.errstate(all="ignore"):
        same = np.equal(value, right) | (np.isnan(value) & np.isnan(right))
        scale = np.abs(right) if entrywise else np.abs(right).max(initial=0.0, where=np.isfinite(right))
        relative = np.abs(np.subtract(value, right)) / np.where((scale > 0) | entrywise, scale, 1.0)
    relative = np.where(same, 0.0, np.where(np.isfinite(relative), relative, np.inf))
    return float(relative.max(initial=0.0))


def worst_entry(value, right, entrywise=False):
    """Where the two differ most, and by what."""
    with np.errstate(all="ignore"):
        difference = np.abs(np.subtract(value, right)) / (np.where(right == 0, 1, np.abs(right)) if entrywise else 1.0)
        difference = np.where(np.equal(value, right), 0.0, np.where(np.isnan(difference), np.inf, difference))
    k = np.unravel_index(np.argmax(difference), np.shape(right))
    where = f"at [{', '.join(str(int(i)) for i in k)}] " if k else ""
    return f"{where}yours {value[k]:.5g}, right {right[k]:.5g}"


def shape_finding(name, value, right):
    """What to do about a wrong shape."""
    said = f"the shape is {value.shape}, and has to be {right.shape}, that of {name}"
    for axis in range(value.ndim):
        if fits(value.sum(axis=axis), right):
            return f"{said}: it is not summed over axis {axis}"
    if value.ndim == 2 and fits(value.T, right):
        return f"{said}: it is the transpose of the right one"
    try:
        filled = np.broadcast_to(value, right.shape)
    except ValueError:
        return said
    return f"{said}: the numbers are right, fill them up with np.ones_like({name})" if fits(filled, right) else said


def constant_ratio(value, right):
    """c if value = c right in every entry, else None."""
    largest = np.abs(right).max(initial=0.0)
    counted = np.abs(right) > 1e-3 * largest
    if largest == 0 or not counted.any():
        return None
    ratio = float(value[counted][0] / right[counted][0])
    return ratio if ratio != 0 and fits(value, ratio * right) else None


def factor_finding(ratio):
    if abs(ratio + 1) < 1e-9:
        return "the sign is the opposite of the right one"
    for known, cause in CAUSES.items():
        for sign, say in ((1, ""), (-1, ", and the sign is the opposite")):
            if abs(ratio - sign * known) < 1e-9 * known:
                return f"it is {known:.6g} times the right one{say}: {cause}"
    return f"it is {ratio:.6g} times the right one"


def part_finding(name, value, right, parts):
    """Whether one of the ways on which name reaches the result is forgotten or wrong; parts: code line -> its share."""
    for line, part in parts.items():
        ratio = constant_ratio(value, part)
        if ratio is not None and abs(ratio - 1) > 1e-9:
            return f"only the part that comes through `{line}` is there, and {ratio:.6g} times what it should be"
        if fits(value, right - part):
            return f"the way through `{line}` is missing: {name} is used there too, and the gradients of all ways are added"
        ratio = constant_ratio(value - (right - part), part)
        if ratio is not None:
            how = "has the opposite sign" if abs(ratio + 1) < 1e-9 else f"is {ratio:.6g} times what it should be"
            return f"the part that comes through `{line}` {how}"
    return ""


def finding(name, value, right, parts, local):
    """One sentence on a wrong gradient of `name`, "" where it is nothing simple.

    parts() gives the share of each line that uses the name, local() the gradient for an upstream of ones.
    """
    if value.shape != right.shape:
        return shape_finding(name, value, right)
    if not np.all(np.isfinite(value)):
        return "it is not finite" if np.all(np.isfinite(right)) else ""
    if not value.any():
        return "it is zero everywhere"
    ratio = constant_ratio(value, right)
    if ratio is not None and (value.size > 1 or any(abs(abs(ratio) - simple) < 1e-9 for simple in (1, 2, 0.5))):
        return factor_finding(ratio)
    if value.ndim == 2 and value.shape[0] == value.shape[1] and fits(value.T, right):
        return "it is the transpose of the right one"
    if fits(value, local()):
        return "the upstream gradient is missing: this is the slope alone"
    found = parts()
    return part_finding(name, value, right, found) if len(found) > 1 else ""
