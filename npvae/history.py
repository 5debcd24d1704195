"""Where a run stands, and how it is told: the history of its epochs, the state to go on from, the progress bar."""

import sys
import warnings
from dataclasses import dataclass, field

import numpy as np
from tqdm import tqdm

from npvae.checks import NpvaeWarning


class History:
    """One row per epoch, a dict of numbers; `history["val_loss"]` is a column as an array (NaN where there is none).

    epoch, step (minibatches done), seconds (of training so far), and train_ and val_ loss, nll, kl: nats, means over the
    epoch's rows, the training ones under the parameters as they were at each step; loss = nll + beta kl, with free bits in
    the training one, and for the objective "iwae" the importance-weighted bound.
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
    beta: float  # the weight of the KL in that loss: losses of different weights are not compared
    theta: np.ndarray


@dataclass
class TrainingState:
    """Where a run stands: with the model's theta, all that is needed to go on."""

    optimizer: dict  # see optim.initial_state
    epoch: int = 0  # epochs done
    position: int = 0  # minibatches done of the epoch that is under way
    sums: list = field(default_factory=lambda: [0.0] * 4)  # of this epoch: loss, nll, kl times rows, and rows
    step: int = 0  # minibatches done in all
    seconds: float = 0.0
    skipped: int = 0  # steps left out because loss or gradient were not finite
    skipped_in_a_row: int = 0
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
            warnings.warn(f"begun with {begun} workers, continued with {value}: the noise is other than without the break",
                          NpvaeWarning, stacklevel=3)  # fmt: skip
            self.settings[name] = value


def progress_bar(progress, **options):
    """A tqdm bar on stderr if `progress` is asked for and stderr is a terminal; else a silent one."""
    options = {"unit": " rows", "unit_scale": True, "leave": False, "dynamic_ncols": True, **options}
    return tqdm(disable=not (progress and sys.stderr.isatty()), **options)


def history_row(state, train_terms, val_terms):
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
