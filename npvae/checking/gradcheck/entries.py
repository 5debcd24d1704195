"""One tensor's gradient against differences in each entry: for `fd_check`, and `check_pair` where complex numbers fail."""

import math
from typing import NamedTuple

import numpy as np

from .arguments import (
    EPS,
    dtype_note,
    explanation,
    few_bits,
    generator,
    index_of_largest,
    middle,
    nearby,
    precision_of,
    random_direction,
    relative_error,
    sizes,
)
from .derivatives import SURE, derivative, number
from .extrapolation import window
from .report import Row

QUICK = (5, 6, 7)  # the steps size/2^j of the first look at each entry; only entries that it does not settle are looked into
WIDEST = 1e-3  # what rounding may make of a threshold; beyond it there is no verdict
OUTSIDE = (
    "theta lies on a kink, and the gradient outside of the slopes on its two sides: where several kinks meet (weights of zero) "
    "that may be right; move theta"
)
MANY = 2000  # entries among which ties are looked for one by one
ENOUGH = 4  # entries looked into, after which one wrong entry settles the matter


class Entries(NamedTuple):
    """The derivatives of a scalar function in each entry of a tensor, as arrays of its shape."""

    value: np.ndarray
    error: np.ndarray
    left: np.ndarray
    right: np.ndarray
    tie: np.ndarray
    wrong: np.ndarray  # where the gradient cannot be the derivative
    natural: float  # the size that a derivative of this function may well have here: what zero is judged by


def differences_row(F, x, name, grad, threshold, atol=0.0, valid=None):
    """The Row of a gradient against differences of F, a scalar function of the float64 array x, in each entry.

    error = ‖g_fd − g‖ / (‖g_fd‖ + ‖g‖). valid(x), if given, is False where F has crossed a kink.
    """
    given, grad = grad, np.asarray(grad, dtype=np.float64)
    threshold = max(threshold, precision_of(given))
    with np.errstate(all="ignore"):
        found = entry_slopes(F, x, grad, threshold, atol, valid)
    ties, missing = found.tie & ~found.wrong, ~np.isfinite(found.value) & ~found.wrong
    reference = np.where(ties | missing, grad, found.value)  # any slope between the one-sided ones is right
    difference, doubtful = np.abs(grad - reference), np.where(ties | missing, 0, found.error)
    k = index_of_largest(np.where(found.wrong, np.inf, 0) + difference)
    scale = np.linalg.norm(reference) + np.linalg.norm(grad)
    error, sight = (relative_error(np.linalg.norm(d), scale) for d in (difference, doubtful))
    notes, doubt = [dtype_note(given)], ""
    limit = max(threshold, relative_error(atol, np.abs(reference).max() if scale else 0.0) if atol else 0)
    if found.wrong.any() and not error <= limit:
        notes.append(explanation(grad, found.value))
    elif difference.max() <= atol and atol:
        limit = max(limit, error)
    elif zero_to_rounding(grad, reference, doubtful.max(), found.natural):
        notes.append(f"zero to rounding, {doubtful.max():.0e}")
        error = min(error, limit)
    elif SURE * sight > limit or error > limit:
        limit, doubt = hidden_by_rounding(max(SURE * sight, error), limit)
        notes.append(f"rounding of f: errors below {limit:.0e} are not seen")
    if missing.any():
        notes.append(f"{missing.sum()} of {missing.size} entries left out, around which f has no values")
        if 2 * missing.sum() > missing.size:
            doubt = "most entries are left out: move theta"
    if ties.any():
        left, right, near = found.left, found.right, SURE * found.error + threshold * np.abs(grad).max()
        outside = ties & ((grad < np.minimum(left, right) - near) | (grad > np.maximum(left, right) + near))
        notes.append(tie_note(found, outside, grad) if outside.any() else f"{tie_note(found, ties, grad)} lies between")
        doubt = doubt or (OUTSIDE if outside.any() else "")
        twice, sentence = counted_twice(F, x, grad)
        error, notes = max(error, twice), [*notes, sentence]
    details = {"ties": int(ties.sum()), "left_out": int(missing.sum()), "sight": float(sight)}
    shown = float(found.value[k])
    return Row(name, grad.shape, error, limit, k, float(grad[k]), shown, "; ".join(filter(None, notes)), details, doubt)


def hidden_by_rounding(error, limit):
    """The threshold that rounding makes of a limit where it hides errors of this size, and a doubt where that is too much."""
    reached = max(limit, 10.0 ** math.ceil(math.log10(error)))
    if reached <= max(WIDEST, limit):
        return reached, ""
    return reached, (
        f"rounding of f hides errors below {reached:.0e} of the gradient (float32 inside, an ill-conditioned solve, or a "
        f"gradient that cancels?): compute in float64, move theta, or accept that by threshold={reached:.0e}"
    )


def tie_note(found, ties, grad):
    """The number of entries at ties, and the slopes of one."""
    k = tuple(int(i) for i in np.argwhere(ties)[0])
    slopes = f"slopes {found.left[k]:.4g} and {found.right[k]:.4g} on its sides at {k}"
    return f"{ties.sum()} of {ties.size} entries at a tie, {slopes}, gradient {grad[k]:.4g}"


def counted_twice(F, x, grad):
    """Where some entries are at ties: the error and a sentence if f, along all entries moved together, has a slope that the
    gradient does not have; 0 and "" otherwise."""
    v = np.full(x.shape, float(few_bits(middle(sizes(x)))))
    with np.errstate(all="ignore"):
        found = derivative(lambda t: F(x + t * v), 1.0, thorough=True)
    slope, scale = float((grad * v).sum()), float(np.abs(grad * v).sum())
    if found.tie or found.supports(slope) or abs(found.value - slope) <= WIDEST * scale:
        return 0.0, ""
    pair = f"{found.value / v.flat[0]:.6g}, the gradient's entries add up to {slope / v.flat[0]:.6g}"
    return relative_error(abs(found.value - slope), scale), f"ties counted more than once: moved together they give {pair}"


def wrong_at_tie(F, x, k, slope, g):
    """Whether g, a gradient outside of the slopes on both sides of a tie in entry k, is wrong: the kink is the entry's own, as
    of relu(x_k) or |x_k|, still there when all other entries are moved. Where several kinks meet, as of relu(x @ W) at W = 0,
    a right gradient may lie outside: it has none of their slopes, or all."""
    reach = (0.0, slope.left, slope.right, slope.left + slope.right)
    if min(reach) - SURE * slope.error <= g <= max(reach) + SURE * slope.error:
        return False
    z = nearby({"x": x}, generator(0, "kink"), 1e-4)["x"]
    z[k] = x[k]
    with np.errstate(all="ignore"):
        return derivative(lambda h: F(shifted(z, k, h)), float(sizes(x)[k]), thorough=True).tie


def shifted(x, k, h):
    z = x.copy()
    z[k] += h
    return z


class Tie(NamedTuple):
    """An entry whose kink is at theta itself."""

    index: tuple
    note: str
    outside: bool  # the gradient is not between the slopes on both sides
    wrong: bool


def ties_in(F, x, grad):
    """The Ties of F at x, among the first entries if there are very many."""
    size, here, found = sizes(x), number(F, x), []
    with np.errstate(all="ignore"):
        for k in list(np.ndindex(x.shape))[:MANY]:
            h = float(few_bits(size[k])) * 0.5 ** np.arange(5, 8)
            ahead, behind = (np.array([number(F, shifted(x, k, sign * step)) for step in h]) for sign in (1, -1))
            if window(h, ahead, behind, here, EPS * abs(here)).split:
                slope = derivative(lambda h, k=k: F(shifted(x, k, h)), float(size[k]), here=here, thorough=True)
                if slope.tie:
                    outside = not slope.supports(float(grad[k]))
                    note = f"slopes {slope.left:.4g} and {slope.right:.4g} on the sides of {k}, gradient {grad[k]:.4g}"
                    found.append(Tie(k, note, outside, outside and wrong_at_tie(F, x, k, slope, float(grad[k]))))
    return found


def zero_to_rounding(grad, reference, error, natural):
    """Whether all entries are zero within their error, which is nothing beside the slopes that this function may have."""
    return max(np.abs(grad).max(), np.abs(reference).max()) <= SURE * error and error <= 1e-9 * natural


def entry_slopes(F, x, grad, threshold, atol, valid=None):
    """The Entries of F at x, with the ladder where the quick look does not confirm grad."""
    size, here = sizes(x), F(x)

    def at(k, h):
        z = shifted(x, k, h)
        return number(F, z) if valid is None or valid(z) else math.nan

    v = random_direction({"x": x}, ["x"], generator(0, "noise"), by_entry=True)["x"]
    along = derivative(lambda t: F(x + t * v), 1.0, here=here)
    noise = along.noise if math.isfinite(along.noise) else 0.0
    h = np.stack([few_bits(size) * 0.5**j for j in QUICK])
    ahead, behind = np.empty((2, *h.shape))
    for k in np.ndindex(x.shape):
        for i in range(len(QUICK)):
            ahead[(i, *k)], behind[(i, *k)] = at(k, h[(i, *k)]), at(k, -h[(i, *k)])
    quick = window(h, ahead, behind, here, noise)
    value, error, left, right = (np.array(part) for part in (quick.value, quick.error, quick.left, quick.right))
    tie, wrong = np.zeros(x.shape, dtype=bool), np.zeros(x.shape, dtype=bool)
    scale = max(np.abs(grad).max(), atol / threshold)
    misfit = np.abs(value - grad)
    settled = (misfit <= 0.3 * threshold * scale) & (error <= 0.05 * threshold * scale) & ~quick.split
    order = np.argsort(np.where(settled, -1.0, np.nan_to_num(misfit, nan=np.inf)), axis=None)[::-1]
    natural = float(np.nanmax([0.0, abs(here) / size.max(), np.abs((ahead[0] - here) / h[0]).max(), np.abs(along.value)]))
    for looked, flat in enumerate(order[: int((~settled).sum())]):
        k = np.unravel_index(flat, x.shape)
        if looked >= ENOUGH and wrong.any():
            break
        slope = entry_slope(at, k, size, here, noise, float(grad[k]), 0.02 * threshold * scale, atol)
        value[k], error[k], left[k], right[k], tie[k] = slope[:5]
        allowed = max(threshold * max(scale, abs(slope.value)), atol)
        wrong[k] = abs(slope.value - grad[k]) > allowed and not slope.supports(float(grad[k]))
        if slope.tie and wrong[k]:
            wrong[k] = wrong_at_tie(F, x, k, slope, float(grad[k]))
        wrong[k] |= not math.isfinite(here)
    return Entries(value, error, left, right, tie, wrong, natural)


def entry_slope(at, k, size, here, noise, g, good, atol):
    """The Slope in entry k: a second, thorough search where the first one speaks against g."""
    slope = derivative(lambda h: at(k, h), float(size[k]), noise, good, here)
    if not slope.supports(g) or slope.tie:
        slope = derivative(lambda h: at(k, h), float(size[k]), noise, 0.0, here, thorough=True)
    return slope
