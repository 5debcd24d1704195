"""The step of workers that compute one gradient together, in one call each, and update theta in it.

Where each worker has its own gradient, theta and the gradients go back and forth between the cores: a core that writes what
another has read must first take it from the other's cache. Here each worker has rows of the batch for the pass through the
layers, and then rows of every W: their gradient from all rows of the batch, and their update. The order of every sum is fixed,
so results depend on the number of workers but never on scheduling.
"""

import math

import numpy as np

from npvae.core.parameters import zeros
from npvae.training import optim


def is_together(model):
    """Whether workers compute one gradient of this model together, with its usual settings."""
    make = getattr(model, "workspace", None)
    return make is not None and hasattr(make(1), "team")


class Together:
    """The gradient, and with our optimisers the update, of a `npvae.training.step.Step` in its model's workspace."""

    def __init__(self, step, workspace):
        self.step, self.workspace = step, workspace
        self.updates = step.adds_shares and step.max_gradient_norm is None and not step.weight_decay
        self.grad = zeros((1, step.model.theta.size), step.model.theta.dtype, place=3)
        self.numbers = np.zeros(8)  # what the update takes; the first, the step count, is 0 where there is none
        self.teams = {}  # number of rows -> [(rows, workspace) of each worker]

    def __call__(self, index, number, settings):
        """As that of Step."""
        step = self.step
        if self.updates:
            numbers = optim.numbers_of(step.optimizer, step.state)
            self.numbers[: len(numbers)] = numbers
        terms, bounds = self.run(index, number, settings)
        culprits = step.culprits(terms, bounds, self.grad)
        if self.updates and all(map(math.isfinite, (terms[0], *bounds))):
            return terms, culprits  # theta is updated
        if self.updates:
            step.state["t"] -= 1
        if not culprits:
            step.update(self.grad)
        return terms, culprits

    def gradient(self, index, number, settings):
        """As that of Step: theta stays."""
        self.numbers[0] = 0
        terms, bounds = self.run(index, number, settings)
        return terms, self.grad, self.step.culprits(terms, bounds, self.grad)

    def run(self, index, number, settings):
        """Terms of the batch, and a number for each shard that is finite only where the squares of its gradient are."""
        step, team = self.step, self.team_of(len(index))

        def share(i):
            part, workspace = team[i]
            batch, rng = step.draw(i, index, part, number)
            weight = (part.stop - part.start) / len(index)
            return step.share_in_one_call(i, batch, rng, settings, weight, self.grad[0], workspace)

        return step.added(step.workers.map(share, range(len(team)), begins=True))

    def team_of(self, n_rows):
        """Rows and workspace of each worker; of one, where there are fewer rows than workers."""
        if n_rows not in self.teams:
            step, model = self.step, self.step.model
            parts = step.workers.parts(n_rows)
            if len(parts) < step.workers.n:
                parts = [slice(0, n_rows)]
            firsts = np.array([*(part.start for part in parts), n_rows])
            update, slots = "none", []
            if self.updates:
                update = f"{type(step.optimizer).__name__.lower()}_step"
                slots = [step.state[slot] for slot in step.optimizer.slots]
            shared = firsts, step.x[:n_rows], step.workers.signals, update, (*slots, model.theta, model.theta)[:2], self.numbers
            self.teams[n_rows] = [(part, self.workspace.of_worker(k, *shared)) for k, part in enumerate(parts)]
        return self.teams[n_rows]
