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
NOT_FINITE = "it is not finite: look for the logarithm of a negative number, a division by 0, or an exponential that overflows"


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
    for axis, length in enumerate(value.shape):
        if length == 1 and fits(value.squeeze(axis), right):
            return f"{said}: the numbers are right, but axis {axis} of length 1 is kept (by keepdims or [None])"
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


def simple_factor(ratio):
    """What is said of a factor that has a cause of its own, "" for any other."""
    if abs(ratio + 1) < 1e-9:
        return "the sign is the opposite of the right one"
    for known, cause in CAUSES.items():
        for sign, say in ((1, ""), (-1, ", and the sign is the opposite")):
            if abs(ratio - sign * known) < 1e-9 * known:
                return f"it is {known:.6g} times the right one{say}: {cause}"
    return ""


def named_factor(value, right, known):
    """Whether value is right times ±v, ±2 v or ±v/2, or their squares or inverses, with one of the known values v."""
    for name, held in known.items():
        v = number_array(held)
        if v is None or not v.any() or np.all(np.abs(v) == 1) or np.shape(right * 0) != broadcast_shape(v, right):
            continue
        for term, factor in ((name, v), (f"2 * {name}", 2 * v), (f"{name} / 2", v / 2)):
            for power in (1, 2):
                for sign in (1, -1):
                    if fits(value, sign * right * factor**power):
                        return factor_text(term, power, sign, v)
                    if fits(value * factor**power, sign * right):
                        return factor_text(term, -power, sign, v)
    return ""


def broadcast_shape(a, b):
    try:
        return np.broadcast_shapes(np.shape(a), np.shape(b))
    except ValueError:
        return None


def factor_text(term, power, sign, v):
    bracketed = f"({term})" if " " in term else term
    what = {1: term, -1: f"1 / {bracketed}", 2: f"{bracketed}**2", -2: f"1 / {bracketed}**2"}[power]
    why = {
        1: "this factor is too many, or a division by it is missing",
        -1: "this factor is missing, or a division by it is too many",
        2: f"it is multiplied by {term} where it has to be divided by it (without brackets, a / b * c is (a / b) * c)",
        -2: f"it is divided by {term} where it has to be multiplied by it",
    }[power]
    return f"it is the right one times {what}{' and -1' if sign < 0 else ''}: {why}"


def upstream_finding(value, right, ways, local):
    """Whether a gradient from above is missing: value is the slope alone, for upstream gradients of one."""
    slopes = sum(way.slope for way in ways) if ways else np.nan
    if fits(value, slopes):
        targets = " and ".join(dict.fromkeys(str(way.target) for way in ways))
        return f"the upstream gradient is missing: this is the slope of {targets} alone"
    if fits(value, local):
        return "the upstream gradient is missing: this is right for an upstream gradient of ones only"
    for way in ways if len(ways) > 1 else ():
        if fits(value, right - way.share + way.slope):
            return f"the upstream gradient d{way.target} is missing in the part that comes through `{way.code}`"
    return ""


def part_finding(name, value, right, ways):
    """Whether one of the ways on which name reaches the result is forgotten or wrong."""
    for way in ways:
        ratio = constant_ratio(value, way.share)
        if ratio is not None and abs(ratio - 1) > 1e-9:
            return f"only the part that comes through `{way.code}` is there, and {ratio:.6g} times what it should be"
        if fits(value, right - way.share):
            return f"the way through `{way.code}` is missing: {name} is used there too, and the gradients of all ways are added"
        ratio = constant_ratio(value - (right - way.share), way.share)
        if ratio is not None:
            how = "has the opposite sign" if abs(ratio + 1) < 1e-9 else f"is {ratio:.6g} times what it should be"
            return f"the part that comes through `{way.code}` {how}"
    return ""


def finding(name, value, right, known, ways=list, local=lambda: np.nan):
    """One sentence on a wrong gradient of `name`, "" where it is nothing simple; known: name -> value of all that is around.

    ways() gives the lines that use the name, local() the gradient for upstream gradients of ones.
    """
    if value.shape != right.shape:
        said = shape_finding(name, value, right)
        if broadcast_shape(value, right) != right.shape or ": " in said:
            return said
        filled = finding(name, np.broadcast_to(value, right.shape), right, known, ways, local)
        return f"{said}; filled up to that shape, {filled}" if filled else said
    if not np.all(np.isfinite(value)):
        return NOT_FINITE if np.all(np.isfinite(right)) else ""
    if not value.any():
        return "it is zero everywhere"
    if fits(value, right):
        return "the large entries are right, and the small ones have lost their digits"
    found = ways()
    said = upstream_finding(value, right, found, local())
    if said:
        return said
    ratio = constant_ratio(value, right)
    said = (simple_factor(ratio) if ratio is not None else "") or named_factor(value, right, known)
    if said:
        return said
    if ratio is not None and value.size > 1:
        return f"it is {ratio:.6g} times the right one"
    if value.ndim == 2 and value.shape[0] == value.shape[1] and fits(value.T, right):
        return "it is the transpose of the right one"
    return part_finding(name, value, right, found) if len(found) > 1 else ""
