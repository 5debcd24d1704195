"""Training: the loop over epochs and minibatches.

What is random is a pure function of the seed and of counters (see `npvae.batches`), so a run can stop after any epoch and go on
to the same result.
"""

import contextlib
import time

import numpy as np
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from npvae import checks, optim
from npvae.batches import FULL_BATCH, PERMUTATION, Rows, generator
from npvae.history import Best, TrainingState, epoch_line, history_row, progress_bar
from npvae.minibatch import MinibatchGradient, Objective, validate
from npvae.parallel import Workers, workers_for

MAX_SKIPPED_IN_A_ROW = 3


def fit(model, x_train, x_val=None, *, epochs=10, batch_size=128, optimizer=None, objective="elbo", beta=1.0, n_samples=1,
        free_bits_per_dimension=0.0, free_bits_total=0.0, max_gradient_norm=None, weight_decay=0.0, early_stopping=None,
        binarize=True, output_bias=False, seed=0, workers=None, progress=True, on_epoch=None, on_step=None,
        resume=None):  # fmt: skip
    """Train `model` in place by minimising a bound on −log p(x) over minibatches; returns the History.

    x_train, x_val   (n, D): floats, bool, or uint8 grey levels 0–255 (read as 0–1)
    epochs           passes over x_train, each with every row exactly once
    batch_size       rows per step; the last batch of an epoch may be smaller
    optimizer        Adam(1e-3) if None; its learning rate is a number or a callable of the step (`npvae.schedules`)
    objective        "elbo", nll + beta kl, or "iwae", the importance-weighted bound of n_samples samples (Burda et al. 2016)
    beta             weight of the KL, a number (beta-VAE) or a callable of the step, 0 for the first (annealing)
    n_samples        S, samples of z per datum and step
    free_bits_per_dimension, free_bits_total
                     nats of KL that cost nothing, for each latent dimension or for all together (Kingma et al. 2016); at
                     most one of the two
    max_gradient_norm   a longer gradient is shortened to this norm (Pascanu et al. 2013)
    weight_decay     every step multiplies the weights W by 1 − learning rate · weight_decay (Loshchilov & Hutter 2019)
    early_stopping   stop after so many epochs without a lower validation loss, and end with the weights of the best epoch;
                     epochs with another beta do not count
    binarize         draw grey pixels afresh per minibatch (Bernoulli likelihood); False trains on the grey levels themselves
    output_bias      start the likelihood's bias at the data's mean, for the Bernoulli likelihood at its logit: the model then
                     need not learn first which pixels are nearly always black
    seed             of row order, noise and binarisation; the initial weights have the model's own
    workers          threads that share each batch; by default one for small models, the cores available for others.
                     The same seed and workers give the same bits; other workers draw other noise
    progress         a bar with loss, nll and kl in nats and the speed, on a terminal; a line per epoch
    on_epoch         called with the TrainingState after each epoch
    on_step          called with the TrainingState after each step; training stops there if it returns True
    resume           the TrainingState to go on from, with the model as it was then: the result has the bits that it would have
                     without the break, wherever that was

    A step whose loss or gradient is not finite is skipped and counted; after three in a row FloatingPointError says which
    tensor went wrong. ValueError for arguments that cannot be used.
    """
    optimizer = optim.Adam() if optimizer is None else optimizer
    objective = Objective(objective, beta, n_samples, free_bits_per_dimension, free_bits_total)
    checks.integer("epochs", epochs, 0)
    checks.integer("batch_size", batch_size, 1)
    checks.number("weight_decay", weight_decay, 0)
    if max_gradient_norm is not None:
        checks.number("max_gradient_norm", max_gradient_norm, 0, exclusive=True)
    if early_stopping is not None and checks.integer("early_stopping", early_stopping, 1) and x_val is None:
        raise ValueError("early_stopping needs validation data, x_val")
    if workers is not None:
        checks.integer("workers", workers, 1)
    _check_training(model, optimizer, seed)
    train = Rows.of(model, x_train, "x_train", binarize)
    val = None if x_val is None else Rows.of(model, x_val, "x_val", binarize)
    state = TrainingState(optim.initial_state(optimizer, model.theta)) if resume is None else resume
    if output_bias and resume is None:
        set_output_bias(model, train)

    n_workers = workers_for(model, batch_size * n_samples) if workers is None else workers
    state.keep(seed=seed, batch_size=batch_size, rows=len(train.x), workers=n_workers)
    optim.check_state(optimizer, model.theta, state.optimizer)
    done = state.epoch * len(train.x) + min(state.position * batch_size, len(train.x))
    bar = progress_bar(progress, total=epochs * len(train.x), initial=done)
    with bar, Workers(n_workers) as workers, _compilation_announced(model, progress):
        gradient = MinibatchGradient(model, train, batch_size, objective, seed, workers)
        op = workers.sliced(getattr(model.ops, optimizer.op))

        def update(grad):
            if max_gradient_norm is not None:
                optim.clip_gradient_norm(grad, max_gradient_norm)
            if weight_decay:
                learning_rate = optim.at_step(optimizer.learning_rate, state.optimizer["t"])
                optim.decay_weights(model.parameters, learning_rate * weight_decay)
            optimizer.step(model.theta, grad, state.optimizer, op)

        while state.epoch < epochs and not _stopped_early(state, early_stopping):
            bar.set_description(f"epoch {state.epoch + 1}/{epochs}")
            rows, started = state.sums[3], time.perf_counter()
            finished = _pass(gradient, update, state, bar, seed, on_step)
            rows, seconds = state.sums[3] - rows, time.perf_counter() - started
            state.seconds += seconds
            if not finished:
                return state.history
            _end_epoch(gradient, val, state, seed)
            if progress:
                tqdm.write(f"{epoch_line(state.history.rows[-1], epochs)}  {rows / seconds:,.0f} rows/s")
            if on_epoch is not None:
                on_epoch(state)
    if early_stopping is not None and state.best is not None:
        model.theta = state.best.theta
        if progress and _stopped_early(state, early_stopping):
            tqdm.write(f"stopped early: no lower validation loss in {early_stopping} epochs; "
                       f"kept the weights of epoch {state.best.epoch}")  # fmt: skip
    return state.history


def _stopped_early(state, early_stopping):
    return early_stopping is not None and state.best is not None and state.epoch - state.best.epoch >= early_stopping


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


def _check_training(model, optimizer, seed):
    """What fit and fit_lbfgs ask of their common arguments."""
    checks.integer("seed", seed, 0)
    if not isinstance(optimizer, optim.OPTIMIZERS):
        names = ", ".join(kind.__name__ for kind in optim.OPTIMIZERS)
        raise ValueError(f"optimizer must be one of {names}, such as npvae.Adam(1e-3); got {optimizer!r}")
    if model.dtype.kind == "c":
        raise ValueError(f"a model to be trained must have dtype float32 or float64; got {model.dtype}")


def _pass(gradient, update, state, bar, seed, on_step):
    """A step for each minibatch that is left of the epoch; False if on_step asked to stop before the last."""
    n, batch_size = len(gradient.train.x), gradient.batch_size
    order = generator(seed, PERMUTATION, state.epoch).permutation(n)
    while (start := state.position * batch_size) < n:
        rows = order[start : start + batch_size]
        terms, grad, culprits = gradient(rows, state.step)
        state.step += 1
        state.position += 1
        if culprits:
            _skip(state, culprits)
        else:
            update(grad)
            state.skipped_in_a_row = 0
            loss, nll, kl, n_summed = state.sums  # weighted by rows: exact when the last batch is short
            m = len(rows)
            state.sums = [loss + m * terms.loss, nll + m * terms.nll, kl + m * terms.kl, n_summed + m]
        if not bar.disable:
            bar.set_postfix_str(f"loss {terms.loss:.2f} nll {terms.nll:.2f} kl {terms.kl:.2f} nats", refresh=False)
            bar.update(len(rows))
        if on_step is not None and on_step(state):
            return False
    return True


def _skip(state, culprits):
    """Count a step that is left out because loss or gradient were not finite; FloatingPointError after three in a row."""
    state.skipped += 1
    state.skipped_in_a_row += 1
    if state.skipped_in_a_row == MAX_SKIPPED_IN_A_ROW:
        raise FloatingPointError(
            f"{MAX_SKIPPED_IN_A_ROW} steps in a row were not finite (step {state.step}: {', '.join(culprits)}); "
            "a lower learning rate may help"
        )


def _end_epoch(gradient, val, state, seed):
    """Measure the validation rows, add a row to the history, note the best epoch so far."""
    *sums, n_summed = state.sums
    train_terms = np.array(sums) / n_summed if n_summed else np.full(3, np.nan)
    state.epoch, state.position, state.sums = state.epoch + 1, 0, [0.0] * 4
    val_terms, objective = (None, None, None), gradient.objective
    beta = optim.at_step(objective.beta, state.step - 1)
    if val is not None:
        n_samples = objective.n_samples if objective.name == "iwae" else 1
        val_terms = validate(gradient.model, val, beta, gradient.batch_size, seed, gradient.workers, objective.name, n_samples)
    state.history.rows.append(history_row(state, train_terms, val_terms))
    best = state.best
    if val is not None and (best is None or best.beta != beta or val_terms[0] < best.loss):
        state.best = Best(state.epoch, float(val_terms[0]), beta, gradient.model.theta.copy())


def fit_lbfgs(model, x_train, x_val=None, *, iterations=200, n_samples=1, beta=1.0, binarize=True, seed=0, progress=True):
    """Train `model` in place on all of x_train at once by the quasi-Newton method L-BFGS; returns the History.

    The noise (S samples per datum) and the binarisation are drawn once, which makes the loss a deterministic function of
    theta, as L-BFGS needs; with few rows or samples theta may fit that draw. For problems small enough to hold one pass
    over all rows in memory. One row of History per iteration; arguments as in `fit`.
    """
    checks.integer("iterations", iterations, 1)
    Objective("elbo", beta, n_samples)
    _check_training(model, optim.SGD(), seed)
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
        state.history.rows.append(history_row(state, terms[:3], val_terms))
        bar.set_postfix_str(epoch_line(state.history.rows[-1], iterations))
        bar.update()

    bar = progress_bar(progress, total=iterations, unit=" iterations", unit_scale=False)
    with bar, threadpool_limits(workers_for(model, len(x)), user_api="blas"):
        model.theta = optim.lbfgs(loss_and_grad, model.theta, iterations, callback=on_iteration).x
    return state.history
