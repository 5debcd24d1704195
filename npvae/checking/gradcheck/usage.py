"""How forward and backward behave when they are called again: noise, state, accumulation, linearity, and what they modify."""

import warnings
from typing import NamedTuple

import numpy as np

from .arguments import as_tuple, copied, generator, leaves, modifications, noise_problem, same

LINEAR = 1e-6  # a backward that is not linear in dout is so by more than rounding, of float32 as well
STATE = (
    "backward reads state that a later forward overwrites: call it right after its forward, as was done here, or let forward "
    "return a cache and backward read only that"
)
ACCUMULATES = (
    "gradients accumulate: each backward adds to what the last one left (+= without zeroing); set them to zero at the start of "
    "backward, or in the function that is handed over"
)
KEPT = "a second backward without a forward gives other gradients: they accumulate, or backward uses up what forward has kept"


class Use(NamedTuple):
    """What was observed."""

    douts: list  # one per member of out, None for those without; empty if forward gives other values in each call
    grads: object  # what backward returned for them
    problems: list
    notes: list


def outputs(out):
    """The members of what forward returned."""
    return tuple(out) if isinstance(out, list) else as_tuple(out)


def observed(forward, backward, args, names, seed, strict):
    """Call forward and backward in the orders in which people call them, always with copies."""
    given = [copied(arg) for arg in args]
    outs = outputs(forward(*given)[0])
    problems = modifications("forward", names, args, given)
    again = outputs(forward(*map(copied, args))[0])
    noisy = [noise_problem(first, second, "forward") for first, second in zip(outs, again) if is_float(first)]
    if any(noisy):
        return Use([], None, [*problems, next(filter(None, noisy))], [])
    douts, others = (random_douts(outs, generator(seed, role)) for role in ("dout", "another dout"))
    calls = Calls(forward, backward, args, names, problems)
    first = calls.fresh(douts)
    second = calls.fresh(douts)
    notes = []
    if not alike(first, second):
        growth = difference(second, first)
        grown = growth is not None and alike(difference(calls.fresh(douts), second), growth)
        problems.append(ACCUMULATES if grown else f"backward gives other gradients when called again: {STATE}")
    elif not same(second, calls.last_again(douts)):
        if calls.cache_changed:
            problems.append("a second backward from the same cache gives other bits")
        else:
            notes.append(KEPT)
    elif not same(second, calls.last_after_another_forward(douts)):
        notes.append(STATE)
    if not problems and not linear(calls, first, douts, others):
        problems.append("backward is not linear in dout: backward(2a - 3b) is not 2 backward(a) - 3 backward(b)")
    if strict:
        problems, notes = [*problems, *notes], []
    return Use(douts, first, list(dict.fromkeys(problems)), notes)


class Calls:
    """Calls of forward and backward with copies of the arguments; what they modify goes to problems."""

    def __init__(self, forward, backward, args, names, problems):
        self.forward, self.backward, self.args, self.names, self.problems = forward, backward, args, names, problems
        self.cache_changed = False

    def fresh(self, douts):
        """The gradients of a forward and the backward right after it."""
        self.given = [copied(arg) for arg in self.args]
        _, self.cache = self.forward(*self.given)
        self.before = [copied(arg) for arg in self.given]
        return self.last_again(douts)

    def last_again(self, douts):
        """The gradients of backward with the last forward's cache."""
        upstream = [dout for dout in douts if dout is not None]
        handed, cache = [copied(dout) for dout in upstream], copied(self.cache)
        before = [copied(arg) for arg in self.given]
        grads = copied(self.backward(*handed, self.cache))
        numbered = ["dout"] if len(upstream) == 1 else [f"dout{i}" for i in range(len(upstream))]
        self.problems += modifications("backward", [*self.names, *numbered], [*before, *upstream], [*self.given, *handed])
        self.cache_changed |= not same(cache, self.cache)
        return grads

    def last_after_another_forward(self, douts):
        """The same after a forward with other arguments has come between: flipped, or scaled where forward rejects these."""
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            for change in (lambda a: np.flip(a).copy(), lambda a: a * a.dtype.type(1.5)):
                try:
                    self.forward(*[other(arg, change) for arg in self.args])
                    break
                except Exception:
                    continue
            try:
                return self.backward(*[copied(dout) for dout in douts if dout is not None], self.cache)
            except Exception:
                return None


def other(arg, change):
    """arg with its arrays changed, as copies."""
    if isinstance(arg, dict):
        return {key: other(item, change) for key, item in arg.items()}
    if isinstance(arg, list):
        return [other(item, change) for item in arg]
    return change(arg) if isinstance(arg, np.ndarray) else copied(arg)


def is_float(value):
    return np.asarray(value).dtype.kind == "f"


def random_douts(outs, rng):
    """A random upstream gradient for each floating-point member of out, None for the others."""
    return [rng.standard_normal(np.shape(out)) if is_float(out) else None for out in outs]


def numeric(grads):
    """Path -> float64 array of the gradients that are numbers."""
    found = {key: np.asarray(value) for key, value in leaves(grads, "grad").items() if value is not None}
    return {key: value.astype(np.float64) for key, value in found.items() if value.dtype.kind in "fiu"}


def shapes_of(arrays):
    return [(key, value.shape) for key, value in arrays.items()]


def difference(grads, minus):
    """Gradients minus others, array by array; None where they do not match."""
    a, b = numeric(grads), numeric(minus)
    if shapes_of(a) != shapes_of(b):
        return None
    return {key: a[key] - b[key] for key in a}


def alike(grads, expected, tolerance=1e-9):
    """Whether gradients agree to within tolerance of their largest entry."""
    if grads is None or expected is None:
        return grads is expected
    apart = difference(grads, expected)
    if apart is None:
        return False
    sizes = {key: np.max(np.abs(value), initial=0) for key, value in numeric(expected).items()}
    return all(not np.any(np.abs(value) > tolerance * sizes[key]) for key, value in apart.items())


def linear(calls, first, douts, others):
    """Whether backward(2a - 3b) = 2 backward(a) - 3 backward(b)."""
    mixed = [None if a is None else 2 * a - 3 * b for a, b in zip(douts, others)]
    second, whole = numeric(calls.fresh(others)), numeric(calls.fresh(mixed))
    a = numeric(first)
    if not shapes_of(a) == shapes_of(second) == shapes_of(whole):
        return False
    for key in a:
        size = max(np.max(np.abs(part), initial=0) for part in (a[key], second[key], whole[key]))
        apart = np.abs(whole[key] - (2 * a[key] - 3 * second[key]))
        if np.isfinite(size) and np.any(apart > LINEAR * size):
            return False
    return True
