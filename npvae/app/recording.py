"""One forward and one backward pass of a model, recorded: which forward/backward pairs it called, and what flowed between them.

The models know nothing of it. While a copy of the model runs, Python's profiling hook tells of each call of a function whose
name ends in _forward or _backward; such functions are the pairs that `npvae.ops.layers` describes, or somebody's own that are
written like them: `thing_forward(...) -> out, cache`, `thing_backward(dout, ..., cache) -> dx, ...`.
"""

import inspect
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from npvae.models import saved


@dataclass
class Call:
    """One call of a function of a pair."""

    name: str  # without _forward or _backward
    arguments: dict  # in their order
    result: object = None
    inner: list = field(default_factory=list)  # the calls within it


@dataclass
class Tensor:
    """An array between two ops, with the gradient that arrives at it; None where it is not known, or there is none."""

    name: str
    value: np.ndarray
    gradient: np.ndarray | None = None


@dataclass
class Op:
    """One forward/backward pair that was called."""

    name: str
    inputs: list  # Tensors; the gradient of each is what this op's backward returns for it
    outputs: list  # Tensors; the gradient of each is what arrives: the sum of what its readers return
    parameters: list  # names of those that it reads
    note: str = ""  # an argument in words, such as the name of an activation


@dataclass
class Record:
    """A pass of a model: `given` is the batch and the noise, `parameters` and `gradients` have the model's names."""

    loss: float
    given: list
    ops: list
    parameters: dict
    gradients: dict


def record(model, x, noise=None, **settings):
    """Record a pass over x, an array or the tuple of a model with several (or no) arrays; ValueError for what cannot be used.

    The pass runs on a copy, in float64 and on the NumPy back end where the model has these options. noise: by default the
    model's own, drawn with the seed 0.
    """
    exact = {"dtype": "float64", "backend": "numpy"}
    twin = saved.copied(model, **{name: value for name, value in exact.items() if name in model.config})
    batch = twin.check(*(x if isinstance(x, tuple) else (x,)))
    noise = twin.draw(np.random.default_rng(0), *batch, **settings) if noise is None else noise
    (terms, cache), forward_calls = calls_of(lambda: twin.forward(*batch, noise, **settings))
    gradients, backward_calls = calls_of(lambda: twin.backward(cache))

    partners = matched(every(forward_calls), every(backward_calls))
    drawn = [call for root in forward_calls for call in opened(root, twin.parameters, partners)]
    ops = [op_of(call, partners.get(id(call)), twin.parameters) for call in drawn]
    names = [name for name in inspect.signature(twin.forward).parameters][: len(batch) + 1]
    given = [Tensor(name, a) for name, value in zip(names, (*batch, noise)) for a in arrays_in(value)]
    return Record(float(terms[0]), given, ops, dict(twin.parameters), dict(gradients))


def calls_of(run):
    """What run() returns, and the Calls that it made, outermost ones with those within them."""
    outermost, open_calls = [], []

    def profile(frame, event, result):
        stem, _, ending = frame.f_code.co_name.rpartition("_")
        if not stem or ending not in ("forward", "backward") or event not in ("call", "return"):
            return
        if event == "call":
            call = Call(stem.strip("_"), dict(frame.f_locals))
            (open_calls[-1].inner if open_calls else outermost).append(call)
            open_calls.append(call)
        else:
            open_calls.pop().result = result

    def watched():
        sys.setprofile(profile)
        return run()

    with ThreadPoolExecutor(1) as thread:  # the hook is the thread's, and ends with it: that of the caller stays what it is
        return thread.submit(watched).result(), outermost


def every(calls):
    """All calls, with those within them."""
    return [one for call in calls for one in (call, *every(call.inner))]


def is_forward(call):
    """Whether a call returned (out, cache), as a forward function of a pair does."""
    return isinstance(call.result, tuple) and len(call.result) == 2


def matched(forward_calls, backward_calls):
    """id of a forward call -> its backward call: the one of the same name that was given its cache."""
    partners = {}
    for call in filter(is_forward, forward_calls):
        cache = call.result[1]
        for other in backward_calls:
            if other.name == call.name and cache is not None and any(a is cache for a in other.arguments.values()):
                partners[id(call)] = other
    return partners


def opened(call, parameters, partners):
    """The calls that are drawn in place of this one: a composition is opened, a layer with its own parameters is not, unless it
    has no backward of its own."""
    inner = [one for one in call.inner if is_forward(one)]
    if not is_forward(call):
        return [drawn for one in inner for drawn in opened(one, parameters, partners)]
    if len(inner) == 1 and inner[0].result[0] is call.result[0]:
        return opened(inner[0], parameters, partners)  # nothing but a wrapper
    layers = sum(bool(names_in(one, parameters)) for one in inner)
    is_composition = len(inner) > 1 and not reads_parts(inner, call)
    if is_composition and (layers > 1 or not names_in(call, parameters) or id(call) not in partners):
        return [drawn for one in inner for drawn in opened(one, parameters, partners)]
    return [call]


def reads_parts(inner, call):
    """Whether the calls within another read some columns of an array that it was given, and that none of them has cut out: the
    gradients of such columns are no tensors of their own."""
    whole = arrays_in(list(call.arguments.values()))
    returned = {id(a) for one in inner for a in arrays_in(one.result[0])}
    read = [a for one in inner for a in arrays_in(list(one.arguments.values())) if id(a) not in returned]
    return any(a.size < b.size and np.may_share_memory(a, b) for a in read for b in whole)


def op_of(call, partner, parameters):
    """The Op of a forward call and its backward call, which may be None."""
    inputs = [Tensor(name, a) for name, value in call.arguments.items() for a in arrays_in(value)]
    results = leaves(call.result[0])
    names = getattr(call.result[0], "_fields", [call.name] * len(results))
    outputs = [Tensor(name, np.asarray(a)) for name, a in zip(names, results) if isinstance(a, (np.ndarray, float))]
    if partner is not None:
        returned = list(leaves(partner.result))
        for tensor in inputs:  # gradients come in the order of the inputs; what has none (data, noise) is left out
            if returned and (returned[0] is None or np.shape(returned[0]) == tensor.value.shape):
                tensor.gradient = returned.pop(0)
        cache = call.result[1]
        arriving = [(name, a) for name, a in partner.arguments.items() if a is not cache and isinstance(a, (np.ndarray, float))]
        for tensor, (name, gradient) in zip(outputs, arriving):
            tensor.name, tensor.gradient = name.removeprefix("d"), np.asarray(gradient)
    words = [value for value in call.arguments.values() if isinstance(value, str) and value != "identity"]
    free = [tensor for tensor in inputs if not names_of(tensor.value, parameters)]
    return Op(call.name, free, outputs, names_in(call, parameters), ", ".join(words))


def names_in(call, parameters):
    """The names of the parameters that a call, or one within it, was given, in the order of theta."""
    read = {name for one in every([call]) for a in arrays_in(list(one.arguments.values())) for name in names_of(a, parameters)}
    return [name for name in parameters if name in read]


def names_of(array, parameters):
    """The names of the parameters that share memory with an array."""
    return [name for name, view in parameters.items() if np.may_share_memory(array, view)]


def leaves(value):
    """What nested tuples and lists hold, in order."""
    if isinstance(value, (tuple, list)):
        return [leaf for part in value for leaf in leaves(part)]
    return [value]


def arrays_in(value):
    """The arrays in nested tuples and lists, in order."""
    return [leaf for leaf in leaves(value) if isinstance(leaf, np.ndarray)]
