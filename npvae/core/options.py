"""One table of options per model: what the command line offers, what the defaults are, what config.json and README say.

A model lists its options as `options = (Option(...), ...)`; `npvae.app` reads nothing else to offer, check and record them.
"""

import math
import numbers
import os
from collections.abc import Callable
from typing import NamedTuple


class Option(NamedTuple):
    """One option of a model or of its training."""

    name: str  # with underscores; the command line writes it with dashes
    default: object
    help: str  # one sentence without a full stop
    check: Callable  # value, as text or as JSON holds it -> value; ValueError says what is needed
    keyword: str | None = None  # of the constructor or of forward, where that is not the name
    use: str = "model"  # "model": the constructor's; "training": a setting of each step; "start": a method called before it
    metavar: str | None = None
    choices: tuple | None = None
    many: bool = False  # a list of values
    annealed: bool = False  # may rise from 0 during training: --annealing-epochs

    @property
    def argument(self):
        """The keyword of the constructor or of forward, or the name of the method."""
        return self.keyword or self.name

    def checked(self, value):
        """`value`, from the command line or from config.json, as what the model takes; ValueError names the option."""
        if value is None and self.default is None:
            return None
        try:
            if self.many:
                return [self.check(item) for item in value]
            return self.check(value)
        except (ValueError, TypeError) as error:
            raise ValueError(f"{self.name} {error}") from None


def flag(value):
    """True or False."""
    if not isinstance(value, bool):
        raise ValueError(f"must be true or false; got {value!r}")
    return value


def text(value):
    """Any text."""
    if not isinstance(value, str):
        raise ValueError(f"must be text; got {value!r}")
    return value


def path(value):
    """Text that names a file or folder; `~` at its beginning is the home directory, where there is one."""
    return os.path.expanduser(text(value))


def word_or(word, check):
    """A check: this word, or what another check takes."""

    def either(value):
        if value == word:
            return value
        try:
            return check(value)
        except ValueError as error:
            raise ValueError(f"must be {word}, or {str(error).removeprefix('must be ')}") from None

    return either


def one_of(*allowed):
    """A check: one of these words."""

    def check(value):
        if value not in allowed:
            raise ValueError(f"must be one of {', '.join(allowed)}; got {value!r}")
        return value

    return check


def integer(minimum):
    """A check: whole numbers of at least `minimum`."""

    def check(value):
        is_integer = isinstance(value, numbers.Integral) and not isinstance(value, bool)
        if not is_integer and not (isinstance(value, str) and value.removeprefix("-").isdecimal()):
            raise ValueError(f"must be an integer of at least {minimum}; got {value!r}")
        if int(value) < minimum:
            raise ValueError(f"must be an integer of at least {minimum}; got {value!r}")
        return int(value)

    return check


def number(low, above=False):
    """A check: finite numbers of at least `low`, or above it."""

    def check(value):
        try:
            parsed = math.nan if isinstance(value, bool) else float(value)
        except (TypeError, ValueError, OverflowError):
            parsed = math.nan
        if not low <= parsed < math.inf or (above and parsed == low):
            raise ValueError(f"must be a number {'above' if above else 'at least'} {low}; got {value!r}")
        return parsed

    return check


positive, not_negative = number(0, above=True), number(0)
