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
ROUNDINGS = 100  # right gradients differ by up to so many changes under rounding of theta
ZERO = 1e-9  # rounding beside the slope that may well be there, at which zero is zero
WIDEST = 1e-3  # what rounding may make of a threshold; beyond it there is no verdict
OUTSIDE = (
    "theta lies on a kink, and the gradient outside of the slopes on its two sides: where several kinks meet (weights of zero) "
    "that may be right; move theta"
)
MANY = 2000  # entries among which ties are looked for one by one
GROUP = 16  # entries that are first moved together, to look at each only where they leave something open
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


def natural_slope(phi):
    """The size that a slope of phi may well have around 0: what zero is judged by."""
    with np.errstate(all="ignore"):
        here, there = (number(phi, t) for t in (0.0, 0.1))
    return float(np.nanmax([0.0, abs(here), 10 * abs(there - here)]))


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
            h = [float(few_bits(size[k])) * 0.5**j for j in QUICK]
            ahead, behind = ([number(F, shifted(x, k, sign * step)) for step in h] for sign in (1, -1))
            if window(h, ahead, behind, here, EPS * abs(here)).split:
                slope = derivative(lambda h, k=k: F(shifted(x, k, h)), float(size[k]), here=here, thorough=True)
                if slope.tie:
                    outside = not slope.supports(float(grad[k]))
                    note = f"slopes {slope.left:.4g} and {slope.right:.4g} on the sides of {k}, gradient {grad[k]:.4g}"
                    found.append(Tie(k, note, outside, outside and wrong_at_tie(F, x, k, slope, float(grad[k]))))
    return found


def zero_to_rounding(grad, reference, error, natural):
    """Whether all entries are zero within their error, which is nothing beside the slopes that this function may have."""
    return max(np.abs(grad).max(), np.abs(reference).max()) <= SURE * error and error <= ZERO * natural


def entry_slopes(F, x, grad, threshold, atol, valid=None):
    """The Entries of F at x: entries of similar size are moved together; where these speak against grad, a quick look at each
    follows, and where that leaves one open, the ladder."""
    search = Search(F, x, grad, threshold, atol, valid)
    entries = np.arange(x.size)
    if x.size > GROUP:
        groups = np.array_split(np.argsort(search.size, kind="stable"), math.ceil(x.size / GROUP))
        entries = np.concatenate([entries[:0], *filter(search.open_group, groups)])
    search.climb(search.open_entries(entries))
    return search.entries()


class Search:
    """The search for the derivatives of F in the entries of x, which ends where they confirm grad or speak against it."""

    def __init__(self, F, x, grad, threshold, atol, valid):
        self.F, self.x, self.threshold, self.atol, self.valid = F, x, threshold, atol, valid
        self.grad, self.size, self.here = grad.flatten(), sizes(x).flatten(), F(x)
        self.scale = max(np.abs(grad).max(), atol / threshold)
        self.value, self.left, self.right, self.error = self.grad.copy(), self.grad.copy(), self.grad.copy(), np.zeros(x.size)
        self.tie, self.wrong = np.zeros(x.size, dtype=bool), np.zeros(x.size, dtype=bool)
        self.along, self.natural = None, 0.0
        self.seen(abs(self.here) / self.size.max())

    def at(self, z):
        return number(self.F, z) if self.valid is None or self.valid(z) else math.nan

    def moved(self, k, h):
        """F where entry k, counted through the array, is moved by h."""
        return self.at(shifted(self.x, np.unravel_index(k, self.x.shape), h))

    def seen(self, slope):
        """A derivative of this size may well be here."""
        self.natural = float(np.nanmax([self.natural, slope]))

    def settled(self, misfit, error, unit=1.0):
        """Whether a derivative, times unit, agrees with grad well within the threshold of each entry."""
        allowed = self.threshold * self.scale * unit
        return misfit <= 0.3 * allowed and error <= 0.05 * allowed

    def open_group(self, group):
        """Whether the slope along a random direction in these entries leaves anything open. A misfit d·v is shared out, so that
        the norm of the shares is the expected norm of d."""
        v = np.zeros(self.x.size)
        v[group] = random_direction({"x": self.size[group]}, ["x"], generator(int(group[0]), "group"), by_entry=True)["x"]
        along, v = v.reshape(self.x.shape), v[group]

        def phi(t):
            return self.at(self.x + t * along)

        slope, unit, expected = self.quick_look(phi, 1.0), np.abs(v).min(), float(self.grad[group] @ v)
        done = not slope.split and self.settled(abs(slope.value - expected), slope.error, unit)
        if not done:
            slope = derivative(phi, 1.0, here=self.here)
            done = not slope.tie and self.settled(abs(slope.value - expected), slope.error, unit)
        self.value[group] += (slope.value - expected) * np.sign(v) / np.linalg.norm(v)
        self.error[group] = slope.error / np.linalg.norm(v)
        return not done

    def quick_look(self, phi, size):
        """The Window of three large steps."""
        h = [float(few_bits(size)) * 0.5**j for j in QUICK]
        ahead, behind = ([phi(sign * step) for step in h] for sign in (1, -1))
        self.seen(abs(ahead[0] - self.here) / h[0])
        return window(h, ahead, behind, self.here, 0.0)

    def open_entries(self, entries):
        """Those of these entries that a quick look at each does not settle, the worst first."""
        found = []
        for k in entries:
            quick = self.quick_look(lambda h, k=k: self.moved(k, h), self.size[k])
            self.value[k], self.error[k], self.left[k], self.right[k] = quick[:4]
            misfit = abs(quick.value - self.grad[k])
            if quick.split or not self.settled(misfit, quick.error):
                found.append((misfit if misfit == misfit else math.inf, k))
        return [k for _, k in sorted(found, reverse=True)]

    def climb(self, open_entries):
        """Look at these entries on the ladder of steps, until some of them have shown that grad is wrong."""
        if open_entries:
            v = random_direction({"x": self.x}, ["x"], generator(0, "noise"), by_entry=True)["x"]
            self.along = derivative(lambda t: self.F(self.x + t * v), 1.0, here=self.here)
            self.seen(abs(self.along.value))
        for looked, k in enumerate(open_entries):
            if looked >= ENOUGH and self.wrong.any():
                return
            self.judge(k)

    def judge(self, k):
        """What the ladder says of entry k: once more and thoroughly where the first search speaks against grad."""
        noise, g, size = self.along.noise if math.isfinite(self.along.noise) else 0.0, float(self.grad[k]), float(self.size[k])

        def phi(h):
            return self.moved(k, h)

        slope = derivative(phi, size, noise, 0.02 * self.threshold * self.scale, self.here)
        if not slope.supports(g) or slope.tie:
            slope = derivative(phi, size, noise, 0.0, self.here, thorough=True)
        self.value[k], self.error[k], self.left[k], self.right[k], self.tie[k] = slope[:5]
        allowed = max(self.threshold * max(self.scale, abs(slope.value)), self.atol)
        self.wrong[k] = abs(slope.value - g) > allowed and not slope.supports(g)
        if slope.tie and self.wrong[k]:
            self.wrong[k] = wrong_at_tie(self.F, self.x, np.unravel_index(k, self.x.shape), slope, g)
        self.wrong[k] |= not math.isfinite(self.here)

    def entries(self):
        found = (self.value, self.error, self.left, self.right, self.tie, self.wrong)
        return Entries(*(part.reshape(self.x.shape) for part in found), self.natural)
