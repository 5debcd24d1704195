"""Training on all rows at once by the quasi-Newton method L-BFGS."""

import math
import time
import warnings

import numpy as np

from npvae.core import checks
from npvae.core.progress import progress_bar
from npvae.core.randomness import FULL_BATCH, generator
from npvae.core.workers import Workers
from npvae.data.rows import Rows
from npvae.training import bad_rows
from npvae.training.fit import check_training, validation_rows
from npvae.training.optim import SGD
from npvae.training.state import TrainingState, epoch_line, history_row
from npvae.training.validation import validate, validation_settings


def fit_lbfgs(model, x_train=(), x_val=None, *, iterations=200, binarize=True, seed=0, progress=True, **settings):
    """Train `model` in place on all of x_train at once by L-BFGS; returns the History, a row per iteration.

    The noise and the binarisation are drawn once, which makes the loss a deterministic function of theta, as L-BFGS needs; with
    few rows or samples theta may fit that draw. For problems small enough to hold one pass over all rows in memory. Arguments
    as in `npvae.fit`; settings are values. BLAS is held to one thread, so that the same seed gives the same bits.

    FloatingPointError if loss or gradient are not finite at the start. A warning says why it stopped before `iterations`, where
    it has not converged, and which validation rows spoil their loss, where that is not finite.
    """
    import scipy.optimize  # noqa: F401  (its BLAS has to be there before BLAS is held to one thread)

    checks.integer("iterations", iterations, 1)
    check_one_function(model, settings)
    check_training(model, SGD(), 0, 1, seed, 1, None, settings)
    train = Rows.of(model, x_train, "x_train", binarize)
    val = validation_rows(model, x_val, binarize)
    rng, state, started = generator(seed, FULL_BATCH, 0), TrainingState(optimizer={}), time.perf_counter()
    batch = train.batch(np.arange(len(train)), rng)

    def loss_and_grad(theta):
        grad = np.empty_like(model.theta)
        with np.errstate(over="ignore", invalid="ignore"):  # the numbers returned show it
            model.theta = theta
            terms, cache = model.forward(*batch, noise, **settings)
            model.backward(cache, out=grad)
        return terms[0], grad.astype(np.float64)

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

    with progress_bar(progress, total=iterations, unit=" iterations", unit_scale=False) as bar, Workers(1):
        noise = model.draw(rng, *batch, **settings)  # which may be a chain with products of its own
        try:
            result = lbfgs(loss_and_grad, model.theta, iterations, callback=on_iteration)
        except FloatingPointError as error:
            raise FloatingPointError(f"{error}. {bad_rows.unscaled(train)}") from None
        model.theta = result.x
        if val is not None and np.isnan(state.history["val_loss"]).any():
            message = bad_rows.of_validation(model, val, validation_settings(model, settings), 128, seed)
            warnings.warn(message, checks.NpvaeWarning, stacklevel=2)
    warn_unless_converged(result, iterations)
    return state.history


def check_one_function(model, settings):
    """ValueError for players, each with a loss of its own, and for a setting that is a schedule."""
    if hasattr(model, "players"):
        raise ValueError("L-BFGS minimises one function, and the players of a game have several: train them by npvae.fit")
    for name, value in settings.items():
        if callable(value):
            raise ValueError(f"{name} must be a value, since L-BFGS minimises one function; got the schedule {value!r}")


def warn_unless_converged(result, iterations):
    """A warning if scipy's `result` ended before its time, and why."""
    if not result.success and result.nit < iterations:
        reason = result.message.strip(" :")
        warnings.warn(f"L-BFGS stopped after {result.nit} of {iterations} iterations and has not converged ({reason})",
                      checks.NpvaeWarning, stacklevel=3)  # fmt: skip


def lbfgs(loss_and_grad, theta, max_iterations=200, memory=10, callback=None):
    """Minimise a deterministic function of θ (P,) by the quasi-Newton method L-BFGS, through scipy.optimize.

    loss_and_grad(theta) -> (number, array (P,)). Each step is θ ← θ − η H g, with the line search's η and with H the inverse
    Hessian rebuilt from the last `memory` pairs s = Δθ, y = Δg by the BFGS update
        H ← (I − ρ s yᵀ) H (I − ρ y sᵀ) + ρ s sᵀ,  ρ = 1/(yᵀ s).
    Nocedal 1980; Liu & Nocedal 1989. `callback(theta)` is called after every iteration. Returns scipy's OptimizeResult, whose
    x is the minimiser, in float64. FloatingPointError if loss or gradient are not finite at the start; where they are not
    further on, the line search turns back.
    """
    from scipy.optimize import minimize

    last = None  # loss and gradient at the latest point where they were finite

    def finite_loss_and_grad(theta):
        """Scipy takes an infinite loss for convergence. A point where loss or gradient are not finite therefore looks like the
        latest one before it, a trifle worse and with the slope turned round: the line search halves its step."""
        nonlocal last
        loss, grad = loss_and_grad(theta)
        if math.isfinite(loss) and np.isfinite(grad).all():
            last = loss, grad
            return last
        if last is None:
            what = "gradient" if math.isfinite(loss) else "loss"
            raise FloatingPointError(f"L-BFGS cannot begin: the {what} is not finite at the start")
        return math.nextafter(last[0], math.inf), -last[1]

    return minimize(
        finite_loss_and_grad,
        theta.astype(np.float64),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": max_iterations, "maxcor": memory, "maxfun": 20 * max_iterations},
        callback=callback,
    )
