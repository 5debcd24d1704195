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
        self.updates = step.adds_shares and step.max_gradient_norm is None and not step.weight_decay and step.ranks.n == 1
        self.grad = zeros((1, step.model.theta.size), step.model.theta.dtype, place=3)
        self.numbers = np.zeros(8)  # what the update takes; the first, the step count, is 0 where there is none
        self.teams = {}  # number of rows -> [(rows, workspace) of each worker]

    def __call__(self, index, number, settings):
        """As that of Step."""
        step = self.step
        if not self.updates:
            terms, grad, culprits = self.gradient(index, number, settings)
        else:
            numbers, grad = optim.numbers_of(step.optimizer, step.state), self.grad
            self.numbers[: len(numbers)] = numbers
            terms, bounds = self.run(index, number, settings)
            culprits = step.culprits(terms, bounds, grad)
            if all(map(math.isfinite, (terms[0], *bounds))):
                return terms, culprits  # theta is updated
            step.state["t"] -= 1
        if not culprits:
            step.update(grad)
        return terms, culprits

    def gradient(self, index, number, settings):
        """As that of Step: theta stays."""
        self.numbers[0] = 0
        terms, bounds = self.run(index, number, settings)
        step, own = self.step, self.grad[: len(self.team_of(len(index)))]  # none, where this rank has no rows
        culprits = step.culprits(terms, bounds, own)
        return terms, self.grad if step.ranks.n == 1 or culprits else step.sum_over_ranks(len(index), self.grad), culprits

    def run(self, index, number, settings):
        """Terms of the batch, and a number for each shard that is finite only where the squares of its gradient are."""
        step, team, n_rows = self.step, self.team_of(len(index)), len(index)
        if step.ranks.n > 1:
            index = index[step.own_shards(n_rows)[0]]

        def share(i):
            part, workspace = team[i]
            batch, rng = step.draw(i, index, part, number)
            weight = (part.stop - part.start) / n_rows
            return step.share_in_one_call(i, batch, rng, settings, weight, self.grad[0], workspace)

        if step.ranks.n == 1:
            return step.added(step.workers.map(share, range(len(team)), begins=True))
        return step.added(step.ranks.gathered(lambda: step.workers.map(share, range(len(team)), begins=True)))

    def team_of(self, n_rows):
        """Of a batch of so many rows those of each worker, and its workspace; of one, where there are fewer rows than workers,
        and of none, where this rank has no rows."""
        if n_rows not in self.teams:
            step, model = self.step, self.step.model
            own, parts = step.own_shards(n_rows)
            n_own = own.stop - own.start
            if 0 < len(parts) < step.workers.n:
                parts = [slice(0, n_own)]
            firsts = np.array([*(part.start for part in parts), n_own])
            update, slots = "none", []
            if self.updates:
                update = f"{type(step.optimizer).__name__.lower()}_step"
                slots = [step.state[slot] for slot in step.optimizer.slots]
            shared = firsts, step.x[:n_own], step.workers.signals, update, (*slots, model.theta, model.theta)[:2], self.numbers
            self.teams[n_rows] = [(part, self.workspace.of_worker(k, *shared)) for k, part in enumerate(parts)]
        return self.teams[n_rows]
