"""Learning rates and weights of the KL that change with the step: `fit` and the optimisers take them in place of numbers.

    npvae.fit(model, x, optimizer=npvae.Adam(Cosine(1e-3, n_steps)), beta=Linear(n_steps // 5))

Each is a function of the step alone, 0 for the first, so that a resumed run goes on where it was.
"""

import math
from dataclasses import dataclass

from npvae.core import checks


@dataclass(frozen=True)
class Linear:
    """From `start` at step 0 in a straight line to `end` at step n_steps, then `end`: β-annealing, Bowman et al. 2016."""

    n_steps: int
    start: float = 0.0
    end: float = 1.0

    def __post_init__(self):
        _check(self, "n_steps", ("start", "end"))

    def __call__(self, step):
        return self.start + (self.end - self.start) * min(1.0, step / self.n_steps)


@dataclass(frozen=True)
class Cyclical:
    """n_cycles in n_steps, each up in a straight line from 0 to `end` over its share `ramp`, then flat. Fu et al. 2019.

    After n_steps it stays at `end`.
    """

    n_steps: int
    n_cycles: int = 4
    ramp: float = 0.5
    end: float = 1.0

    def __post_init__(self):
        _check(self, "n_steps", ("end",))
        checks.integer("n_cycles", self.n_cycles, 1)
        if not 0 < checks.number("ramp", self.ramp, 0) <= 1:
            raise ValueError(f"ramp, a share of the cycle, must be in (0, 1]; got {self.ramp!r}")

    def __call__(self, step):
        if step >= self.n_steps:
            return self.end
        place = step * self.n_cycles / self.n_steps % 1.0  # in the cycle, 0 to 1
        return self.end * min(1.0, place / self.ramp)


@dataclass(frozen=True)
class StepDecay:
    """`start`, multiplied by `factor` after every n_steps."""

    start: float
    n_steps: int
    factor: float = 0.1

    def __post_init__(self):
        _check(self, "n_steps", ("start", "factor"))

    def __call__(self, step):
        return self.start * self.factor ** (step // self.n_steps)


@dataclass(frozen=True)
class Cosine:
    """Half a cosine from `start` at step 0 down to `end` at n_steps, then `end`. Loshchilov & Hutter 2017, equation 5."""

    start: float
    n_steps: int
    end: float = 0.0

    def __post_init__(self):
        _check(self, "n_steps", ("start", "end"))

    def __call__(self, step):
        share = min(1.0, step / self.n_steps)
        return self.end + 0.5 * (self.start - self.end) * (1 + math.cos(math.pi * share))


@dataclass(frozen=True)
class BurdaStages:
    """Eight stages, i = 0 to 7, of 3^i epochs at the rate start · 10^(−i/7). Burda, Grosse & Salakhutdinov 2016, section 5."""

    steps_per_epoch: int
    start: float = 1e-3

    N_STAGES = 8

    def __post_init__(self):
        _check(self, "steps_per_epoch", ("start",))

    def stage(self, step):
        """The number of the stage, 0 to 7, that a step belongs to; the last goes on for ever."""
        epoch = step // self.steps_per_epoch
        return next((i for i in range(self.N_STAGES) if epoch < self.epochs(i + 1)), self.N_STAGES - 1)

    @staticmethod
    def epochs(n_stages):
        """How many epochs the first n_stages have together: 1, 4, 13, 40, 121, 364, 1093, 3280."""
        return (3**n_stages - 1) // 2

    def __call__(self, step):
        return self.start * 10 ** (-self.stage(step) / 7)


@dataclass(frozen=True)
class Turns:
    """Whose step it is, of players who take turns: {"critic": 5, "generator": 1} gives "critic" five times, "generator" once,
    and begins again. `npvae.training.turns`."""

    steps: dict  # name -> steps of each round, in the order in which they are taken

    def __post_init__(self):
        for name, n_steps in self.steps.items():
            checks.integer(f"steps of {name}", n_steps, 1)
        if not self.steps:
            raise ValueError("steps must name a player; got none")

    def __call__(self, step):
        names = [name for name, n_steps in self.steps.items() for _ in range(n_steps)]
        return names[step % len(names)]


def _check(schedule, n_steps, values):
    """The number of steps must be a positive integer, the values numbers of at least 0."""
    checks.integer(n_steps, getattr(schedule, n_steps), 1)
    for name in values:
        checks.number(name, getattr(schedule, name), 0)
