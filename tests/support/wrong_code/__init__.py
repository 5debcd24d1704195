"""Code that is wrong as people get it wrong, a file for each kind of model: what `mistakes` puts before the checks.

A function that `mistake` or `mistake_in_pair` decorates stands in for a right one with a wrong gradient. One that
`probability_mistake` decorates returns a forward and a backward that agree and have a wrong meaning. Its name is the mistake's
name, its docstring says how people make it.
"""

from collections.abc import Callable
from typing import NamedTuple

# Cases that several files use, by the beginnings of their names.
SAMPLER = ("sampler", "numpy latent")
SAMPLES = "numpy VAE 7-6-2 tanh gaussian, B 3, S 4, after"  # with beta = 0.5
SQUARE = "numpy VAE 7-6-2 relu bernoulli, B 4, S 1, after"  # as many rows as the posterior has columns


class Mistake(NamedTuple):
    """A wrong function or several: build() gives them as name -> function."""

    name: str
    how: str  # people make it
    build: Callable
    put_before: tuple  # cases, by the beginnings of their names


MISTAKES, PROBABILITY_MISTAKES = [], []


def register(mistakes, function, build, prefixes):
    mistakes.append(Mistake(function.__name__.replace("_", " "), function.__doc__, build, prefixes))
    return function


def mistake(target, *prefixes):
    """The decorated function stands in for `target`."""
    return lambda function: register(MISTAKES, function, lambda: {target: function}, prefixes)


def mistake_in_pair(op, *prefixes):
    """The decorated function returns a forward and a backward that stand in for those of `op`."""
    return lambda function: register(MISTAKES, function, lambda: pair(op, *function()), prefixes)


def probability_mistake(*prefixes):
    """The decorated function returns consistent functions with a wrong meaning, name -> function."""
    return lambda function: register(PROBABILITY_MISTAKES, function, function, prefixes)


def pair(op, forward, backward):
    return {f"{op}_forward": forward, f"{op}_backward": backward}


from wrong_code import (  # noqa: E402  they register themselves
    adversarial,
    boltzmann,
    caches,
    chains,
    convolution,
    diffusion,
    drift,
    energy,
    latent,
    layers,
    likelihoods,
    paths,
    pixels,
    potentials,
    vae,
)
