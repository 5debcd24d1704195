"""One training step: the gradient of a minibatch, shard by shard, and the update of the parameters.

`share` is the whole idea; a VAE has `npvae.training.together` in its place, for speed. `Step` is what `npvae.fit` calls for
every minibatch, and may be called by anybody:

    rows = Rows.of(model, x, "x")
    with Workers(1) as workers:
        step = Step(model, rows, batch_size=100, optimizer=Adam(1e-3), workers=workers)
        terms, culprits = step(index=np.arange(100), number=0)          # theta has changed
"""

import functools
import math

import numpy as np

from npvae.core.parameters import views_of, zeros
from npvae.core.randomness import STEP, Stream
from npvae.core.ranks import Ranks, SumOfShares
from npvae.core.workers import parts_of
from npvae.models.backend import team_of
from npvae.ops.updates import total
from npvae.training import optim
from npvae.training.optim import at_step
from npvae.training.together import Together


def share(model, batch, rng, settings, weight, out, **chains):
    """What one shard adds to a step: its share of the Terms; its share of the gradient goes to `out` (P,).

    weight is the shard's share of the batch's rows. A mean over the batch is the weighted sum of the means over its shards, so
    the weight is the upstream gradient of the shard's loss. chains=rows, where the model has persistent chains, is for its
    draw, which moves them.
    """
    noise = model.draw(rng, *batch, **settings, **chains)
    terms, cache = model.forward(*batch, noise, **settings)
    model.backward(cache, dloss=weight, out=out)
    return [weight * value for value in terms]


class Step:
    """The step of a training. The gradient of a batch comes as shares that add up, one per worker, each with noise, buffers and
    memory of its own; or in one call by all workers together, where the model offers that (`npvae.training.together`). Of
    several ranks each has as many shards as it has workers, and the shards of all are numbered in the order of ranks.

    rows        of `npvae.data.rows`; without data a step is one shard, or cut as the model's persistent chains are
    settings    of the model's draw and forward: values, or callables of the step's number
    optimizer   one of `npvae.training.optim`, or an object with `step(theta, grad, state)`
    state       the optimiser's, changed in place; a fresh one if None
    reduction   "fastest", or "shards": the gradients of all shards are added one by one, in order, so that as many workers in
                one process, in several, or one in each give the same bits
    ranks       all processes that train this model, of `npvae.core.ranks`; this one alone if None
    """

    def __init__(self, model, rows, batch_size, optimizer, workers, settings=None, state=None, seed=0, max_gradient_norm=None,
                 weight_decay=0.0, reduction="fastest", ranks=None):  # fmt: skip
        self.model, self.rows, self.batch_size, self.workers = model, rows, batch_size, workers
        self.reduction, self.ranks = reduction, Ranks() if ranks is None else ranks
        self.n_shards, self.first_shard = self.ranks.n * workers.n, self.ranks.rank * workers.n
        workers.team = team_of(model)
        self.settings, self.optimizer = settings or {}, optim.on_backend(optimizer, model)
        self.constant = None  # the settings, where none of them is a schedule
        if not any(map(callable, self.settings.values())):
            self.constant = self.settings_at(0)
        if weight_decay and not hasattr(optimizer, "learning_rate"):
            raise ValueError("weight_decay needs an optimizer with a learning_rate, which it is multiplied by")
        self.state = optim.initial_state(optimizer, model.theta) if state is None else state
        self.adds_shares = isinstance(optimizer, optim.OPTIMIZERS)  # ours do it themselves
        self.in_slices = workers.n > 1 and getattr(optimizer, "elementwise", False)
        self.max_gradient_norm, self.weight_decay = max_gradient_norm, weight_decay
        self.streams = [Stream(seed, STEP, self.first_shard + i) for i in range(workers.n)]
        chains = getattr(model, "chains", None)
        self.n_chains = 1 if chains is None else len(chains)
        most_rows = min(batch_size, len(rows)) if rows.arrays else self.n_chains
        most_rows = min(most_rows, workers.n * math.ceil(most_rows / self.n_shards))  # of this rank
        self.x = np.empty((most_rows, rows.arrays[0].shape[1]), rows.dtype) if rows.arrays else None
        if chains is not None and len(chains) < self.n_shards:
            need = f"{self.n_shards} workers need at least as many chains, since each moves its own"
            raise ValueError(f"{need}; the model has {len(chains)}")
        self.in_one_call, self.together = getattr(model, "gradient", None), None
        self.workspaces = [None] * workers.n
        if hasattr(model, "workspace"):
            self.make_workspaces(most_rows, self.settings_at(0))

    def make_workspaces(self, most_rows, settings):
        """What gradients in one call are computed in: one of all workers together where it has a place for a team, else one for
        each, of which the first has room for more rows than it needs."""
        model, n = self.model, self.workers.n
        self.names = [value for value in settings.values() if isinstance(value, str)]
        if self.reduction == "fastest":
            self.workspaces[0] = model.workspace(most_rows, n_shards=n, **settings)
        if hasattr(self.workspaces[0], "team") and self.rows.arrays:
            self.together = Together(self, self.workspaces[0])
        else:
            n_rows = math.ceil(most_rows / n)  # of the largest shard
            made = [workspace for workspace in self.workspaces[:1] if workspace is not None]
            self.workspaces = made + [model.workspace(n_rows, **settings) for _ in range(len(made), n)]

    @functools.cached_property
    def gradients(self):
        """(shards, P), of the last step whose workers computed each for itself."""
        return zeros((self.workers.n, self.model.theta.size), self.model.theta.dtype, place=3)

    @functools.cached_property
    def ordered_sum(self):
        """How shares are added up over all ranks."""
        n_own = self.workers.n if self.reduction == "shards" else 1
        return SumOfShares(self.ranks, n_own, self.model.theta.size, self.model.theta.dtype)

    def __call__(self, index, number):
        """Step `number` on the rows `index`: Terms of the batch, and the names of what was not finite; then nothing changes."""
        settings = self.settings_at(number)
        if self.is_together(settings):
            terms, culprits = self.together(index, number, settings)
        else:
            terms, grad, culprits = self.gradient_of_shares(index, number, settings)
            if not culprits:
                self.update(grad)
        if culprits and hasattr(self.optimizer, "skip"):
            self.optimizer.skip(self.state)
        return terms, culprits

    def settings_at(self, number):
        """The settings of step `number`."""
        if self.constant is not None:
            return self.constant
        return {name: setting_at(value, number) for name, value in self.settings.items()}

    # ------------------------------------------------------------------------------------------------------- gradient

    def gradient(self, index, number):
        """Terms of the batch, its gradient as shares that add up (shards, P), and the names of what was not finite."""
        settings = self.settings_at(number)
        if self.is_together(settings):
            return self.together.gradient(index, number, settings)
        return self.gradient_of_shares(index, number, settings)

    def gradient_of_shares(self, index, number, settings):
        """As `gradient`, where each worker computes its own."""
        n_rows = len(index) if self.rows.arrays else self.n_chains
        own, parts = self.own_shards(n_rows)
        index = index[own] if self.rows.arrays else index
        weights = [(part.stop - part.start) / n_rows for part in parts]

        def share(i):
            return self.share(i, index, parts[i], number, settings, weights[i])

        if min(n_rows, self.n_shards) > 1 and self.couples_rows(settings):
            shares = self.joined_shares(index, parts, number, settings, weights)
        else:
            shares = self.ranks.gathered(lambda: self.workers.map(share, range(len(parts))))
        if getattr(self.model, "chains", None) is not None:
            self.ranks.share_rows(self.model.chains, self.n_shards)
        terms, bounds = self.added(shares)
        grad = self.gradients[: len(parts)]
        culprits = self.culprits(terms, bounds, grad)
        return terms, grad if self.ranks.n == 1 or culprits else self.sum_over_ranks(n_rows, grad), culprits

    def own_shards(self, n_rows):
        """Of a batch of so many rows those of this rank, a slice, and its shards as slices of these."""
        parts = parts_of(n_rows, self.n_shards, self.first_shard, self.workers.n)
        start, stop = (parts[0].start, parts[-1].stop) if parts else (0, 0)  # none, where there are fewer rows than shards
        return slice(start, stop), [slice(part.start - start, part.stop - start) for part in parts]

    def sum_over_ranks(self, n_rows, shares):
        """The gradient (1, P) of a batch of so many rows, from this rank's shares (shards, P) of it."""
        n = min(n_rows, self.n_shards)
        if self.reduction == "shards":
            return self.ordered_sum(self.gradients, n)
        if len(shares) > 1:
            shares = shares.sum(axis=0, keepdims=True)
        return self.ordered_sum(shares if len(shares) else self.gradients[:1], math.ceil(n / self.workers.n))

    def is_together(self, settings):
        """Whether the gradient of a step with these settings is computed by all workers together: not where a schedule has
        changed the name of an objective, for which the workspace may not be."""
        if self.together is None or self.couples_rows(settings):
            return False
        return self.constant is not None or self.names == [value for value in settings.values() if isinstance(value, str)]

    def couples_rows(self, settings):
        """Whether the loss is no mean over rows, so that the shards have to be joined before their backward passes."""
        couples = getattr(self.model, "couples_rows", None)
        return couples is not None and couples(**settings)

    def share(self, i, index, part, number, settings, weight):
        """Shard i, the rows index[part]: its share of the Terms, and a number that is finite only where the squares of its
        gradient are."""
        batch, rng = self.draw(i, index, part, number)
        out = self.gradients[i]
        if self.in_one_call is None:
            with np.errstate(over="ignore", invalid="ignore"):  # the numbers returned show it
                return share(self.model, batch, rng, settings, weight, out, **self.chains(i)), np.dot(out, out)
        return self.share_in_one_call(i, batch, rng, settings, weight, out, self.workspaces[i])

    def share_in_one_call(self, i, batch, rng, settings, weight, out, workspace):
        """As `share`, by the model's `gradient`."""
        noise = self.model.draw(rng, *batch, **settings, **self.chains(i))
        # By way of partial: where a worker's stack stands when the kernel begins decides a fifth of its time (on Zen with AVX2,
        # two workers), and a call with * and ** from here leaves it in a bad place.
        gradient = functools.partial(self.in_one_call, *batch, noise, **settings, dloss=weight, out=out, workspace=workspace)
        terms, bound = gradient()
        return [weight * value for value in terms], bound

    def joined_shares(self, index, parts, number, settings, weights):
        """As `share` for every shard, where the loss is no mean over rows: forward on all shards, then backward on each."""
        model = self.model

        def forward(i):
            batch, rng = self.draw(i, index, parts[i], number)
            return model.forward(*batch, model.draw(rng, *batch, **settings, **self.chains(i)), **settings)

        def backward(i):
            out = self.gradients[i]
            model.backward(caches[i], dloss=weights[i], out=out)
            return np.dot(out, out)

        gathered = {} if self.ranks.n == 1 else {"gathered": self.ranks.gathered}
        with np.errstate(over="ignore", invalid="ignore"):
            done = self.workers.map(forward, range(len(parts)))
            terms, caches = zip(*done) if done else ((), ())
            whole, caches = model.join(terms, caches, weights, **gathered)
            bounds = self.workers.map(backward, range(len(parts)))
        shares = [([weight * value for value in whole], bound) for weight, bound in zip(weights, bounds)]
        return self.ranks.gathered(lambda: shares)

    def draw(self, i, index, part, number):
        """The rows index[part] of shard i as a batch, and the generator of its noise: first the rows' own random numbers."""
        rng = self.streams[i].at(number)
        return self.rows.batch(index[part], rng, None if self.x is None else self.x[part]), rng

    def chains(self, i):
        """The keyword of `draw` that belongs to shard i: its rows of the model's persistent chains, as a view, which draw moves
        in place; none for a model without. Workers have rows of their own, so results do not depend on scheduling."""
        chains = getattr(self.model, "chains", None)
        if chains is None:
            return {}
        (part,) = parts_of(len(chains), self.n_shards, self.first_shard + i, 1)
        return {"chains": chains[part]}

    def added(self, shares):
        """The Terms of the batch, and the bounds of the shards' gradients."""
        values, bounds = zip(*shares)
        return self.model.Terms(*(values[0] if len(values) == 1 else map(sum, zip(*values)))), bounds

    def culprits(self, terms, bounds, gradients):
        """The names of what was not finite, each once: optimisers square the gradient, so its square must be finite too."""
        if all(map(math.isfinite, (terms[0], *bounds))):
            return []
        found = [] if math.isfinite(terms[0]) else ["loss"]
        for out in gradients:
            with np.errstate(over="ignore", invalid="ignore"):
                named = views_of(out, {name: value.shape for name, value in self.model.parameters.items()}).items()
                found += [f"gradient of {name}" for name, g in named if not math.isfinite(np.vdot(g, g))]
        return list(dict.fromkeys(self.ranks.gathered(lambda: found)))

    # --------------------------------------------------------------------------------------------------------- update

    def update(self, grad):
        """The optimiser's step with a gradient in shares (shards, P): clipped before, with the weights decayed."""
        model, optimizer, state = self.model, self.optimizer, self.state
        if hasattr(optimizer, "select"):
            optimizer.select(grad, state)
        if self.max_gradient_norm is not None:
            grad = total(grad)[None]  # the sum is what is clipped, whoever has added it up
            optim.clip_gradient_norm(grad, self.max_gradient_norm)
        if self.weight_decay:
            learning_rate = at_step(optimizer.learning_rate, state["t"])
            optim.decay_weights(model.parameters, learning_rate * self.weight_decay)
        if not self.adds_shares:
            grad = grad.sum(axis=0)
        if self.in_slices:
            self.update_slices(grad)
        else:
            optimizer.step(model.theta, grad, state)

    def update_slices(self, grad):
        """The step of an elementwise optimiser, a slice of the parameters by each worker."""
        theta, state = self.model.theta, self.state
        parts = self.workers.parts(theta.size)
        states = [{name: value[part] if isinstance(value, np.ndarray) else value for name, value in state.items()}
                  for part in parts]  # fmt: skip
        handed = [dict(slices) for slices in states]
        self.workers.map(lambda k: self.optimizer.step(theta[parts[k]], grad[..., parts[k]], states[k]), range(len(parts)))
        for name, value in states[0].items():
            if not isinstance(value, np.ndarray):
                state[name] = value
            elif value is not handed[0].get(name):  # made by this step, not changed in place
                state[name] = np.concatenate([slices[name] for slices in states])


def setting_at(value, number):
    """A setting at step `number`: a schedule gives numbers of at least 0, or a name. NumPy's numbers become Python's, since
    they would decide the dtype of what they multiply."""
    if callable(value):
        value = value(number)
        return value if isinstance(value, str) else at_step(value, number)
    return value.item() if isinstance(value, np.generic) else value
