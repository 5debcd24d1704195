"""Checkpoints of a run: written so that nothing is lost, and read so that it continues bit for bit.

A run folder keeps its last two checkpoints and the best model:

    checkpoint.npz            model, optimiser, history and position of the run
    checkpoint.previous.npz   the one before, used where the newest cannot be read
    best.npz                  the model of lowest validation loss, for `npvae.VAE.load`
    metrics.jsonl             one line per epoch, the rows of the History; null stands for what is not finite, too

Each is replaced in one step, so that whenever the program dies there is an intact checkpoint. What it lacks is computed again,
to the same bits, since all randomness is a pure function of the seed and of counters.
"""

import json
import numbers
import warnings
from pathlib import Path

import numpy as np

from npvae.core import checks, files
from npvae.models import saved
from npvae.training.state import Best, History, Sums, TrainingState, columns, plain

NEWEST, PREVIOUS, BEST, METRICS = "checkpoint.npz", "checkpoint.previous.npz", "best.npz", "metrics.jsonl"
COUNTS = ("epoch", "position", "step", "skipped", "skipped_in_a_row")
ARRAYS = (np.ndarray, np.generic)  # a number of NumPy's is kept as an array without axes, and so with its dtype


def save_progress(folder, model, state, **about):
    """Write checkpoint and metrics; `about` (values that JSON can hold) is kept with them. OSError where that fails, ValueError
    for what could not be read again (parameters that are not finite): what was saved before is intact then."""
    folder, best, optimizer = Path(folder), state.best, checked_optimizer(state.optimizer)
    arrays = {f"optimizer.{name}": value for name, value in optimizer.items() if isinstance(value, ARRAYS)}
    if best is not None:
        arrays["best.theta"] = best.theta
    training = {
        "optimizer": {name: value for name, value in optimizer.items() if not isinstance(value, ARRAYS)},
        **{name: getattr(state, name) for name in COUNTS},
        "sums": {"terms": state.sums.terms, "rows": state.sums.rows},
        "seconds": state.seconds,
        "history": state.history.rows,
        "best": best and {"epoch": best.epoch, "loss": best.loss, "settings": best.settings},
        "settings": state.settings,
    }
    metadata = {"model": saved.description(model), "training": plain(training), **about}
    files.write(folder / NEWEST, {**saved.arrays_of(model), **arrays}, metadata, keep=folder / PREVIOUS)
    lines = "".join(json.dumps(plain(row), allow_nan=False) + "\n" for row in state.history.rows)
    files.replace_file(folder / METRICS, lambda file: file.write(lines.encode()))
    if best is not None and best.epoch == state.epoch and state.position == 0:
        arrays = {**saved.arrays_of(model), "theta": best.theta}
        files.write(folder / BEST, arrays, {"model": saved.description(model)})


def is_sound(state):
    """Whether the last step was finite, or after an epoch training can go on: bad rows may spoil single steps and losses. What
    came before is worth more than parameters that an accident may have spoilt, so where not, do not save over it."""
    return not state.skipped_in_a_row if state.usable is None else state.usable


def checked_optimizer(state):
    """An optimiser's state: the step count t, arrays and numbers; ValueError for what a checkpoint cannot hold."""
    checks.integer("t in the optimizer's state", state.get("t"), 0)
    for name, value in state.items():
        if not isinstance(value, (*ARRAYS, bool)):
            checks.number(f"{name} in the optimizer's state", value, -np.inf)
    return state


def has_progress(folder):
    """Whether anything was saved in a run folder."""
    return any((Path(folder) / name).is_file() for name in (NEWEST, PREVIOUS))


def load_progress(folder, kind=None):
    """The model and the TrainingState of a run folder, of the newest checkpoint that can be read; a warning names one that
    cannot. kind: the model's class, None for one of `npvae.models`.

    FileNotFoundError if there is no checkpoint, ValueError or OSError, naming the files, if none can be read."""
    paths = [path for path in (Path(folder) / NEWEST, Path(folder) / PREVIOUS) if path.is_file()]
    if not paths:
        path = Path(folder) / NEWEST
        raise FileNotFoundError(f"{path} does not exist: {folder} is not a run folder, or was stopped before its first save")
    errors = []
    for path in paths:
        try:
            model, state = _load(path, kind)
        except (ValueError, OSError) as error:
            errors.append(error)
            continue
        for error in errors:
            warnings.warn(f"{error}; continuing from {path.name}, which was saved before it", checks.NpvaeWarning, stacklevel=2)
        return model, state
    raise type(errors[0])("; ".join(map(str, errors)))


def load_model(folder, best=False, kind=None):
    """The model of a run folder as its training has left it; with `best` that of the epoch of lowest validation loss."""
    model, state = load_progress(folder, kind)
    if best and state.best is not None:
        model.theta = state.best.theta
    return model


def _load(path, kind):
    arrays, metadata = files.read(path)
    model = saved.from_file(arrays, metadata, path, kind)
    try:
        return model, _state(arrays, metadata["training"], model)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"{path}: holds a model but no training state ({error!r})") from None


def _state(arrays, training, model):
    """The TrainingState that `save_progress` wrote, every value checked."""
    optimizer = dict(training["optimizer"])
    optimizer |= {name.removeprefix("optimizer."): value if value.ndim else value[()]
                  for name, value in arrays.items() if name.startswith("optimizer.")}  # fmt: skip
    checked_optimizer(optimizer)
    counts = {name: checks.integer(name, training[name], 0) for name in COUNTS}
    rows = list(training["history"])
    for row in rows:
        if list(row) != columns(model.Terms):
            raise ValueError(f"history with the columns {', '.join(map(str, row))}")
        for name, value in row.items():
            if not isinstance(value, numbers.Real | None):
                raise TypeError(f"{name} {value!r} in the history")
    if len(rows) != counts["epoch"]:
        raise ValueError(f"history of {len(rows)} epochs after {counts['epoch']}")
    sums = [np.nan if value is None else checks.number("sums", value, -np.inf) for value in training["sums"]["terms"]]
    if len(sums) not in (0, len(model.Terms._fields)):
        raise ValueError(f"sums of {len(sums)} terms")
    return TrainingState(
        optimizer,
        **counts,
        sums=Sums(sums, checks.integer("rows", training["sums"]["rows"], 0)),
        seconds=checks.number("seconds", training["seconds"], 0),
        history=History(rows),
        best=_best(arrays, training["best"], model),
        settings={name: checks.integer(name, value, 0) for name, value in dict(training["settings"]).items()},
    )


def _best(arrays, best, model):
    if best is None:
        return None
    theta = arrays["best.theta"]
    if theta.shape != model.theta.shape or theta.dtype != model.theta.dtype:
        needs = f"{model.theta.dtype} {model.theta.shape}"
        raise ValueError(f"best.theta must be {needs}; got {theta.dtype} {theta.shape}")
    checks.finite("best.theta", theta)
    loss = checks.number("loss", best["loss"], -np.inf)
    return Best(checks.integer("best epoch", best["epoch"], 1), loss, dict(best["settings"]), theta)
