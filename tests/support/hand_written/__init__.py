"""Gradients in the styles in which people write them, right and wrong: what a checker of gradients is judged on.

Each function that `right` or `wrong` decorates builds one case from nothing, so that objects with state start afresh. Its name
is the case's name, its docstring says what it is, or what is wrong with it. It returns

    Pair(forward, backward, args)   for check_pair; contracted with fixed weights, for the checks of a scalar function as well
    Scalar(f, theta, grad)          for the checks of a scalar function

either with `options`, the arguments that a user would give (threshold=, wrt=). All code was written for this catalogue.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np


class Pair(NamedTuple):
    """forward(*args) -> out, cache and backward(dout, cache) -> gradients."""

    forward: Callable
    backward: Callable
    args: tuple
    options: dict = {}


class Scalar(NamedTuple):
    """A function f of theta and its gradient at theta, an array (or dict, or list) like theta."""

    f: Callable
    theta: Any
    grad: Any
    options: dict = {}


class Case(NamedTuple):
    """One gradient that somebody wrote."""

    name: str
    about: str  # what it is; what is wrong with a wrong one
    build: Callable
    wrong: bool
    unknowable: str = ""  # why no check can know
    only_pair: bool = False  # the gradient of a single call is right: the fault shows in the pair alone
    error: float = 0.0  # of a wrong gradient, relative, where it is little


CASES = []


def normal(*shape, seed=0):
    """Random numbers as most people draw them."""
    return np.random.default_rng(seed).standard_normal(shape)


def right(function=None, *, unknowable=""):
    """Register a right gradient. With `unknowable`, a reason, no verdict is a good verdict."""
    return registered(function, wrong=False, unknowable=unknowable)


def wrong(function=None, *, only_pair=False, error=1.0):
    """Register a wrong gradient."""
    return registered(function, wrong=True, only_pair=only_pair, error=error)


def registered(function, **facts):
    def register(function):
        CASES.append(Case(function.__name__.replace("_", " "), function.__doc__, function, **facts))
        return function

    return register if function is None else register(function)


from hand_written import (  # noqa: E402  the cases register themselves
    algebra,
    convolutions,
    distances,
    edges,
    functions,
    habits,
    interfaces,
    kernels,
    layers,
    losses,
    noise,
    penalties,
    physics,
    processes,
    scales,
    sequences,
    statistics,
)
