"""What is minimised, and its gradient for one minibatch after another, shard by shard."""

import math
import operator
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from npvae import bounds, checks, optim
from npvae.batches import STEP, VALIDATION, Stream, generator
from npvae.latent import gaussian_kl_forward
from npvae.parameters import views_of, zeros
from npvae.vae import Terms


@dataclass(frozen=True)
class Objective:
    """The arguments of `fit` that say what is minimised, checked."""

    name: str = "elbo"
    beta: float | Callable = 1.0
    n_samples: int = 1
    free_bits_per_dimension: float = 0.0
    free_bits_total: float = 0.0

    def __post_init__(self):
        checks.choice("objective", self.name, bounds.OBJECTIVES)
        if not callable(self.beta):
            checks.number("beta", self.beta, 0)
        checks.integer("n_samples", self.n_samples, 1)
        per_dimension = checks.number("free_bits_per_dimension", self.free_bits_per_dimension, 0)
        total = checks.number("free_bits_total", self.free_bits_total, 0)
        if per_dimension and total:
            raise ValueError("free_bits_per_dimension and free_bits_total are two different remedies: give one of them")
        if self.has_free_bits and self.name == "iwae":
            raise ValueError("free bits need the objective elbo: the importance-weighted bound has no KL term to relax")

    @property
    def has_free_bits(self):
        return self.free_bits_per_dimension > 0 or self.free_bits_total > 0

    def with_free_bits(self, beta, mean_kl):
        """beta max(λ, KL) of a batch whose mean KL is mean_kl (L,), as weights · mean_kl + constant: weights (L,), constant."""
        kl, counts = bounds.free_bits_forward(mean_kl, self.free_bits_per_dimension, self.free_bits_total)
        weights = bounds.free_bits_backward(beta, counts)
        return weights, beta * kl - weights @ mean_kl


class MinibatchGradient:
    """The gradient of one minibatch after another, a shard per worker, each with noise, buffers and gradient of its own."""

    def __init__(self, model, train, batch_size, objective, seed, workers):
        n_rows = math.ceil(min(batch_size, len(train.x)) / workers.n)  # of the largest shard
        self.model, self.train, self.batch_size, self.objective, self.workers = model, train, batch_size, objective, workers
        self.streams = [Stream(seed, STEP, number) for number in range(workers.n)]
        self.workspaces = [model.workspace(n_rows, objective.n_samples) for _ in range(workers.n)]
        self.x = np.empty((workers.n, n_rows, model.n_features), model.dtype)
        self.grad = zeros((workers.n, model.theta.size), model.dtype, place=3)

    def __call__(self, rows, step):
        """Terms of the batch `rows`, its gradient as shares that add up (shards, P), and the names of what was not finite."""
        shards, beta, constant = self.workers.shards(rows), optim.at_step(self.objective.beta, step), 0.0
        if self.objective.has_free_bits:  # they depend on the KL of the whole batch, which the encoder tells beforehand
            kl = sum(self.workers.map(lambda i: self.kl_share(i, shards[i], step), range(len(shards)))) / len(rows)  # (L,)
            beta, constant = self.objective.with_free_bits(beta, kl)
        shares = self.workers.map(lambda i: self.share(i, shards[i], step, beta, len(rows)), range(len(shards)))
        terms, culprits = shares[0]
        for others, names in shares[1:]:
            terms, culprits = Terms(*map(operator.add, terms, others)), culprits + names
        if constant:
            terms = terms._replace(loss=terms.loss + constant)
        return terms, self.grad[: len(shards)], list(dict.fromkeys(culprits))  # each name once, in order

    def share(self, i, rows, step, beta, batch_size):
        """What shard i contributes: its share of the Terms, and the names of what was not finite; its gradient in grad[i]."""
        model, grad, objective = self.model, self.grad[i], self.objective
        x, rng = self.draw(i, rows, step)
        eps = rng.standard_normal((objective.n_samples, len(rows), model.n_latent), model.dtype)  # (S, B, L)
        terms, bound = model.gradient(x, eps, beta, objective.name, grad, batch_size, self.workspaces[i])
        culprits = [] if math.isfinite(terms.loss) else ["loss"]
        if not math.isfinite(bound):  # optimisers square the gradient, so its square must be finite
            with np.errstate(over="ignore", invalid="ignore"):
                named = views_of(grad, model.shapes).items()
                culprits += [f"gradient of {name}" for name, g in named if not math.isfinite(np.vdot(g, g))]
        return terms, culprits

    def kl_share(self, i, rows, step):
        """Sum over the rows of shard i of each latent dimension's KL, (L,)."""
        mu, logvar = self.model.encode(self.draw(i, rows, step)[0])
        return gaussian_kl_forward(mu, logvar)[0].sum(axis=0, dtype=np.float64)  # (B, L) -> (L,)

    def draw(self, i, rows, step):
        """The rows of shard i as model input, (B, D), and the generator of its noise."""
        rng = self.streams[i].at(step)
        return self.train.batch(rows, rng, out=self.x[i, : len(rows)]), rng


def validate(model, rows, beta=1.0, batch_size=128, seed=0, workers=None, objective="elbo", n_samples=1):
    """Means of loss, nll and kl over `rows`. Noise and binarisation depend on the seed alone, so that the values of two epochs
    differ by the model only; workers, if given, share the batches and change no bit of the result."""
    n = len(rows.x)

    def sums_of(i):
        rng = generator(seed, VALIDATION, i)
        x = rows.batch(np.arange(i * batch_size, min((i + 1) * batch_size, n)), rng)  # (B, D)
        eps = rng.standard_normal((n_samples, len(x), model.n_latent), model.dtype)  # (S, B, L)
        with np.errstate(over="ignore", invalid="ignore"):  # the numbers returned show it
            terms, _ = model.forward(x, eps, beta, objective, check=False)
        return np.multiply(terms[:3], len(x))

    batches = range(math.ceil(n / batch_size))
    return sum(map(sums_of, batches) if workers is None else workers.deal(sums_of, batches)) / n
