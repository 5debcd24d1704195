"""Training state: where a run stands, what its epochs gave, and the line that tells of an epoch."""

import math
import warnings
from dataclasses import dataclass, field

import numpy as np

from npvae.core.checks import NpvaeWarning

PARTS = ("train", "val")


class History:
    """One row per epoch, a dict of numbers; `history["val_loss"]` is a column as an array (NaN where there are no validation
    data, and where the number was not finite).

    epoch, step (minibatches done), seconds (of training so far), skipped (steps of this epoch that were left out because loss
    or gradient were not finite), and of each of the model's Terms train_ and val_: means over the epoch's rows, the training
    ones under the parameters as they were at each step.
    """

    def __init__(self, rows=()):
        self.rows = list(rows)

    def __getitem__(self, name):
        return np.array([np.nan if row[name] is None else row[name] for row in self.rows])

    def __len__(self):
        return len(self.rows)

    def __repr__(self):
        return f"History({len(self)} epochs)" + (f": {epoch_line(self.rows[-1], len(self))}" if self.rows else "")


@dataclass(frozen=True)
class Best:
    """The epoch of lowest validation loss so far, which early stopping comes back to."""

    epoch: int
    loss: float
    settings: dict  # that the loss was measured with, as `plain` gives them: losses of different settings are not compared
    theta: np.ndarray


@dataclass
class Sums:
    """Of the epoch that is under way: each of the Terms times rows, and the rows."""

    terms: list = field(default_factory=list)
    rows: int = 0

    def add(self, terms, rows):
        """Weighted by rows the mean is exact when the last batch is short."""
        self.terms = [total + rows * value for total, value in zip(self.terms or [0.0] * len(terms), terms)]
        self.rows += rows

    def means(self, n_terms):
        """Means over the rows; NaN where no step of the epoch counted."""
        return [total / self.rows for total in self.terms] if self.rows else [np.nan] * n_terms


@dataclass
class TrainingState:
    """Where a run stands: with the model's theta and buffers, all that is needed to continue."""

    optimizer: dict  # see optim.initial_state
    epoch: int = 0  # epochs done
    position: int = 0  # minibatches done of the epoch that is under way
    sums: Sums = field(default_factory=Sums)
    step: int = 0  # minibatches done in all
    seconds: float = 0.0
    skipped: int = 0  # steps left out because loss or gradient were not finite
    skipped_in_a_row: int = 0
    usable: bool | None = None  # after an epoch: whether training can go on from theta, and it is worth saving
    history: History = field(default_factory=History)
    best: Best | None = None  # where there are validation data
    settings: dict = field(default_factory=dict)  # of fit, which have to stay as they are: see `TrainingState.keep`

    def keep(self, **settings):
        """Note settings that decide which random numbers a step draws; ValueError if one is not what it was at the beginning,
        a warning if it is the number of workers."""
        for name, value in settings.items():
            begun = self.settings.setdefault(name, value)
            if begun == value:
                continue
            if name != "workers":
                raise ValueError(f"{name} was {begun} when this training began and cannot become {value} on the way")
            warnings.warn(f"begun with {begun} workers, continued with {value}: the noise differs from that of an unbroken run",
                          NpvaeWarning, stacklevel=3)  # fmt: skip
            self.settings[name] = value


def columns(terms):
    """The columns of the history of a model whose Terms these are, in order."""
    return ["epoch", "step", "seconds", "skipped", *(f"{part}_{name}" for part in PARTS for name in terms._fields)]


def history_row(state, terms, train, val):
    """One row: a NamedTuple class of Terms, and the values of both parts: None where there are no validation data, NaN for what
    is not finite."""
    skipped = state.skipped - sum(row["skipped"] for row in state.history.rows)
    values = [state.epoch, state.step, round(state.seconds, 3), skipped]
    for value in (*train, *(val or [None] * len(terms._fields))):
        values.append(value if value is None else float(value) if math.isfinite(value) else math.nan)
    return dict(zip(columns(terms), values))


def plain(value):
    """`value` as JSON can hold it and gives it back: dicts with names, lists, Python's numbers, None for what is not finite,
    and anything else in words."""
    if isinstance(value, dict):
        return {str(name): plain(part) for name, part in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, str | int) else repr(value)


def epoch_line(row, epochs, units="", decimals=2):
    """A row of the History in words: the loss of each part, behind it the other Terms that are not 0, and the steps that were
    skipped, if any."""
    parts = [f"epoch {row['epoch']:{len(str(epochs))}}/{epochs}"]
    for part in PARTS:
        terms = {name.removeprefix(f"{part}_"): value for name, value in row.items() if name.startswith(f"{part}_")}
        if terms["loss"] is not None:
            parts.append(f"{part} {terms_line(terms, decimals)}")
    skipped = row["skipped"]
    told = f"  {skipped} step{'s' * (skipped != 1)} skipped" if skipped else ""
    return "  ".join(parts) + (f" {units}" if units else "") + told


def terms_line(terms, decimals=2):
    """Terms, a dict, in words: "loss 12.34 (nll 11.20, kl 1.14)"; a loss that is None, which was not finite, is "nan"."""
    loss, *others = [f"{name} {math.nan if value is None else value:.{decimals}f}" for name, value in terms.items()
                     if name == "loss" or value]  # fmt: skip
    return f"{loss} ({', '.join(others)})" if others else loss
