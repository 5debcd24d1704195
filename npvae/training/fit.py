"""Training: the loop over epochs and minibatches, for every model of `npvae.models.protocol`.

What is random is a pure function of the seed and of counters (see `npvae.core.randomness`), so a run can stop after any step
and continue to the same result, bit for bit.
"""

import math
import time
import warnings

import numpy as np

from npvae.core import checks
from npvae.core.progress import progress_bar, tell
from npvae.core.randomness import PERMUTATION, generator, permutation
from npvae.core.ranks import Ranks
from npvae.core.workers import Workers, workers_for
from npvae.data.rows import Rows
from npvae.models.backend import compilation_announced
from npvae.training import bad_rows, optim, turns
from npvae.training.state import Best, TrainingState, epoch_line, history_row, plain, terms_line
from npvae.training.step import Step
from npvae.training.together import is_together
from npvae.training.validation import validate, validation_settings

MAX_SKIPPED_IN_A_ROW = 3
REDUCTIONS = ("fastest", "shards")


def fit(model, x_train=(), x_val=None, *, epochs=10, batch_size=128, optimizer=None, max_gradient_norm=None, weight_decay=0.0,
        early_stopping=None, binarize=True, steps_per_epoch=100, seed=0, workers=None, reduction="fastest", comm=None,
        progress=True, on_epoch=None, on_step=None, resume=None, **settings):  # fmt: skip
    """Train `model` in place by minimising its loss over minibatches; returns the History.

    x_train, x_val   (n, D): floats, bool, or uint8: grey levels 0–255 (read as 0–1) or, if x_train holds nothing above 1, zeros
                     and ones; the model remembers which. Or a tuple of arrays with the same rows, the data first; () for a
                     model without data
    epochs           passes over x_train, each with every row exactly once
    batch_size       rows per step; the last batch of an epoch may be smaller
    optimizer        Adam(1e-3) if None; its learning rate is a number or a callable of the step (`npvae.schedules`); or any
                     object with `step(theta, grad, state)`. Of a model whose players take turns each has one of its own, see
                     `npvae.training.turns`
    max_gradient_norm   a longer gradient is shortened to this norm (Pascanu et al. 2013)
    weight_decay     every step multiplies the weights W by 1 − learning rate · weight_decay (Loshchilov & Hutter 2019)
    early_stopping   stop after so many epochs without a lower validation loss, and end with the weights of the best epoch;
                     losses of different settings (a beta that rises) are not compared, and one that is not finite is never best
    binarize         draw grey pixels afresh per minibatch, for models of zeros and ones; False trains on the grey levels
    steps_per_epoch  of a model without data
    seed             of row order, noise and binarisation; the initial weights have the model's own
    workers          threads that share each batch; by default one for small models, for others the cores available (at most
                     OMP_NUM_THREADS, and what a container's quota of processor time is worth).
                     The same seed and workers give the same bits; a different number of workers draws different noise
    reduction        "fastest"; or "shards": the gradients of all workers' shards are added one by one, in order. Then N
                     processes of one worker and one process of N workers give the same bits
    comm             a communicator of mpi4py, MPI.COMM_WORLD: its processes, called ranks, train one model together. Each calls
                     fit with the same arguments; `batch_size` is that of all ranks together, `workers` of each; rank 0 prints.
                     An array that is mapped from a file (numpy.load with mmap_mode="r") is checked by rank 0, and of
                     the others each reads its own rows only. None: this process alone
    progress         a bar with the model's Terms and the speed, on a terminal; a line per epoch
    on_epoch         called with the TrainingState after each epoch, on every rank
    on_step          called with the TrainingState after each step, on every rank; training stops there if it returns True on
                     one of them
    resume           the TrainingState to go on from, with the model as it was then: the run continues bit for bit
    settings         what the model's draw and forward take, as values or callables of the step (0 for the first). Of a VAE:
                     objective, beta, n_samples, free_bits_per_dimension, free_bits_total (see `VAE.forward`)

    A step whose loss or gradient is not finite is skipped and counted (History's column "skipped"); at the end a warning names
    rows of the last epoch that cause it. After three in a row FloatingPointError says which tensor went wrong. Where the
    validation loss is not finite, a warning names rows that cause it. ValueError for arguments that cannot be used.
    """
    ranks = Ranks(comm)
    progress = progress and ranks.is_first
    optimizer = optim.adam_for(model) if optimizer is None else optimizer
    optimizer, settings = turns.arranged(model, optimizer, settings)
    check_training(model, optimizer, epochs, batch_size, seed, steps_per_epoch, workers, settings)
    check_regularisation(max_gradient_norm, weight_decay, early_stopping, x_val)
    checks.choice("reduction", reduction, REDUCTIONS)
    train = Rows.of(model, x_train, "x_train", binarize, ranks=ranks)
    val = validation_rows(model, x_val, binarize, ranks)
    ranks.begin_alike(model)
    state = ranks.first(lambda: resume)
    state = TrainingState(optim.initial_state(optimizer, model.theta)) if state is None else state
    optim.check_state(optimizer, model.theta, state.optimizer)
    n_workers, batch_size = how_shared(model, train, batch_size, workers, settings.get("n_samples", 1), reduction, ranks)
    n = len(train) if train.arrays else steps_per_epoch
    length = {"rows": n} if train.arrays else {"steps_per_epoch": n}
    state.keep(seed=seed, batch_size=batch_size, workers=ranks.n * n_workers, **length)

    unit = " rows" if train.arrays else " steps"
    done = state.epoch * n + min(state.position * batch_size, n)
    bar = progress_bar(progress, total=epochs * n, initial=done, unit=unit)
    with bar, Workers(n_workers) as pool, compilation_announced(model, progress):
        step = Step(model, train, batch_size, optimizer, pool, settings, state.optimizer, seed, max_gradient_norm, weight_decay,
                    reduction, ranks)  # fmt: skip
        epoch = Epoch(step, n, state, bar, seed, on_step)
        while state.epoch < epochs and not _stopped_early(state, early_stopping):
            bar.set_description(f"epoch {state.epoch + 1}/{epochs}")
            rows, seconds = epoch.run()
            if not epoch.finished:
                return state.history
            epoch.end(val)
            if progress:
                line = epoch_line(state.history.rows[-1], epochs, getattr(model, "units", ""), getattr(model, "decimals", 2))
                tell(f"{line}  {rows / seconds:,.0f}{unit}/s")
            if on_epoch is not None:
                on_epoch(state)
        epoch.warn_at_end()
    if early_stopping is not None and state.best is not None:
        _keep_best(model, state, early_stopping, progress)
    return state.history


class Epoch:
    """The steps of an epoch, from where the state stands, and its end."""

    def __init__(self, step, n, state, bar, seed, on_step):
        self.step, self.n, self.state, self.bar, self.seed, self.on_step = step, n, state, bar, seed, on_step
        self.finished = False
        self.left_out = []  # the minibatches of the epoch, as row numbers, whose steps were skipped
        self.told = False  # that the validation loss is not finite

    def run(self):
        """A step for each minibatch that is left; the rows done and the seconds taken. `finished` is False if on_step asked to
        stop before the last."""
        state, batch_size = self.state, self.step.batch_size
        before, started = state.sums.rows, time.perf_counter()
        self.left_out, state.usable = [], None
        order = permutation(generator(self.seed, PERMUTATION, state.epoch), self.n)
        self.finished = True
        while (start := state.position * batch_size) < self.n:
            self.take(order[start : start + batch_size].astype(np.int64))
            if self.on_step is not None and self.step.ranks.largest(bool(self.on_step(state))):
                self.finished = False
                break
        seconds = time.perf_counter() - started
        state.seconds += seconds
        return state.sums.rows - before, seconds

    def take(self, index):
        """One step, and what the state and the bar say of it."""
        state, bar = self.state, self.bar
        terms, culprits = self.step(index, state.step)
        state.step += 1
        state.position += 1
        if culprits:
            self.left_out.append(index)
            skip(state, culprits, self.step.rows)
        else:
            state.skipped_in_a_row = 0
            state.sums.add(terms, len(index))
        if not bar.disable:
            bar.set_postfix_str(terms_line(terms._asdict(), getattr(self.step.model, "decimals", 2)), refresh=False)
            bar.update(len(index))

    def end(self, val):
        """Measure the validation rows, add a row to the history, note the best epoch so far."""
        step, state = self.step, self.state
        model, terms = step.model, step.model.Terms
        train_terms = state.sums.means(len(terms._fields))
        state.epoch, state.position, state.sums = state.epoch + 1, 0, type(state.sums)()
        settings = validation_settings(model, step.settings_at(state.step - 1))
        val_terms = None
        if val is not None:
            val_terms = validate(model, val, settings, step.batch_size, self.seed, step.workers, step.ranks)
        state.history.rows.append(history_row(state, terms, train_terms, val_terms))
        finite = not state.skipped_in_a_row and (val is None or math.isfinite(val_terms[0]))
        untouched = state.skipped == state.step  # no step has changed theta
        with bad_rows.unchanged_buffers(model):
            state.usable = bool(np.isfinite(model.theta).all()) and (finite or untouched or self.can_go_on())
        if val is not None:
            note_best(state, model, val_terms[0], settings)
            self.warn_of_validation(val, val_terms[0], settings)

    def can_go_on(self):
        """Whether one of the next minibatches, as many as may be skipped in a row, has a finite loss and gradient."""
        batch_size = self.step.batch_size
        order = permutation(generator(self.seed, PERMUTATION, self.state.epoch), self.n)
        order = order[: MAX_SKIPPED_IN_A_ROW * batch_size].astype(np.int64)
        return any(self.step_is_finite(order[start : start + batch_size]) for start in range(0, len(order), batch_size))

    def warn_of_validation(self, val, loss, settings):
        """The first time that the validation loss is not finite though the parameters are usable, name the rows."""
        if math.isfinite(loss) or self.told or not self.state.usable:
            return
        self.told, model = True, self.step.model
        with bad_rows.unchanged_buffers(model):
            message = bad_rows.of_validation(model, val, settings, self.step.batch_size, self.seed)
        warnings.warn(message, checks.NpvaeWarning, stacklevel=4)

    def step_is_finite(self, index):
        """Whether the last step's loss and gradient are finite on other rows; theta stays."""
        return not self.step.gradient(index, self.state.step - 1)[2]

    def warn_at_end(self):
        """A warning if the parameters have become useless, or else if steps were skipped, with rows of the last epoch that
        still cause it."""
        state = self.state
        if state.usable is False:
            message = f"training has diverged: after epoch {state.epoch} nothing is finite; a lower learning rate may help"
        elif state.skipped:
            message = f"{state.skipped} of {state.step} steps were skipped, because loss or gradient were not finite"
            with bad_rows.unchanged_buffers(self.step.model):
                found = bad_rows.rows_not_finite(self.left_out, self.step_is_finite) if self.step.rows.arrays else []
            if found:
                message += f": {bad_rows.in_words(found, self.step.rows, 'training')}"
        else:
            return
        warnings.warn(message, checks.NpvaeWarning, stacklevel=3)


def how_shared(model, train, batch_size, workers, n_samples, reduction, ranks):
    """The number of workers of each rank, and of rows in a step. Without data a step is one row, which workers share where the
    model has persistent chains; ValueError where it has none and there are other ranks."""
    chains = getattr(model, "chains", None)
    if train.arrays:
        n_rows = batch_size if callable(n_samples) else batch_size * n_samples
    elif chains is not None:
        n_rows, batch_size = len(chains), 1
    elif ranks.n == 1:
        return 1, 1
    else:
        raise ValueError(f"comm has {ranks.n} ranks, and a step of a model without data is one shard: train it in one process")
    if workers is None:
        n_multiplications = getattr(model, "multiplications", model.theta.size) * n_rows
        workers = workers_for(n_multiplications / ranks.n, reduction == "fastest" and is_together(model))
        workers = workers if ranks.n == 1 else -ranks.largest(-min(workers, ranks.cores()))  # the same number on all
    return workers, batch_size


def skip(state, culprits, rows):
    """Count a step that is left out because loss or gradient were not finite; FloatingPointError after three in a row."""
    state.skipped += 1
    state.skipped_in_a_row += 1
    if state.skipped_in_a_row == MAX_SKIPPED_IN_A_ROW:
        advice = "a lower learning rate may help"
        if state.skipped == state.step:  # theta is still what it was at first
            advice = f"no step was finite yet, so the learning rate is not the cause. {bad_rows.unscaled(rows)}"
        raise FloatingPointError(
            f"{MAX_SKIPPED_IN_A_ROW} steps in a row were not finite (step {state.step}: {', '.join(culprits)}); {advice}"
        )


def note_best(state, model, loss, settings):
    """Keep the epoch's parameters as the best if its validation loss is finite and the lowest so far of these settings."""
    best, settings = state.best, plain(settings)
    if state.usable and math.isfinite(loss) and (best is None or best.settings != settings or loss < best.loss):
        state.best = Best(state.epoch, float(loss), settings, model.theta.copy())


def _stopped_early(state, early_stopping):
    return early_stopping is not None and state.best is not None and state.epoch - state.best.epoch >= early_stopping


def _keep_best(model, state, early_stopping, progress):
    model.theta = state.best.theta
    if progress and _stopped_early(state, early_stopping):
        tell(f"stopped early: no lower validation loss in {early_stopping} epochs; "
             f"kept the weights of epoch {state.best.epoch}")  # fmt: skip


def validation_rows(model, x_val, binarize, ranks=None):
    """The validation data as Rows, None if there are none; ValueError for what cannot be used."""
    if isinstance(x_val, tuple) and not x_val:
        raise ValueError("x_val must hold rows, or be None; got ()")
    return None if x_val is None else Rows.of(model, x_val, "x_val", binarize, decides=False, ranks=ranks)


def check_training(model, optimizer, epochs, batch_size, seed, steps_per_epoch, workers, settings):
    """ValueError for arguments of `fit` that cannot be used."""
    checks.integer("epochs", epochs, 0)
    checks.integer("batch_size", batch_size, 1)
    checks.integer("seed", seed, 0)
    checks.integer("steps_per_epoch", steps_per_epoch, 1)
    if workers is not None:
        checks.integer("workers", workers, 1)
    optim.on_backend(optimizer, model)
    if model.theta.dtype.kind == "c":
        raise ValueError(f"a model to be trained must have dtype float32 or float64; got {model.theta.dtype}")
    if hasattr(model, "check_settings"):
        model.check_settings(**{name: value for name, value in settings.items() if not callable(value)})


def check_regularisation(max_gradient_norm, weight_decay, early_stopping, x_val):
    """ValueError for arguments of `fit` that cannot be used."""
    checks.number("weight_decay", weight_decay, 0)
    if max_gradient_norm is not None:
        checks.number("max_gradient_norm", max_gradient_norm, 0, exclusive=True)
    if early_stopping is not None:
        checks.integer("early_stopping", early_stopping, 1)
        if x_val is None:
            raise ValueError("early_stopping needs validation data, x_val")
