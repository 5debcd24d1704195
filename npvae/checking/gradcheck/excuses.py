"""What excuses a pair's gradient where it differs from the complex step's: rounding of the arguments, or a tie."""

import math
from typing import NamedTuple

import numpy as np

from .arguments import EPS, generator, nearby, random_direction, relative_error, sizes
from .complex_step import STEP, ComplexStepError, complex_entry
from .derivatives import derivative
from .entries import OUTSIDE, ROUNDINGS, WIDEST, ZERO, natural_slope, shifted, wrong_at_tie


class Excuse(NamedTuple):
    """Why a gradient's entry may differ from the complex step's."""

    index: tuple
    allowed: float
    tie: bool
    note: str
    outside: bool = False  # of the one-sided slopes: right or wrong, where several kinks meet


def excused(C, x, grad, reference, difference, allowed, settings):
    """The Excuses of the entries whose differences are too large, the largest first, up to the first that has none."""
    found = []
    for flat in np.argsort(-difference, axis=None):
        k = tuple(int(i) for i in np.unravel_index(flat, difference.shape))
        if not difference[k] > allowed:
            break
        found.append(excuse(C, x, k, grad, reference, allowed, settings))
        if found[-1].allowed < difference[k]:
            break
    return found


def excused_verdict(difference, grad, scale, threshold, excuses, natural):
    """error, threshold, note and doubt where each difference that is too large is excused."""
    plain, notes = difference.copy(), []
    ties = [e for e in excuses if e.tie]
    for e in ties:
        plain[e.index] = 0
        notes = [f"{len(ties)} of {difference.size} entries at a tie, {e.note}"]
    rounding, worst = max((e.allowed for e in excuses if not e.tie), default=0.0), float(plain.max())
    if any(e.outside for e in ties):
        error = relative_error(float(plain.max()), scale)
        return error, max(threshold, error), notes[0], OUTSIDE
    if max(scale, np.abs(grad).max()) <= rounding <= natural * ZERO:
        return worst / natural, threshold, "; ".join([*notes, f"zero to rounding, {rounding:.0e}"]), ""
    limit, doubt = max(threshold, 10.0 ** math.ceil(math.log10(rounding / scale)) if rounding and scale else 0.0), ""
    if limit > threshold:
        notes.append(f"rounding: errors below {limit:.0e} are not seen")
    if limit > max(WIDEST, threshold):
        doubt = f"rounding hides errors below {limit:.0e} of this gradient (ill-conditioned, or cancelling): move the arguments"
    return relative_error(worst, scale), limit, "; ".join(notes), doubt


def natural_size(C, x):
    """The size that a derivative of C may well have around x: what a gradient of zero is judged by."""
    v = random_direction({"x": x}, ["x"], generator(0, "size"), by_entry=True)["x"]
    return natural_slope(lambda t: C(x + t * v)) / float(sizes(x).max())


def excuse(C, x, k, grad, reference, allowed, settings):
    """What rounding allows in entry k, or a tie: there, any slope between the one-sided ones."""
    rounding = allowed + ROUNDINGS * rounding_of_entry(C, x, k, settings.seed)
    enough = rounding >= abs(grad[k] - reference[k])
    if settings.strict or (enough and rounding <= WIDEST * abs(reference[k])):
        return Excuse(k, rounding, False, "")

    with np.errstate(all="ignore"):
        found = derivative(lambda h: C(shifted(x, k, h)), float(sizes(x)[k]), thorough=True)
    if found.tie:
        slopes = f"slopes {found.left:.4g} and {found.right:.4g} on the sides of {k}"
        note = f"{slopes}, gradient {grad[k]:.4g}, forward's branch {reference[k]:.4g}"
        outside = not found.supports(float(grad[k]))
        return Excuse(k, allowed if outside and wrong_at_tie(C, x, k, found, float(grad[k])) else math.inf, True, note, outside)
    if found.supports(float(grad[k])) and not found.supports(float(reference[k])):
        raise ComplexStepError(f"at {k} the complex step gives {reference[k]:.6g}, finite differences give {found.value:.6g}")
    return Excuse(k, rounding, False, "")


def rounding_of_entry(C, x, k, seed):
    """How much the complex step's derivative changes with the last place of all arguments, and with its own step."""
    rng = generator(seed, "rounding")
    here, changes = complex_entry(C, x, k), []
    for i in range(7):
        try:
            there = (C, x, k, STEP**2) if i == 0 else (C.rounded(rng), nearby({"x": x}, rng, EPS)["x"], k)
            changes.append(abs(complex_entry(*there) - here))
        except Exception:  # outside of forward's domain
            continue
    return float(np.nanmax([0.0, *changes]))
