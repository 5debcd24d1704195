"""What the commands of `npvae` do. Each takes the parsed options and returns the exit status."""

import json
import math
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from npvae.app import report, run_folder, settings
from npvae.app.interruption import Interruption
from npvae.training import checkpoint

SECONDS_BETWEEN_SAVES = 60  # within an epoch


def train(args):
    """`npvae train`."""
    from npvae import data
    from npvae.data.rows import Rows

    kind, arguments = _resumed_arguments(args) if args.resume else _new_arguments(args)
    dataset = data.load(arguments["data"], arguments["data_dir"], progress=True)
    print(f"data      {dataset.description}")
    model, state = settings.new_model(kind, arguments, dataset.x_train.shape[1]), None
    step_settings = settings.step_settings(kind, arguments, math.ceil(len(dataset.x_train) / arguments["batch_size"]))
    settings.check_step_settings(model, step_settings)
    rows = Rows.of(model, dataset.x_train, "training data"), Rows.of(model, dataset.x_val, "validation data")
    folder = Path(args.out) if args.resume else run_folder.new_folder(args.out, _default_name(arguments, kind))
    with run_folder.exclusive(folder):
        if args.resume:
            for change in run_folder.changes_since(run_folder.read_config(folder)):
                print(f"note      {change}: the last bits may not be those of a run without the break")
        if args.resume and checkpoint.has_progress(folder):  # else it was stopped before its first save, and begins again
            model, state = checkpoint.load_progress(folder, kind)
        else:
            _start(model, kind, arguments, rows[0])
        print(f"model     {report.name_of(model)}\nrun       {folder}\n")
        run_folder.write_config(folder, arguments, model, dataset.image_shape)
        run = Run(folder, model, arguments)
        history = run.fit(rows, step_settings, state)
        if run.interruption.signal:
            return 128 + run.interruption.signal
        pictures = draw_pictures(folder, model, rows[1], dataset, history)
        print(report.training_report(folder, model, arguments, history, pictures))
    return 0


def _default_name(arguments, kind):
    """What a run is called that was given no folder: after its data, and its model unless that is the default."""
    data = Path(arguments["data"]).stem.replace(":", "-")
    return data if arguments["model"] == "vae" else f"{kind.__name__.lower()}-{data}"


def _start(model, kind, arguments, train_rows):
    """Call the methods that the options ask for before training, with the training rows as model input."""
    for option in settings.own_options(kind):
        if option.use == "start" and arguments[option.name]:
            grey = replace(train_rows, binarize=False)  # the levels themselves, not one draw of them
            batch = grey.batch(np.arange(len(grey)), None)
            getattr(model, option.argument)(*batch)


class Run:
    """The training of a run folder: it saves after every epoch, every minute, and when it is interrupted."""

    def __init__(self, folder, model, arguments):
        self.folder, self.model, self.arguments = folder, model, arguments
        self.about = {"arguments": arguments, "environment": run_folder.environment()}
        self.interruption = Interruption()
        self.saved, self.latest = time.monotonic(), None

    def fit(self, rows, step_settings, state):
        """Train on (training rows, validation rows); returns the History. If interrupted, save and say how to continue."""
        from npvae.training.fit import fit
        from npvae.training.optim import Adam

        arguments, (train_rows, val_rows) = self.arguments, rows
        names = ("epochs", "batch_size", "max_gradient_norm", "weight_decay", "early_stopping", "seed", "workers")
        optimizer = Adam(settings.learning_rate(arguments, len(train_rows)))
        with self.interruption:
            history = fit(self.model, train_rows, val_rows, optimizer=optimizer, on_epoch=self.save, on_step=self.on_step,
                          resume=state, **{name: arguments[name] for name in names}, **step_settings)  # fmt: skip
            if self.interruption.signal:
                self.end_early(self.latest)
        return history

    def save(self, state):
        """Save the run unless its last step or epoch may be spoilt."""
        if checkpoint.is_sound(state):
            checkpoint.save_progress(self.folder, self.model, state, **self.about)
            self.saved = time.monotonic()

    def on_step(self, state):
        """Save once a minute; True to stop, where somebody asked for it."""
        self.latest = state
        interrupted = bool(self.interruption.signal)
        if not interrupted and time.monotonic() > self.saved + SECONDS_BETWEEN_SAVES:
            self.save(state)
        return interrupted

    def end_early(self, state):
        """Save after an interruption, and say how to continue."""
        checkpoint.save_progress(self.folder, self.model, state, **self.about)
        model = settings.model_option(self.arguments)
        print(f"\nstopped after step {state.step}, in epoch {state.epoch + 1} of {self.arguments['epochs']}; nothing is lost. "
              f"Continue with:\n    npvae train --resume --out {self.folder}{model}")  # fmt: skip


def _new_arguments(args):
    """The model's class and the defaults with what was given in their place, paths absolute so that any folder can evaluate the
    run."""
    defaults = settings.defaults(args.kind)
    given = {name: getattr(args, name) for name in defaults if getattr(args, name) is not None}
    data_dir = None if args.data_dir is None else str(Path(args.data_dir).resolve())
    model = settings.recorded_name(args.model or "vae", args.kind)
    arguments = {**defaults, **given, "data_dir": data_dir, "workers": args.workers, "model": model}
    if Path(arguments["data"]).suffix and data_dir is None:
        arguments["data"] = str(Path(arguments["data"]).resolve())
    return args.kind, arguments


def _resumed_arguments(args):
    """The model's class and the arguments of the run that --out names, with the new number of epochs if one is given."""
    if args.out is None:
        raise ValueError("--resume needs --out RUN, the run folder to continue")
    kind, arguments, _ = _config(args.out, args.model)
    given = [name for name in [*settings.defaults(kind), "data_dir"]
             if name != "epochs" and getattr(args, name, None) is not None]  # fmt: skip
    if given:
        options = ", ".join("--" + name.replace("_", "-") for name in given)
        raise ValueError(f"--resume takes the settings of {args.out}/config.json; leave out {options}")
    changes = {name: getattr(args, name) for name in ("epochs", "workers") if getattr(args, name) is not None}
    return kind, {**arguments, **changes}


def _config(folder, model=None):
    """The model's class, the checked arguments and the config of a run folder. model: --model, for a class not of npvae."""
    config = run_folder.read_config(folder)
    kind = settings.model_class_of_run(folder, config["arguments"]["model"], config["model"]["class"], model)
    arguments = run_folder.checked_arguments(folder, config["arguments"], settings.all_options(kind))
    return kind, arguments, config


def _trained_model(args):
    """The model that a run's training ends with (where it may stop early, that of the best epoch), its arguments and config."""
    kind, arguments, config = _config(args.run_folder, args.model)
    best = arguments["early_stopping"] is not None
    return checkpoint.load_model(args.run_folder, best, kind), arguments, config


def _validation_rows(model, dataset, seed):
    """The validation rows of a dataset as a batch of model input."""
    from npvae.data.rows import Rows

    rows = Rows.of(model, dataset.x_val, "validation rows")
    return rows.batch(np.arange(len(rows)), np.random.default_rng(seed))


def draw_pictures(folder, model, val_rows, dataset, history):
    """Write the run's pictures; returns a dict of file name -> what it shows."""
    from npvae.app import plots  # Matplotlib takes half a second to load

    pictures = [("loss.png", "the history of training", plots.history(history, model))]
    if hasattr(model, "pictures"):
        batch = val_rows.batch(np.arange(len(val_rows)), np.random.default_rng(0))
        pictures += model.pictures(plots, *batch, dataset)
    for name, _, figure in pictures:
        plots.save(figure, folder / name)
    return {name: description for name, description, _ in pictures}


def evaluate(args):
    """`npvae evaluate`."""
    from npvae import data

    model, arguments, _ = _trained_model(args)
    dataset = data.load(arguments["data"], arguments["data_dir"] if args.data_dir is None else args.data_dir, progress=True)
    batch = _validation_rows(model, dataset, args.seed)
    measures = list(measures_of(model, batch, args))
    if args.json:
        values = {measure.name: measure.value for measure in measures}
        units = {measure.name: measure.unit for measure in measures if measure.unit}
        print(json.dumps({"run": str(args.run_folder), "rows": len(batch[0]), **values, "units": units}, indent=2))
        return 0
    print(f"run       {args.run_folder}, {report.name_of(model)}\ndata      {dataset.description}")
    print(f"          measured on {len(batch[0]):,} validation rows; means per datum\n")
    print("\n".join(line for measure in measures for line in report.measure_lines(measure)))
    return 0


def measures_of(model, batch, args):
    """Measures: what the model says of itself, or where it says nothing its Terms, with settings as they are by default."""
    from npvae.models.protocol import Measure

    if hasattr(model, "measure"):
        return model.measure(*batch, n_samples=args.samples, seed=args.seed, progress=True)
    noise = model.draw(np.random.default_rng(args.seed), *batch)
    terms, _ = model.forward(*batch, noise)
    return [Measure(name, value, getattr(model, "units", "per datum")) for name, value in terms._asdict().items()]


def sample(args):
    """`npvae sample`."""
    from npvae.app import plots

    model, _, config = _trained_model(args)
    path = run_folder.free_path(Path(args.run_folder) / "draws.png") if args.out is None else Path(args.out)
    if not hasattr(model, "sample"):
        raise ValueError(f"a model of class {type(model).__name__} has no method sample")
    if path.suffix.lower() != ".png":
        raise ValueError(f"--out must name a .png file; got {args.out}")
    if path.exists():
        raise FileExistsError(f"{path} exists already; name another file with --out")
    plots.save(plots.samples(model.sample(args.count, args.seed), config["image_shape"], plots.samples_title(model)), path)
    print(f"{path}: {report.counted(args.count, 'draw')} of {report.name_of(model)}")
    return 0


def gradcheck(args):
    """`npvae gradcheck`."""
    from npvae.checking import run
    from npvae.core.progress import progress_bar

    everything = _gradient_cases(args)
    started, outcomes = time.perf_counter(), []
    with progress_bar(True, total=len(everything), unit=" cases", unit_scale=False) as bar:
        for case in everything:
            bar.set_description(case.name[:40].ljust(40))
            outcomes += run.run(case)
            bar.update()
    failed = [outcome for outcome in outcomes if not outcome.report.passed]
    if args.json:
        reports = [{**o.report.as_dict(), "case": o.case, "check": o.check} for o in outcomes]
        print(json.dumps({"passed": not failed, "reports": reports}, indent=2))
        return 1 if failed else 0
    for outcome in failed:
        print(f"{outcome.case}: {outcome.report}\n")
    print("\n".join(run.table(outcomes)))
    verdict = f"{len(failed)} FAILED, see above" if failed else "all passed"
    print(f"\n{len(outcomes)} checks of {len(everything)} cases in {time.perf_counter() - started:.0f} s: {verdict}")
    print(run.LEGEND)
    return 1 if failed else 0


def _gradient_cases(args):
    """What `npvae gradcheck` checks: everything of npvae's, or its ops and the model that RUN or --model names."""
    from npvae.checking import cases

    if args.run_folder is None and args.model is None:
        return cases.cases()
    if args.run_folder is not None:
        return [*cases.all_pairs(), run_case(args)]
    kind = settings.model_class(args.model)
    if not hasattr(kind, "examples"):
        raise ValueError(f"{kind.__name__} has no classmethod examples(backend): give a run folder, whose model to check")
    examples = [example for backend in cases.BACKENDS for example in kind.examples(backend)]
    return cases.all_pairs() + [case for example in examples for case in cases.cases_of(example)]


def run_case(args):
    """The model of a run in float64, with validation rows and noise, as a case for the checks."""
    from npvae import data
    from npvae.checking.cases import ModelCase

    model, arguments, _ = _trained_model(args)
    if not hasattr(model, "copy"):
        raise ValueError(f"a model of class {type(model).__name__} has no method copy(dtype=...), which the checks need")
    dataset = data.load(arguments["data"], arguments["data_dir"], progress=True)
    rng = np.random.default_rng(0)
    rows = np.sort(rng.choice(len(dataset.x_val), min(32, len(dataset.x_val)), replace=False))
    model = model.copy(dtype="float64")
    batch = _validation_rows(model, dataset._replace(x_val=dataset.x_val[rows]), 0)
    half = max(1, len(rows) // 2)
    others, batch = tuple(array[:half] for array in batch), tuple(array[-half:] for array in batch)
    return ModelCase(f"{args.run_folder}, {report.name_of(model)}", model, batch, model.draw(rng, *batch), {}, others)
