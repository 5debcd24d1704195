"""Training on all rows at once by the quasi-Newton method L-BFGS."""

import time

import numpy as np
from threadpoolctl import threadpool_limits

from npvae.core import checks
from npvae.core.progress import progress_bar
from npvae.core.randomness import FULL_BATCH, generator
from npvae.data.rows import Rows
from npvae.training.fit import check_training, validation_rows
from npvae.training.optim import SGD
from npvae.training.state import TrainingState, epoch_line, history_row
from npvae.training.step import validate, validation_settings
from npvae.training.workers import workers_for


def fit_lbfgs(model, x_train=(), x_val=None, *, iterations=200, binarize=True, seed=0, progress=True, **settings):
    """Train `model` in place on all of x_train at once by L-BFGS; returns the History, a row per iteration.

    The noise and the binarisation are drawn once, which makes the loss a deterministic function of theta, as L-BFGS needs; with
    few rows or samples theta may fit that draw. For problems small enough to hold one pass over all rows in memory. Arguments
    as in `npvae.fit`; settings are values.
    """
    checks.integer("iterations", iterations, 1)
    for name, value in settings.items():
        if callable(value):
            raise ValueError(f"{name} must be a value, since L-BFGS minimises one function; got the schedule {value!r}")
    check_training(model, SGD(), 0, 1, seed, 1, None, settings)
    train = Rows.of(model, x_train, "x_train", binarize)
    val = validation_rows(model, x_val, binarize)
    rng = generator(seed, FULL_BATCH, 0)
    batch = train.batch(np.arange(len(train)), rng)
    noise = model.draw(rng, *batch, **settings)
    state, started = TrainingState(optimizer={}), time.perf_counter()

    def loss_and_grad(theta):
        model.theta = theta
        terms, cache = model.forward(*batch, noise, **settings)
        grad = np.empty_like(model.theta)
        model.backward(cache, out=grad)
        return terms.loss, grad.astype(np.float64)

    def on_iteration(theta):
        model.theta = theta
        state.epoch += 1
        state.step += 1
        state.seconds = time.perf_counter() - started
        terms, _ = model.forward(*batch, noise, **settings)
        val_terms = None if val is None else validate(model, val, validation_settings(model, settings), seed=seed)
        state.history.rows.append(history_row(state, model.Terms, terms, val_terms))
        bar.set_postfix_str(epoch_line(state.history.rows[-1], iterations, getattr(model, "units", "")))
        bar.update()

    bar = progress_bar(progress, total=iterations, unit=" iterations", unit_scale=False)
    with bar, threadpool_limits(workers_for(model, len(train)), user_api="blas"):
        model.theta = lbfgs(loss_and_grad, model.theta, iterations, callback=on_iteration).x
    return state.history


def lbfgs(loss_and_grad, theta, max_iterations=200, memory=10, callback=None):
    """Minimise a deterministic function of θ (P,) by the quasi-Newton method L-BFGS, through scipy.optimize.

    loss_and_grad(theta) -> (number, array (P,)). Each step is θ ← θ − η H g, with the line search's η and with H the inverse
    Hessian rebuilt from the last `memory` pairs s = Δθ, y = Δg by the BFGS update
        H ← (I − ρ s yᵀ) H (I − ρ y sᵀ) + ρ s sᵀ,  ρ = 1/(yᵀ s).
    Nocedal 1980; Liu & Nocedal 1989. `callback(theta)` is called after every iteration. Returns scipy's OptimizeResult, whose
    x is the minimiser, in float64.
    """
    from scipy.optimize import minimize

    return minimize(
        loss_and_grad,
        theta.astype(np.float64),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": max_iterations, "maxcor": memory, "maxfun": 20 * max_iterations},
        callback=callback,
    )
