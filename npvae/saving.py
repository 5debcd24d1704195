"""Saving a run so that nothing is lost, and going on from where it stood.

A run folder keeps its last two checkpoints and the best model:

    checkpoint.npz            model, optimiser, history and position of the run
    checkpoint.previous.npz   the one before, used where the newest cannot be read
    best.npz                  the model of lowest validation loss, for `VAE.load`
    metrics.jsonl             one line per epoch, the rows of the History

Each is replaced in one step, so that whenever the program dies there is an intact checkpoint. What it lacks is computed again,
to the same bits, since all randomness is a pure function of the seed and of counters.
"""

import contextlib
import json
import math
import numbers
import os
import warnings
from pathlib import Path

import numpy as np

from npvae import checkpoint, checks
from npvae.history import Best, History, TrainingState
from npvae.vae import VAE

NEWEST, PREVIOUS, BEST, METRICS = "checkpoint.npz", "checkpoint.previous.npz", "best.npz", "metrics.jsonl"
ROW = ("epoch", "step", "seconds", *(f"{part}_{name}" for part in ("train", "val") for name in ("loss", "nll", "kl")))


def save_progress(folder, model, state, **about):
    """Write checkpoint and metrics; `about` (values that JSON can hold) is kept with them. OSError where that fails: what was
    saved before is intact then."""
    folder = Path(folder)
    arrays = {f"optimizer.{name}": value for name, value in state.optimizer.items() if name != "t"}
    if state.best is not None:
        arrays["best.theta"] = state.best.theta
    training = {
        "optimizer_steps": state.optimizer["t"],
        "epoch": state.epoch,
        "position": state.position,
        "sums": state.sums,
        "step": state.step,
        "seconds": state.seconds,
        "skipped": state.skipped,
        "skipped_in_a_row": state.skipped_in_a_row,
        "history": state.history.rows,
        "best": state.best and {"epoch": state.best.epoch, "loss": state.best.loss, "beta": state.best.beta},
        "settings": state.settings,
    }
    metadata = {"model": model.config, "training": training, **about}
    checkpoint.write(folder / NEWEST, {"theta": model.theta, **arrays}, metadata, keep=folder / PREVIOUS)
    lines = "".join(json.dumps(row) + "\n" for row in state.history.rows)
    checkpoint.replace_file(folder / METRICS, lambda file: file.write(lines.encode()))
    if state.best is not None and state.best.epoch == state.epoch and state.position == 0:
        checkpoint.write(folder / BEST, {"theta": state.best.theta}, {"model": model.config})


def is_sound(state):
    """Whether the last step, and the last epoch if it has just ended, had finite results. What came before is worth more than
    what an accident may have spoilt, so where they had not, do not save over it."""
    row = state.history.rows[-1] if state.position == 0 and state.history.rows else {}
    return not state.skipped_in_a_row and all(value is None or math.isfinite(value) for value in row.values())


def has_progress(folder):
    """Whether anything was saved in a run folder."""
    return any((Path(folder) / name).is_file() for name in (NEWEST, PREVIOUS))


def load_progress(folder):
    """The model and the TrainingState of a run folder, of the newest checkpoint that can be read; a warning names one that
    cannot. FileNotFoundError if there is none, ValueError or OSError, naming the files, if none can be read."""
    paths = [path for path in (Path(folder) / NEWEST, Path(folder) / PREVIOUS) if path.is_file()]
    if not paths:
        path = Path(folder) / NEWEST
        raise FileNotFoundError(f"{path} does not exist: {folder} is not a run folder, or was stopped before its first epoch")
    errors = []
    for path in paths:
        try:
            model, state = _load(path)
        except (ValueError, OSError) as error:
            errors.append(error)
            continue
        for error in errors:
            warnings.warn(f"{error}; going on from {path.name}, which was saved before it", checks.NpvaeWarning, stacklevel=2)
        return model, state
    raise type(errors[0])("; ".join(map(str, errors)))


def load_model(folder, best=False):
    """The model of a run folder as its training has left it; with `best` that of the epoch of lowest validation loss."""
    model, state = load_progress(folder)
    if best and state.best is not None:
        model.theta = state.best.theta
    return model


def _load(path):
    arrays, metadata = checkpoint.read(path)
    model = VAE.from_checkpoint(arrays, metadata, path)
    try:
        return model, _state(arrays, metadata["training"], model)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"{path}: holds a model but no training state ({error!r})") from None


def _state(arrays, training, model):
    """The TrainingState that `save_progress` wrote (schema 1 did not know all of it), every value checked."""
    optimizer = {"t": checks.integer("optimizer_steps", training["optimizer_steps"], 0)}
    optimizer |= {name.removeprefix("optimizer."): value for name, value in arrays.items() if name.startswith("optimizer.")}
    counts = {name: checks.integer(name, training.get(name, 0), 0) for name in ("epoch", "position", "step", "skipped")}
    rows = list(training["history"])
    for row in rows:
        if set(row) != set(ROW):
            raise ValueError(f"history with the columns {', '.join(map(str, row))}")
        for name, value in row.items():
            if not isinstance(value, numbers.Real | None):
                raise TypeError(f"{name} {value!r} in the history")
    if len(rows) != counts["epoch"]:
        raise ValueError(f"history of {len(rows)} epochs after {counts['epoch']}")
    best, settings = training.get("best"), dict(training.get("settings", {}))
    if best is not None:
        theta = arrays["best.theta"]
        if theta.shape != model.theta.shape or theta.dtype != model.dtype:
            raise ValueError(f"best.theta must be {model.dtype} {model.theta.shape}; got {theta.dtype} {theta.shape}")
        values = (checks.number(name, best[name], low) for name, low in (("loss", -np.inf), ("beta", 0)))
        best = Best(checks.integer("best epoch", best["epoch"], 1), *values, theta)
    return TrainingState(
        optimizer,
        **counts,
        sums=[checks.number("sums", value, -np.inf) for value in training.get("sums", [0.0] * 4)][:4],
        seconds=checks.number("seconds", training["seconds"], 0),
        skipped_in_a_row=checks.integer("skipped_in_a_row", training["skipped_in_a_row"], 0),
        history=History(rows),
        best=best,
        settings={name: checks.integer(name, value, 0) for name, value in settings.items()},
    )


@contextlib.contextmanager
def exclusive(folder):
    """Within the block nobody else trains in this run folder; BlockingIOError if somebody does, OSError if it is read-only.

    The lock is the operating system's and goes with the process, however that ends.
    """
    with (Path(folder) / ".lock").open("ab") as file:
        try:
            _lock(file)
        except OSError:
            raise BlockingIOError(f"run folder {folder} is in use by another npvae train; name another with --out") from None
        yield


def _lock(file):
    if os.name == "posix":
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    else:
        import msvcrt

        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
