"""The derivative of a function of one real number from its differences, with an estimate of its error.

Central differences on a ladder of steps h, h/2, h/4, ... are extrapolated to h = 0 in windows of five neighbours (Richardson):
for a smooth function their error falls as h² and the extrapolated one as h^10. Three things spoil it, told apart by how they
change with the step:

    curvature   falls with h: the window's estimate and those without its first or last step agree ever better
    rounding    grows as 1/h: the noise of f, measured where f's change is known, times the weights over h
    a kink      the slopes on both sides, extrapolated in the same window, stay apart (at h -> 0: a tie; below some h they meet)

The window with the smallest estimated error counts. The ladder starts near the size of theta, goes down to rounding, and up
where that is not enough, so that no absolute step enters.
"""

import math
from bisect import insort
from operator import neg
from typing import NamedTuple

import numpy as np

from .arguments import EPS, few_bits
from .extrapolation import NODES, Window, extrapolated, window

TOP, FIRST, BOTTOM = -40, 2, 46  # the ladder: h = START * scale / 2^j, from j = FIRST down to BOTTOM, then up to TOP
START = 0.83  # no power of two: at those, rounding is not typical
SAMPLES = 3  # of the noise, at the smallest steps at which f moves
EXACT = 38  # the last step at which theta + hv is exact: theta has 53 bits, h has 4 and v has 8
COARSE = 8  # no arithmetic, not even float16, stands still over steps as large as this one's
PATIENCE = 4  # larger steps that better nothing, before the search ends
SURE = 10.0  # a difference is one beyond so many estimated errors


class Slope(NamedTuple):
    """A derivative with its error; at a tie, where the one-sided slopes left and right stay apart, value is their mean."""

    value: float
    error: float
    left: float
    right: float
    tie: bool
    noise: float  # of the function, absolute
    windows: tuple  # this one and those of smaller steps

    def supports(self, x):
        """Whether x may be the derivative: any window that is sharp enough to tell x from value agrees with x."""
        if not math.isfinite(x):
            return False
        if self.tie:
            low, high = sorted((self.left, self.right))
            return low - SURE * self.error <= x <= high + SURE * self.error
        away = abs(x - self.value)
        if not away > SURE * self.error:
            return True
        return any(abs(x - w.value) <= SURE * w.error for w in self.windows if w.error < away / (10 * SURE) and not w.split)


def number(phi, h):
    """phi(h) as a float, NaN where it raises an error: outside of its domain."""
    try:
        return float(np.real(phi(h)))
    except Exception:
        return math.nan


class Ladder:
    """phi(±h) on the ladder of steps, each computed once, and the windows over them."""

    def __init__(self, phi, scale, here, noise):
        self.phi, self.scale, self.here = phi, float(few_bits(START * scale)), here
        self.values, self.known, self.starts = {}, {}, []  # starts: of the windows whose steps are all in values, descending
        self.noise = max(noise, 0.5 * EPS * abs(here))
        self.bottom, self.dead = BOTTOM, False

    def step(self, j):
        return self.scale * 0.5**j

    def at(self, j):
        """phi(h), phi(-h); NaN where phi cannot be computed."""
        if j not in self.values:
            h = self.step(j)
            self.values[j] = number(self.phi, h), number(self.phi, -h)
            for start in range(j - NODES + 1, j + 1):
                if all(i in self.values for i in range(start, start + NODES)):
                    insort(self.starts, start, key=neg)
        return self.values[j]

    def change(self, j):
        """phi(h) - phi(-h)."""
        return self.at(j)[0] - self.at(j)[1]

    def flat(self, j):
        """Whether phi does not change at all at this step."""
        return self.at(j)[0] == self.here == self.at(j)[1]

    def measure_noise(self):
        """Find the smallest step at which phi moves, and there its noise: the size of its stairs, where it stands still below;
        otherwise the change at h is twice that at h/2, at a tie as well, but for noise."""
        low, high = FIRST, BOTTOM + 1  # phi moves at low and stands still at high
        while low > TOP and self.flat(low):
            low -= 1
        if not self.flat(BOTTOM):
            low = BOTTOM
        while low >= FIRST and low < BOTTOM and high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if self.flat(middle) else (middle, high)
        self.bottom = low
        if self.off(low):
            self.bottom, self.dead = BOTTOM, True
            return
        smallest = range(low - SAMPLES, low) if low > FIRST + SAMPLES else ()
        known = [abs(self.change(j) - 2 * self.change(j + 1)) for j in smallest]
        if low < BOTTOM:
            known += [abs(value - self.here) / 2 for value in self.at(low)]
        self.noise = max([self.noise, *(x for x in known if math.isfinite(x))])

    def off(self, j):
        """Whether phi stands still below step j because it does not depend on h there (a unit that is off, a step function)
        rather than for its rounding, which is finer than this, or shows as stairs: float32 inside."""
        jump = max(abs(value - self.here) for value in self.at(j))
        if j == BOTTOM or not self.flat(j + 1) or not jump > 100 * EPS * abs(self.here):
            return False
        if j <= COARSE and jump > 1e-6 * abs(self.here):
            return True
        return self.stairs(j) == 0

    def stairs(self, j):
        """The height of the stairs in which phi moves around step j, 0 if it is smooth there or has a kink: at a stair the
        slope goes up and down again, so that its changes cancel."""
        heights = []
        for side in (1, -1):
            bends = np.diff([number(self.phi, side * h) for h in self.step(j) * np.linspace(0.5, 2, 20)], 2)
            smooth = not abs(bends.sum()) < 0.3 * np.abs(bends).sum()
            heights.append(0.0 if smooth else float(np.abs(bends).max()))
        return min(heights)

    def believe_stairs(self):
        """Where the slope at small steps is not that of large ones, and phi moves in stairs in between: that is its noise, and
        the small steps see only what is not rounded (a penalty in float64 beside a loss in float32)."""
        windows = self.windows()
        best = best_window(windows)
        if best is None:
            return
        fine = next(j for j, w in windows.items() if w is best)
        others = [j for j, w in windows.items() if j < fine and 10 * w.error < abs(w.value - best.value) > SURE * best.error]
        values = [value for pair in self.values.values() for value in pair if math.isfinite(value)]
        varied = max((abs(value - self.here) for value in values), default=0.0)
        for j in range(fine + NODES, min(others, default=fine + NODES), -3):
            height = self.stairs(j)
            if 20 * self.noise < height < 1e-4 * varied:  # higher than that, it is an oscillation
                self.noise = height
                self.known.clear()

    def window(self, j):
        """The Window of steps j ... j + NODES - 1, or None where phi leaves its domain or stands still."""
        if j not in self.known:
            self.known[j] = self.compute(j)
        return self.known[j]

    def compute(self, j):
        steps = range(j, j + NODES)
        h, ahead, behind = [self.step(i) for i in steps], *zip(*(self.at(i) for i in steps))
        inside = [all(map(math.isfinite, side)) for side in (ahead, behind)]
        if (self.flat(j + NODES - 1) and not self.dead) or not any(inside):
            return None
        found = window(h, ahead, behind, self.here, self.noise)
        if not all(inside):  # at an edge of phi's domain there is one side only
            side, one = (ahead, found.right) if inside[0] else (behind, found.left)
            slopes = [(value - self.here) / step for value, step in zip(side, h)]
            sure = extrapolated(slopes, 1, [(2 * self.noise + EPS * abs(self.here)) / step for step in h])[1]
            found = Window(one, sure, one, one, sure)
        reach = EPS * self.scale * max(abs(found.left), abs(found.right)) / h[-1] if j + NODES > EXACT else 0.0
        return found._replace(error=found.error + reach, gap_error=found.gap_error + 4 * reach)

    def constant(self):
        """Whether phi is the same at all steps, small and large, up to its last bits."""
        changes = [abs(value - self.here) for pair in self.values.values() for value in pair if math.isfinite(value)]
        return max(changes, default=math.inf) <= 8 * EPS * abs(self.here)

    def windows(self):
        """index -> Window of all whose steps have been looked at, from the smallest steps to the largest."""
        found = {j: self.window(j) for j in self.starts}
        return {j: w for j, w in found.items() if w is not None}


def derivative(phi, scale, noise=0.0, good=0.0, here=None, thorough=False):
    """The Slope of phi at 0. scale: the size of steps to start from. noise: that of phi, if it is known to be more than its
    last bit. The search ends at an error of good; thorough looks at every step, to see what is narrower than it seems.
    """
    here = number(phi, 0.0) if here is None else here
    if not math.isfinite(here):
        return Slope(math.nan, math.inf, math.nan, math.nan, False, math.nan, ())
    ladder = Ladder(phi, scale, here, noise)
    ladder.measure_noise()
    go_down(ladder, good, thorough)
    best = best_window(ladder.windows())
    if best and not explains_the_smallest(ladder, best):
        go_down(ladder, good, thorough=True)
    ladder.believe_stairs()
    go_up(ladder, good)
    return conclusion(ladder)


def go_down(ladder, good, thorough):
    """Look at smaller and smaller steps, until their rounding alone exceeds the error of the best window."""
    for j in range(FIRST, ladder.bottom - NODES + 2):
        for i in range(j, j + NODES):
            ladder.at(i)
        best = best_window(ladder.windows())
        rounding = ladder.noise / ladder.step(j + NODES - 1)
        if best and not thorough and (rounding > best.error or best.error <= wanted(best, good)):
            return


def go_up(ladder, good):
    """Look at larger and larger steps, as long as they better the best window or only rounding speaks."""
    patience, best = PATIENCE, best_window(ladder.windows())
    for j in range(FIRST - 1, TOP, -1):
        if patience == 0 or (best and best.error <= wanted(best, good)):
            return
        found, better = ladder.window(j), best_window(ladder.windows())
        smallest = j + NODES - 1
        drowned = ladder.flat(smallest) if found is None else found.error < 20 * ladder.noise / ladder.step(smallest)
        patience = PATIENCE if drowned or (better and (best is None or better.error < best.error)) else patience - 1
        best = better


def wanted(best, good):
    return max(good, 4 * EPS * abs(best.value))


def explains_the_smallest(ladder, best):
    """Whether the best slope agrees with the changes of phi at the smallest steps, within noise."""
    tiny = [j for j in ladder.values if ladder.bottom - SAMPLES <= j <= ladder.bottom]
    misfits = [abs(ladder.change(j) / 2 - ladder.step(j) * best.value) for j in tiny]
    return all(misfit <= SURE * ladder.noise for misfit in misfits if math.isfinite(misfit))


def best_window(windows):
    """The window with the smallest error below every kink that is seen, and in agreement with smaller steps; or None."""
    kinked = [j for j, w in windows.items() if w.split]
    below = max(kinked, default=-math.inf)
    gap = windows[below].gap if kinked else math.inf
    best = None
    for j in sorted(windows, reverse=True):
        w = windows[j]
        fit = j > below and w.gap_error < gap / SURE
        if fit and (best is None or (w.error < best.error and abs(w.value - best.value) <= SURE * best.error)):
            best = w
    return best


def conclusion(ladder):
    """The Slope that the windows tell."""
    windows = ladder.windows()
    best = best_window(windows)
    usable = tuple(windows.values())
    if ladder.constant():
        floor = 8 * EPS * abs(ladder.here) / ladder.scale
        return Slope(0.0, floor, 0.0, 0.0, False, ladder.noise, ())
    if best:
        finer = usable[: usable.index(best) + 1]
        return Slope(best.value, best.error, best.left, best.right, False, ladder.noise, finer)
    if not usable:
        return Slope(math.nan, math.inf, math.nan, math.nan, False, ladder.noise, ())
    kinked = [w for w in usable if w.split]
    sharp = min(kinked or usable, key=lambda w: w.gap_error)
    return Slope((sharp.left + sharp.right) / 2, sharp.gap_error, sharp.left, sharp.right, bool(kinked), ladder.noise, usable)
