"""What the commands print about a run: what has changed since it began, how its training ended, the numbers of its
evaluation."""

import json
import math
from pathlib import Path

from npvae.app import run_folder, settings
from npvae.training.state import plain, terms_line

FILES = {
    "config.json": "everything needed to repeat the run",
    "metrics.jsonl": "the numbers above, one line per epoch",
    "checkpoint.npz": "the model and the state of its training",
    "checkpoint.previous.npz": "the one before, in case that one is damaged",
    "best.npz": "the model of lowest validation loss",
}


def print_notes(config, arguments, n_rows, state):
    """Say what is not as it was when the run was begun: the machine, and a learning rate whose schedule ends at --epochs."""
    for change in run_folder.changes_since(config):
        print(f"note      {change}: the last bits may not be those of a run without the break")
    if state is not None:
        before, now = (settings.learning_rate_at(a, n_rows, state.optimizer["t"]) for a in (config["arguments"], arguments))
        if before != now:
            print(f"note      the learning rate goes on at {now:.3g}, not at {before:.3g}: its schedule goes over "
                  f"{arguments['epochs']} epochs now, not {config['arguments']['epochs']}")  # fmt: skip


def training_report(folder, model, arguments, history, pictures):
    """What a run reached, what lies in its folder, and what to do next. pictures: file name -> what it shows."""
    last, skipped = history.rows[-1], sum(row["skipped"] for row in history.rows)
    part, whose = ("val_", "validation") if settings.takes_data(model) else ("train_", "training")
    terms = {name.removeprefix(part): value for name, value in last.items() if name.startswith(part)}
    files = {name: description for name, description in FILES.items() if (Path(folder) / name).exists()} | pictures
    next_step = f"next: npvae evaluate {folder}{settings.model_option(arguments)}"
    if terms["loss"] is None or not math.isfinite(terms["loss"]):
        next_step = ("the validation loss is not finite, and npvae evaluate would find the same: look at the validation rows "
                     "that the warning names, or at the scale of the data (--scale)")  # fmt: skip
    return "\n".join([
        f"\nafter {counted(last['epoch'], 'epoch')}, {last['seconds']:.0f} s: {whose} "
        f"{terms_line(terms, getattr(model, 'decimals', 2))} "
        f"{getattr(model, 'units', '')}".rstrip(),
        *([f"{skipped} of {counted(last['step'], 'step')} left out, whose loss or gradient was not finite"] if skipped else []),
        f"\n{folder}/",
        *(f"    {name:24} {description}" for name, description in files.items()),
        f"\n{next_step}",
    ])  # fmt: skip


def name_of(model):
    """A model in words: its own, or its class and size where it has none."""
    if type(model).__repr__ is object.__repr__:
        return f"{type(model).__name__}({counted(model.theta.size, 'parameter')})"
    return str(model)


def counted(n, name):
    """"1 epoch", "2 epochs"."""
    return f"{n:,} {name}" if n == 1 else f"{n:,} {name}s"


def measure_lines(measure):
    """The lines of one Measure: a number with its unit and note, or several; none where there is neither, for those are
    for --json."""
    name, value, unit, note = measure
    label = name.replace("_", " ")
    if isinstance(value, dict):
        parts = [measure._replace(name=f"{label}, {key}", value=number) for key, number in value.items()]
        return [line for part in parts for line in measure_lines(part)]
    if isinstance(value, list):
        widest = max(filter(math.isfinite, value), default=0)
        ordered = sorted(enumerate(value, 1), key=lambda item: -item[1])
        bars = ["█" * round(40 * number / widest) if widest > 0 and math.isfinite(number) else "" for _, number in ordered]
        lines = [f"    z_{i:<4} {number:8.4f}  {bar}".rstrip() for (i, number), bar in zip(ordered, bars)]
        return [f"\n{label}, {unit}", *lines]
    if not (unit or note):
        return []
    text = f"{value:10}" if isinstance(value, int) else f"{value:10.{3 if abs(value) >= 10 else 4}f}"
    return [f"{label:36}{text} {unit:5} {note}".rstrip()]


def print_json(values):
    """Print a dict as JSON, which is ASCII and has null for what is not finite."""
    print(json.dumps(plain(values), indent=2, allow_nan=False))
