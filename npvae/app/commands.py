"""What the commands of `npvae` do. Each takes the parsed options and returns the exit status."""

import contextlib
import math
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from npvae.app import arguments as told
from npvae.app import mpi, report, run_folder, settings
from npvae.app.dataset import data_of_run, load_data, rows_of, validation_rows
from npvae.app.interruption import Interruption
from npvae.app.pictures import draw_pictures, save_picture
from npvae.data import Scaling
from npvae.training import checkpoint

SECONDS_BETWEEN_SAVES = 60  # within an epoch


def train(args, ranks=None):
    """`npvae train`, in the processes that were started together if no `ranks` are given. All of them do the same, but that
    rank 0 has the run folder."""
    ranks = mpi.started_together() if ranks is None else ranks
    resumed = ranks.first(lambda: args.resume and has_begun(args))
    kind, arguments, config = told.of_resumed_run(args) if resumed else (*told.of_new_run(args), None)
    settings.check_data(kind, arguments)
    dataset = load_data(arguments, ranks=ranks)
    if resumed and ranks.is_first and (change := run_folder.data_have_changed(args.out, config, dataset)):
        raise ValueError(f"{change}. Give the run its data back (--data-dir DIR if they have moved), or begin another run")
    print(f"data      {dataset.description}")
    model, state = settings.new_model(kind, arguments, dataset.x_train.shape[1], dataset.n_condition), None
    settings.check_scale(model, arguments)
    n_rows = len(dataset.x_train)
    step_settings = settings.step_settings(kind, arguments, math.ceil(n_rows / arguments["batch_size"]))
    settings.check_step_settings(model, step_settings)
    rows = rows_of(model, dataset, ranks)
    name = _default_name(arguments, kind)
    folder = Path(args.out) if resumed else ranks.first(lambda: run_folder.new_folder(args.out, name))
    with run_folder.exclusive(folder) if ranks.is_first else contextlib.nullcontext():
        if not resumed and ranks.is_first:
            run_folder.check_unused(folder)  # nobody has begun a run there since we looked
        if resumed and ranks.is_first and checkpoint.has_progress(folder):  # else it was stopped before its first save
            model, state = checkpoint.load_progress(folder, kind)
        elif ranks.is_first:  # whose model and state will be those of all
            _start(model, kind, arguments, rows[0])
        if resumed:
            report.print_notes(config, arguments, n_rows, state)
        print(f"model     {report.name_of(model)}\nrun       {folder}\n")
        run = Run(folder, model, arguments, ranks)
        if ranks.is_first:
            run_folder.write_config(folder, arguments, model, dataset)
        history = run.fit(rows, n_rows, step_settings, state)
        if run.signal:
            return 128 + run.signal
        run.check_saved()
        if ranks.is_first:
            pictures = draw_pictures(folder, model, rows[1], dataset, history)
            print(report.training_report(folder, model, arguments, history, pictures))
    return 0


def has_begun(args):
    """Whether there is a run to go on with where --out says; ValueError without --out."""
    if args.out is None:
        raise ValueError("--resume needs --out RUN, the run folder to continue")
    return not run_folder.is_unused(Path(args.out))


def _default_name(arguments, kind):
    """What a run is called that was given no folder: after its data, and its model unless that is the default."""
    if not settings.takes_data(kind):
        return kind.__name__.lower()
    data = Path(arguments["data"]).stem.replace(":", "-")
    return data if arguments["model"] == settings.DEFAULT_MODEL else f"{kind.__name__.lower()}-{data}"


def _start(model, kind, arguments, train_rows):
    """Call the methods that the options ask for before training, with the training rows as model input."""
    for option in settings.own_options(kind):
        if option.use == "start" and arguments[option.name]:
            grey = replace(train_rows, binarize=False)  # the levels themselves, not one draw of them
            batch = grey.batch(np.arange(len(grey)), None)
            getattr(model, option.argument)(*batch)


class Run:
    """The training of a run folder: it saves after every epoch, every minute, and when it is interrupted. Of several ranks the
    first does, and `signal` is one that any of them was sent."""

    def __init__(self, folder, model, arguments, ranks):
        self.folder, self.model, self.arguments, self.ranks = folder, model, arguments, ranks
        self.about = {"arguments": arguments, "environment": run_folder.environment()}
        self.interruption, self.signal = Interruption(ranks.is_first), 0
        self.saved, self.is_saved, self.latest = time.monotonic(), True, None

    def fit(self, rows, n_rows, step_settings, state):
        """Train on (training rows, validation rows), n_rows, or steps, an epoch; returns the History. If interrupted, save and
        say how to continue."""
        from npvae.training.fit import fit
        from npvae.training.optim import adam_for

        arguments, train_rows, val_rows = self.arguments, rows[0], rows[1] if rows[1].arrays else None
        names = ("epochs", "batch_size", "max_gradient_norm", "weight_decay", "early_stopping", "seed", "workers", "reduction")
        optimizer = adam_for(self.model, settings.learning_rate(arguments, n_rows))
        with self.interruption:
            history = fit(self.model, train_rows, val_rows, optimizer=optimizer, on_epoch=self.save, on_step=self.on_step,
                          resume=state, steps_per_epoch=n_rows, comm=self.ranks.comm, **{n: arguments[n] for n in names},
                          **step_settings)  # fmt: skip
            self.signal = self.ranks.largest(self.interruption.signal)
            if self.signal and self.latest is not None and self.ranks.is_first:
                self.end_early(self.latest)
        return history

    def save(self, state):
        """Save the run unless it is spoilt: what was saved before is worth more then."""
        self.is_saved = checkpoint.is_sound(state)
        if self.is_saved and self.ranks.is_first:
            checkpoint.save_progress(self.folder, self.model, state, **self.about)
            self.saved = time.monotonic()

    def check_saved(self):
        """FloatingPointError if the end of the training was not saved."""
        if not self.is_saved:
            kept = "keeps the checkpoint before them" if checkpoint.has_progress(self.folder) else "holds no model"
            raise FloatingPointError("training has ended with parameters that give nothing finite. They are not saved, and "
                                     f"{self.folder} {kept}; a lower --learning-rate or another --scale may help")  # fmt: skip

    def on_step(self, state):
        """Save once a minute; True to stop, where somebody asked for it."""
        self.latest = state
        interrupted = bool(self.interruption.signal)
        if not interrupted and time.monotonic() > self.saved + SECONDS_BETWEEN_SAVES:
            self.save(state)
        return interrupted

    def end_early(self, state):
        """Save after an interruption, and say how to continue."""
        try:
            checkpoint.save_progress(self.folder, self.model, state, **self.about)
            lost = "nothing is lost"
        except ValueError:  # for parameters that are not finite
            lost = "its parameters are not finite and not saved"
        model, epochs = settings.model_option(self.arguments), self.arguments["epochs"]
        print(f"\nstopped after step {state.step}, in epoch {min(state.epoch + 1, epochs)} of {epochs}; {lost}. "
              f"Continue with:\n    npvae train --resume --out {self.folder}{model}")  # fmt: skip


def trained_model(args):
    """The model that a run's training ends with (where it may stop early, that of the best epoch), its arguments and config."""
    kind, arguments, config = told.of_run(args.run_folder, args.model)
    best = arguments["early_stopping"] is not None
    return checkpoint.load_model(args.run_folder, best, kind), arguments, config


def evaluate(args):
    """`npvae evaluate`."""
    from npvae.training.validation import validation_settings

    model, arguments, config = trained_model(args)
    dataset = data_of_run(args, arguments, config)
    batch = validation_rows(model, dataset, args.seed)
    final_settings = settings.final_step_settings(type(model), arguments, len(dataset.x_train))
    measures = list(measures_of(model, batch, args, validation_settings(model, final_settings)))
    if args.json:
        values = {measure.name: measure.value for measure in measures}
        units = {measure.name: measure.unit for measure in measures if measure.unit}
        rows = {"rows": len(batch[0])} if batch else {}
        report.print_json({"run": str(args.run_folder), **rows, **values, "units": units})
        return 0
    print(f"run       {args.run_folder}, {report.name_of(model)}\ndata      {dataset.description}")
    print(f"          measured on {len(batch[0]):,} validation rows; means per datum\n" if batch else "")
    print("\n".join(line for measure in measures for line in report.measure_lines(measure)))
    return 0


def measures_of(model, batch, args, final_settings):
    """Measures: what the model says of itself, or where it says nothing its Terms, with the settings at the end of training."""
    from npvae.models.protocol import Measure

    if hasattr(model, "measure"):
        return model.measure(*batch, n_samples=args.samples, seed=args.seed, progress=True)
    noise = model.draw(np.random.default_rng(args.seed), *batch, **final_settings)
    terms, _ = model.forward(*batch, noise, **final_settings)
    return [Measure(name, value, getattr(model, "units", "per datum")) for name, value in terms._asdict().items()]


def sample(args):
    """`npvae sample`."""
    from npvae.app import plots

    model, arguments, config = trained_model(args)
    if not hasattr(model, "sample"):
        raise ValueError(f"a model of class {type(model).__name__} has no method sample")
    if settings.takes_condition(model):
        drawn, image_shape, title = conditional_draws(model, data_of_run(args, arguments, config), args.count, args.seed)
    else:
        drawn, scaling = model.sample(args.count, args.seed), Scaling.from_json(config["scaling"])
        drawn = drawn if scaling is None else scaling.undo(drawn)
        image_shape, title = config["image_shape"], plots.samples_title(model)
    path = run_folder.new_file(args.out, Path(args.run_folder) / "draws.png")
    save_picture(path, partial(plots.samples, drawn, image_shape, title))
    print(f"{path}: {report.counted(args.count, 'draw')} of {report.name_of(model)}")
    return 0


def conditional_draws(model, dataset, n, seed):
    """n draws of a conditional model, as they are shown: rows, their image_shape, and a title."""
    condition, name = dataset.conditions(n), dataset.condition_name
    what = f"E[x|z, {name}]" if hasattr(model, "n_latent") else f"draws given the {name}"
    whose = f"0 to {dataset.n_condition - 1} in order" if condition.ndim == 1 else "of validation rows"
    return *dataset.whole_images(condition, model.sample(condition, seed)), f"{what}, {whose}"


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
        report.print_json({"passed": not failed, "reports": reports})
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
    """The model of a run in float64, with validation rows, noise and the settings that training ended with, as a case for the
    checks."""
    from npvae.checking import cases, run

    model, arguments, config = trained_model(args)
    if not hasattr(model, "copy"):
        raise ValueError(f"a model of class {type(model).__name__} has no method copy(dtype=...), which the checks need")
    dataset = data_of_run(args, arguments, config)
    rng = np.random.default_rng(0)
    rows = np.sort(rng.choice(len(dataset.x_val), min(32, len(dataset.x_val)), replace=False))
    model = model.copy(dtype="float64")
    batch = validation_rows(model, dataset, 0, rows)
    half = max(1, len(rows) // 2)
    others, batch = tuple(array[:half] for array in batch), tuple(array[-half:] for array in batch)
    final = settings.final_step_settings(type(model), arguments, len(dataset.x_train))
    name = f"{args.run_folder}, {report.name_of(model)}"
    noise = run.some_rows(model.draw(rng, *batch, **final), slice(32))
    return cases.ModelCase(name, model, batch, noise, final, others)
