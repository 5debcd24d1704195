"""Training: schedules, the loop, the history.

What is random is a pure function of the seed and of counters (see `npvae.batches`), so a run can stop after any epoch and go on
to the same result.
"""

import contextlib
import math
import operator
import sys
import time
from dataclasses import dataclass, field

import numpy as np
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from npvae import checks, optim
from npvae.batches import FULL_BATCH, PERMUTATION, STEP, VALIDATION, Rows, Stream, generator
from npvae.parallel import Workers, workers_for
from npvae.parameters import views_of, zeros
from npvae.vae import Terms

MAX_SKIPPED_IN_A_ROW = 3


class History:
    """One row per epoch, a dict of numbers; `history["val_loss"]` is a column as an array (NaN where there is none).

    epoch, step (minibatches done), seconds (of training so far), and train_ and val_ loss, nll, kl: nats, means over the
    epoch's rows, the training ones under the parameters as they were at each step; loss = nll + beta kl.
    """

    def __init__(self, rows=()):
        self.rows = list(rows)

    def __getitem__(self, name):
        return np.array([np.nan if row[name] is None else row[name] for row in self.rows])

    def __len__(self):
        return len(self.rows)

    def __repr__(self):
        return f"History({len(self)} epochs)" + (f": {epoch_line(self.rows[-1], len(self))}" if self.rows else "")


@dataclass
class TrainingState:
    """Where a run stands: with the model's theta, all that is needed to go on."""

    optimizer: dict  # see optim.initial_state
    epoch: int = 0  # epochs done
    step: int = 0  # minibatches done
    seconds: float = 0.0
    skipped: int = 0  # steps left out because loss or gradient were not finite
    skipped_in_a_row: int = 0
    history: History = field(default_factory=History)


def fit(model, x_train, x_val=None, *, epochs=10, batch_size=128, optimizer=None, beta=1.0, n_samples=1, binarize=True,
        output_bias=False, seed=0, workers=None, progress=True, on_epoch=None, resume=None):  # fmt: skip
    """Train `model` in place by minimising nll + beta kl over minibatches; returns the History.

    x_train, x_val   (n, D): floats, bool, or uint8 grey levels 0–255 (read as 0–1)
    epochs           passes over x_train, each with every row exactly once
    batch_size       rows per step; the last batch of an epoch may be smaller
    optimizer        Adam(1e-3) if None; its learning rate is a number or a callable of the step
    beta             weight of the KL, a number or a callable of the step (0 for the first)
    n_samples        S, samples of z per datum and step
    binarize         draw grey pixels afresh per minibatch (Bernoulli likelihood); False trains on the grey levels themselves
    output_bias      start the likelihood's bias at the data's mean, for the Bernoulli likelihood at its logit: the model then
                     need not learn first which pixels are nearly always black
    seed             of row order, noise and binarisation; the initial weights have the model's own
    workers          threads that share each batch; by default one for small models, the cores available for others.
                     The same seed and workers give the same bits; other workers draw other noise
    progress         a bar with loss, nll and kl in nats and the speed, on a terminal; a line per epoch
    on_epoch         called with the TrainingState after each epoch
    resume           the TrainingState to go on from, with the model as it was then

    A step whose loss or gradient is not finite is skipped and counted; after three in a row FloatingPointError says which
    tensor went wrong. ValueError for arguments that cannot be used.
    """
    optimizer = optim.Adam() if optimizer is None else optimizer
    checks.integer("epochs", epochs, 0)
    checks.integer("batch_size", batch_size, 1)
    if workers is not None:
        checks.integer("workers", workers, 1)
    _check_training(model, optimizer, n_samples, beta, seed)
    train = Rows.of(model, x_train, "x_train", binarize)
    val = None if x_val is None else Rows.of(model, x_val, "x_val", binarize)
    state = TrainingState(optim.initial_state(optimizer, model.theta)) if resume is None else resume
    if output_bias and resume is None:
        set_output_bias(model, train)
    n = len(train.x)
    n_workers = workers_for(model, batch_size) if workers is None else workers
    bar = progress_bar(progress, total=epochs * n, initial=state.epoch * n)
    with bar, Workers(n_workers) as workers, _compilation_announced(model, progress):
        gradient = MinibatchGradient(model, train, batch_size, n_samples, seed, workers)
        while state.epoch < epochs:
            started = time.perf_counter()
            bar.set_description(f"epoch {state.epoch + 1}/{epochs}")
            order = generator(seed, PERMUTATION, state.epoch).permutation(n)
            mean_terms = _train_epoch(model, optimizer, gradient, order, beta, state, workers, bar)
            state.epoch += 1
            seconds = time.perf_counter() - started
            state.seconds += seconds
            val_terms = (None, None, None)
            if val is not None:
                val_terms = validate(model, val, optim.at_step(beta, state.step - 1), batch_size, seed, workers)
            state.history.rows.append(_history_row(state, mean_terms, val_terms))
            if progress:
                line = epoch_line(state.history.rows[-1], epochs)
                tqdm.write(f"{line}  {n / seconds:,.0f} rows/s")
            if on_epoch is not None:
                on_epoch(state)
    return state.history


def set_output_bias(model, train):
    """Set likelihood.b so that the decoder's output is the mean of the rows where z says nothing.

    Bernoulli: the logit of (k + 1)/(n + 2), k the sum over the n rows, Laplace's rule, which is finite where a pixel is always
    black. Gaussian: the mean itself.
    """
    mean = train.x.mean(axis=0, dtype=np.float64) * train.scale  # (D,)
    if model.likelihood == "bernoulli":
        n = len(train.x)
        mean = np.log((n * mean + 1) / (n * (1 - mean) + 1))
    model.parameters["likelihood.b"][:] = mean


def _compilation_announced(model, progress):
    """Tell who watches why the first step of all takes so long."""
    if not progress or model.backend == "numpy":
        return contextlib.nullcontext()
    from npvae.kernels.compile import announced

    return announced(lambda: tqdm.write("compiling the kernels, which happens once and takes some 10 seconds"))


def _check_training(model, optimizer, n_samples, beta, seed):
    """What fit and fit_lbfgs ask of their common arguments."""
    checks.integer("n_samples", n_samples, 1)
    checks.integer("seed", seed, 0)
    if not callable(beta):
        checks.number("beta", beta, 0)
    if not isinstance(optimizer, optim.OPTIMIZERS):
        names = ", ".join(kind.__name__ for kind in optim.OPTIMIZERS)
        raise ValueError(f"optimizer must be one of {names}, such as npvae.Adam(1e-3); got {optimizer!r}")
    if model.dtype.kind == "c":
        raise ValueError(f"a model to be trained must have dtype float32 or float64; got {model.dtype}")


def _train_epoch(model, optimizer, gradient, order, beta, state, workers, bar):
    """One pass over the rows in this order; returns the means of loss, nll and kl over them."""
    update = workers.sliced(getattr(model.ops, optimizer.op))
    loss = nll = kl = n_summed = 0
    for start in range(0, len(order), gradient.batch_size):
        rows, step = order[start : start + gradient.batch_size], state.step
        terms, grad, culprits = gradient(rows, step, optim.at_step(beta, step))
        state.step += 1
        if culprits:
            state.skipped += 1
            state.skipped_in_a_row += 1
            if state.skipped_in_a_row == MAX_SKIPPED_IN_A_ROW:
                raise FloatingPointError(
                    f"{MAX_SKIPPED_IN_A_ROW} steps in a row were not finite (step {state.step}: {', '.join(culprits)}); "
                    "a lower learning rate may help"
                )
        else:
            optimizer.step(model.theta, grad, state.optimizer, update)
            state.skipped_in_a_row = 0
            n = len(rows)  # terms are weighted by rows: exact when the last batch is short
            loss, nll, kl, n_summed = loss + n * terms.loss, nll + n * terms.nll, kl + n * terms.kl, n_summed + n
        if not bar.disable:
            bar.set_postfix_str(f"loss {terms.loss:.2f} nll {terms.nll:.2f} kl {terms.kl:.2f} nats", refresh=False)
            bar.update(len(rows))
    return np.array([loss, nll, kl]) / n_summed if n_summed else np.full(3, np.nan)


class MinibatchGradient:
    """The gradient of one minibatch after another, a shard per worker, each with noise, buffers and gradient of its own."""

    def __init__(self, model, train, batch_size, n_samples, seed, workers):
        n_rows = math.ceil(min(batch_size, len(train.x)) / workers.n)  # of the largest shard
        self.model, self.train, self.batch_size, self.n_samples, self.workers = model, train, batch_size, n_samples, workers
        self.streams = [Stream(seed, STEP, number) for number in range(workers.n)]
        self.workspaces = [model.workspace(n_rows, n_samples) for _ in range(workers.n)]
        self.x = np.empty((workers.n, n_rows, model.n_features), model.dtype)
        self.grad = zeros((workers.n, model.theta.size), model.dtype, place=3)

    def __call__(self, rows, step, beta):
        """Terms of the batch `rows`, its gradient as shares that add up (shards, P), and the names of what was not finite."""
        shards = self.workers.shards(rows)
        shares = self.workers.map(lambda i: self.share(i, shards[i], step, beta, len(rows)), range(len(shards)))
        terms, culprits = shares[0]
        for others, names in shares[1:]:
            terms, culprits = Terms(*map(operator.add, terms, others)), culprits + names
        return terms, self.grad[: len(shards)], list(dict.fromkeys(culprits))  # each name once, in order

    def share(self, i, rows, step, beta, batch_size):
        """What shard i contributes: its share of the Terms, and the names of what was not finite; its gradient in grad[i]."""
        model, grad = self.model, self.grad[i]
        rng = self.streams[i].at(step)
        x = self.train.batch(rows, rng, out=self.x[i, : len(rows)])  # (B, D) of this shard
        eps = rng.standard_normal((self.n_samples, len(rows), model.n_latent), model.dtype)  # (S, B, L)
        terms, bound = model.gradient(x, eps, beta, grad, batch_size, self.workspaces[i])
        culprits = [] if math.isfinite(terms.loss) else ["loss"]
        if not math.isfinite(bound):  # optimisers square the gradient, so its square must be finite
            with np.errstate(over="ignore", invalid="ignore"):
                named = views_of(grad, model.shapes).items()
                culprits += [f"gradient of {name}" for name, g in named if not math.isfinite(np.vdot(g, g))]
        return terms, culprits


def validate(model, rows, beta=1.0, batch_size=128, seed=0, workers=None):
    """Means of loss, nll and kl over `rows`, one sample each. Noise and binarisation depend on the seed alone, so that the
    values of two epochs differ by the model only; workers, if given, share the batches and change no bit of the result."""
    n = len(rows.x)

    def sums_of(i):
        rng = generator(seed, VALIDATION, i)
        x = rows.batch(np.arange(i * batch_size, min((i + 1) * batch_size, n)), rng)  # (B, D)
        eps = rng.standard_normal((len(x), model.n_latent), model.dtype)
        terms, _ = model.forward(x, eps, beta, check=False)
        return np.multiply(terms[:3], len(x))

    batches = range(math.ceil(n / batch_size))
    return sum(map(sums_of, batches) if workers is None else workers.deal(sums_of, batches)) / n


def fit_lbfgs(model, x_train, x_val=None, *, iterations=200, n_samples=1, beta=1.0, binarize=True, seed=0, progress=True):
    """Train `model` in place on all of x_train at once by the quasi-Newton method L-BFGS; returns the History.

    The noise (S samples per datum) and the binarisation are drawn once, which makes the loss a deterministic function of
    theta, as L-BFGS needs; with few rows or samples theta may fit that draw. For problems small enough to hold one pass
    over all rows in memory. One row of History per iteration; arguments as in `fit`.
    """
    checks.integer("iterations", iterations, 1)
    _check_training(model, optim.SGD(), n_samples, beta, seed)
    train = Rows.of(model, x_train, "x_train", binarize)
    val = None if x_val is None else Rows.of(model, x_val, "x_val", binarize)
    rng = generator(seed, FULL_BATCH, 0)
    x = train.batch(np.arange(len(train.x)), rng)  # (n, D)
    eps = rng.standard_normal((n_samples, len(x), model.n_latent), model.dtype)  # (S, n, L)
    state = TrainingState(optimizer={})
    started = time.perf_counter()

    def loss_and_grad(theta):
        model.theta = theta
        terms, cache = model.forward(x, eps, beta, check=False)
        grad = np.empty_like(model.theta)
        model.backward(cache, out=grad)
        return terms.loss, grad.astype(np.float64)

    def on_iteration(theta):
        model.theta = theta
        state.epoch += 1
        state.step += 1
        state.seconds = time.perf_counter() - started
        terms, _ = model.forward(x, eps, beta, check=False)
        val_terms = (None, None, None) if val is None else validate(model, val, beta, seed=seed)
        state.history.rows.append(_history_row(state, terms[:3], val_terms))
        bar.set_postfix_str(epoch_line(state.history.rows[-1], iterations))
        bar.update()

    bar = progress_bar(progress, total=iterations, unit=" iterations", unit_scale=False)
    with bar, threadpool_limits(workers_for(model, len(x)), user_api="blas"):
        model.theta = optim.lbfgs(loss_and_grad, model.theta, iterations, callback=on_iteration).x
    return state.history


def progress_bar(progress, **options):
    """A tqdm bar on stderr if `progress` is asked for and stderr is a terminal; else a silent one."""
    options = {"unit": " rows", "unit_scale": True, "leave": False, "dynamic_ncols": True, **options}
    return tqdm(disable=not (progress and sys.stderr.isatty()), **options)


def _history_row(state, train_terms, val_terms):
    row = {"epoch": state.epoch, "step": state.step, "seconds": round(state.seconds, 3)}
    for part, terms in [("train", train_terms), ("val", val_terms)]:
        row |= {f"{part}_{name}": None if value is None else float(value)
                for name, value in zip(["loss", "nll", "kl"], terms)}  # fmt: skip
    return row


def epoch_line(row, epochs):
    """A row of the History in words."""
    parts = [f"epoch {row['epoch']:{len(str(epochs))}}/{epochs}"]
    for part in ("train", "val"):
        if row[f"{part}_loss"] is not None:
            parts.append(f"{part} {row[f'{part}_loss']:.2f} = nll {row[f'{part}_nll']:.2f} + kl {row[f'{part}_kl']:.2f} nats")
    return "  ".join(parts)
