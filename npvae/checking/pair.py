"""A forward/backward pair of ops, at the arguments that it is checked at."""

from collections.abc import Callable
from typing import NamedTuple

LOGITS = (0.0, 1.0, 20.0, 40.0, 100.0, 1e4)


class Pair(NamedTuple):
    """A forward/backward pair and the arguments that it is checked at."""

    name: str
    forward: Callable
    backward: Callable
    args: tuple
    wrt: tuple  # names of the arguments that backward differentiates
    on_kink: bool = False  # differences straddle a kink here, or drown in rounding: only the complex step can judge
