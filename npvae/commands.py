"""What the commands of `npvae` do. Each takes the parsed options and returns the exit status."""

import json
import math
import os
import signal
import sys
import threading
import time
from pathlib import Path

import numpy as np

from npvae import runs, saving
from npvae.runs import DEFAULTS
from npvae.schedules import BurdaStages, Cosine, Cyclical, Linear, StepDecay

SECONDS_BETWEEN_SAVES = 60  # within an epoch


def train(args):
    """`npvae train`."""
    from npvae import data
    from npvae.batches import Rows

    arguments = _resumed_arguments(args) if args.resume else _new_arguments(args)
    dataset = data.load(arguments["data"], arguments["data_dir"], progress=True)
    print(f"data      {dataset.description}")
    schedules = _schedules(arguments, len(dataset.x_train))
    model, state = _new_model(arguments, dataset), None
    if args.resume:
        folder = Path(args.out)
    else:
        for name, rows in [("training data", dataset.x_train), ("validation data", dataset.x_val)]:
            Rows.of(model, rows, name)  # refuse unusable data before a folder is made
        folder = runs.new_folder(args.out, Path(arguments["data"]).stem)
    with saving.exclusive(folder):
        if args.resume:
            if saving.has_progress(folder):  # else it was stopped before its first save, and begins again
                model, state = saving.load_progress(folder)
            for change in runs.changes_since(runs.read_config(folder)):
                print(f"note      {change}: the last bits may not be those of a run without the break")
        print(f"model     {model}\nrun       {folder}\n")
        runs.write_config(folder, arguments, model, dataset.image_shape)
        status, history = _fit(arguments, schedules, dataset, folder, model, state)
        if status == 0:
            _report_training(folder, history, runs.draw_pictures(folder, model, dataset, history))
    return status


def _new_model(arguments, dataset):
    from npvae.vae import VAE

    return VAE(
        n_features=dataset.x_train.shape[1],
        n_latent=arguments["latent"],
        hidden=arguments["hidden"],
        activation=arguments["activation"],
        likelihood=arguments["likelihood"],
        sigma=arguments["sigma"],
        seed=arguments["seed"],
        initialization=arguments["initialization"],
    )


def _fit(arguments, schedules, dataset, folder, model, state):
    """Train and save; the exit status, 0 or that of the signal that stopped it, and the History."""
    from npvae.optim import Adam
    from npvae.train import fit

    beta, learning_rate = schedules
    about = {"arguments": arguments, "environment": runs.environment()}
    saved, latest = time.monotonic(), state

    def save(state):
        nonlocal saved
        if saving.is_sound(state):
            saving.save_progress(folder, model, state, **about)
            saved = time.monotonic()

    def on_step(state):
        nonlocal latest
        latest = state
        if not interruption.signal and time.monotonic() > saved + SECONDS_BETWEEN_SAVES:
            save(state)
        return interruption.signal

    with Interruption() as interruption:
        history = fit(
            model,
            dataset.x_train,
            dataset.x_val,
            epochs=arguments["epochs"],
            batch_size=arguments["batch_size"],
            optimizer=Adam(learning_rate),
            objective=arguments["objective"],
            beta=beta,
            n_samples=arguments["train_samples"],
            free_bits_per_dimension=arguments["free_bits_per_dimension"],
            free_bits_total=arguments["free_bits_total"],
            max_gradient_norm=arguments["max_gradient_norm"],
            weight_decay=arguments["weight_decay"],
            early_stopping=arguments["early_stopping"],
            output_bias=arguments["output_bias"],
            seed=arguments["seed"],
            workers=arguments["workers"],
            on_epoch=save,
            on_step=on_step,
            resume=state,
        )
        if not interruption.signal:
            return 0, history
        saving.save_progress(folder, model, latest, **about)
    print(f"\nstopped after step {latest.step}, in epoch {latest.epoch + 1} of {arguments['epochs']}; nothing is lost. Go on "
          f"with:\n    npvae train --resume --out {folder}")  # fmt: skip
    return 128 + interruption.signal, history


class Interruption:
    """Within the block the first Ctrl-C (SIGINT) or SIGTERM is noted in `signal`, and a second one ends the program at once."""

    def __init__(self):
        self.signal, self.handlers = 0, {}

    def __enter__(self):
        if threading.current_thread() is threading.main_thread():  # others cannot set handlers
            self.handlers = {number: signal.signal(number, self.note) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *error):
        for number, handler in self.handlers.items():
            signal.signal(number, handler)

    def note(self, number, _):
        if self.signal:
            os._exit(128 + number)
        self.signal = number
        print("\nfinishing the step and saving (once more to end at once)", file=sys.stderr, flush=True)


def _schedules(arguments, n_rows):
    """The weight of the KL and the learning rate that the options ask for: numbers, or callables of the step."""
    steps_per_epoch = math.ceil(n_rows / arguments["batch_size"])
    beta, annealing_steps = arguments["beta"], arguments["annealing_epochs"] * steps_per_epoch
    if annealing_steps and arguments["annealing_cycles"]:
        beta = Cyclical(annealing_steps, arguments["annealing_cycles"], end=beta)
    elif annealing_steps:
        beta = Linear(annealing_steps, 0.0, beta)
    elif arguments["annealing_cycles"]:
        raise ValueError("--annealing-cycles needs --annealing-epochs, over which the cycles go")
    rate = arguments["learning_rate"]
    drop_steps = arguments["learning_rate_drop_epochs"] * steps_per_epoch
    learning_rate = {
        "constant": rate,
        "step": StepDecay(rate, drop_steps, arguments["learning_rate_drop_factor"]),
        "cosine": Cosine(rate, arguments["epochs"] * steps_per_epoch),
        "burda": BurdaStages(steps_per_epoch, rate),
    }[arguments["learning_rate_schedule"]]
    return beta, learning_rate


def _new_arguments(args):
    """The defaults, with what was given in their place and paths made absolute, so that any folder can evaluate the run."""
    given = {name: getattr(args, name) for name in DEFAULTS if getattr(args, name) is not None}
    data_dir = None if args.data_dir is None else str(Path(args.data_dir).resolve())
    arguments = {**DEFAULTS, **given, "data_dir": data_dir, "workers": args.workers}
    if Path(arguments["data"]).suffix and data_dir is None:
        arguments["data"] = str(Path(arguments["data"]).resolve())
    return arguments


def _resumed_arguments(args):
    """The arguments of the run that --out names, with the new number of epochs if one is given."""
    if args.out is None:
        raise ValueError("--resume needs --out RUN, the run folder to continue")
    arguments = runs.read_config(args.out)["arguments"]
    given = [name for name in [*DEFAULTS, "data_dir"] if name != "epochs" and getattr(args, name) is not None]
    if given:
        options = ", ".join("--" + name.replace("_", "-") for name in given)
        raise ValueError(f"--resume takes the settings of {args.out}/config.json; leave out {options}")
    changes = {name: getattr(args, name) for name in ("epochs", "workers") if getattr(args, name) is not None}
    return {**DEFAULTS, **arguments, **changes}


def _report_training(folder, history, pictures):
    """What the run reached, what lies in its folder, and what to do next."""
    last = history.rows[-1]
    print(
        f"\nafter {last['epoch']} epochs, {last['seconds']:.0f} s: validation loss {last['val_loss']:.2f} = "
        f"nll {last['val_nll']:.2f} + kl {last['val_kl']:.2f} nats per datum\n\n{folder}/"
    )
    files = {
        "config.json": "everything needed to repeat the run",
        "metrics.jsonl": "the numbers above, one line per epoch",
        "checkpoint.npz": "the model (VAE.load) and the state of its training",
        "checkpoint.previous.npz": "the one before, should that be damaged",
        "best.npz": "the model of lowest validation loss",
        **pictures,
    }
    for name, description in files.items():
        print(f"    {name:24} {description}")
    print(f"\nnext: npvae evaluate {folder}")


def _trained_model(run_folder, arguments):
    """The model that the run's training ends with: where it may stop early, that of the best epoch."""
    return saving.load_model(run_folder, best=arguments.get("early_stopping") is not None)


def evaluate(args):
    """`npvae evaluate`."""
    from npvae import data

    arguments = runs.read_config(args.run_folder)["arguments"]
    model = _trained_model(args.run_folder, arguments)
    data_dir = arguments["data_dir"] if args.data_dir is None else args.data_dir
    dataset = data.load(arguments["data"], data_dir, progress=True)
    results = runs.measure(model, dataset, args.samples, args.seed, progress=True)
    if args.json:
        print(json.dumps({"run": str(args.run_folder), **results}, indent=2))
    else:
        print_results(args.run_folder, model, dataset, results)
    return 0


def print_results(run_folder, model, dataset, results):
    """The numbers of `runs.measure` as a table with units."""
    error, n_samples = results["elbo_standard_error"], results["log_likelihood_samples"]
    bits = results["bits_per_dimension"]
    print(f"run       {run_folder}, {model}")
    print(f"data      {dataset.description}")
    print(f"          measured on {results['rows']:,} validation rows; means per datum\n")
    print(f"ELBO              {results['elbo']:10.3f} nats  ± {error:.3f}, the noise of {results['elbo_samples']} z per datum")
    print(f"  nll             {results['nll']:10.3f} nats  −ELBO = nll + kl")
    print(f"  kl              {results['kl']:10.3f} nats  = I(x; z) + KL(q(z) ‖ p(z))")
    most = math.log(results["rows"])
    print(f"    I(x; z)       {results['mutual_information']:10.3f} nats  what z tells about x, at most {most:.3f}")
    print(f"    KL(q(z)‖p(z)) {results['aggregate_kl']:10.3f} nats  how far all rows' z together are from the prior")
    print(f"log p(x) at least {results['log_likelihood']:10.3f} nats  importance-weighted, {n_samples} samples per datum")
    print(f"bits per dimension{bits['elbo']:10.4f} bits  from the ELBO; {bits['log_likelihood']:.4f} from log p(x)")
    print(f"active units      {results['active_units']:6} of {model.n_latent}   Var(mu) over the data above 0.01\n")
    print("KL of each latent dimension, nats")
    widest = max(results["kl_per_dimension"])
    for i, kl in sorted(enumerate(results["kl_per_dimension"], 1), key=lambda item: -item[1]):
        print(f"    z_{i:<4} {kl:8.4f}  {'█' * round(40 * kl / widest) if widest > 0 else ''}")


def sample(args):
    """`npvae sample`."""
    from npvae import plots

    config = runs.read_config(args.run_folder)
    model = _trained_model(args.run_folder, config["arguments"])
    path = runs.free_path(Path(args.run_folder) / "draws.png") if args.out is None else Path(args.out)
    if path.suffix.lower() != ".png":
        raise ValueError(f"--out must name a .png file; got {args.out}")
    if path.exists():
        raise FileExistsError(f"{path} exists already; name another file with --out")
    figure = plots.samples(model.sample(args.count, args.seed), config["image_shape"])
    plots.save(figure, path)
    print(f"{path}: {args.count} draws of {model}")
    return 0


def gradcheck(args):
    """`npvae gradcheck`."""
    from npvae import proofs, subjects
    from npvae.history import progress_bar

    everything = subjects.subjects()
    if args.run_folder is not None:
        everything = [subject for subject in everything if isinstance(subject, subjects.Pair)] + [run_subject(args.run_folder)]
    started, outcomes = time.perf_counter(), []
    with progress_bar(True, total=len(everything), unit=" cases", unit_scale=False) as bar:
        for subject in everything:
            bar.set_description(subject.name[:40].ljust(40))
            outcomes += proofs.prove(subject)
            bar.update()
    failed = [outcome for outcome in outcomes if not outcome.report.passed]
    if args.json:
        reports = [{**o.report.as_dict(), "subject": o.subject, "check": o.check} for o in outcomes]
        print(json.dumps({"passed": not failed, "reports": reports}, indent=2))
        return 1 if failed else 0
    for outcome in failed:
        print(f"{outcome.subject}: {outcome.report}\n")
    print("\n".join(proofs.table(outcomes)))
    verdict = f"{len(failed)} FAILED, see above" if failed else "all passed"
    print(f"\n{len(outcomes)} checks of {len(everything)} cases in {time.perf_counter() - started:.0f} s: {verdict}")
    print(proofs.LEGEND)
    return 1 if failed else 0


def run_subject(run_folder):
    """The model of a run in float64, with validation rows and noise, as a subject of the proof."""
    from npvae import data
    from npvae.batches import model_input
    from npvae.subjects import ModelCase

    arguments = runs.read_config(run_folder)["arguments"]
    model = _trained_model(run_folder, arguments)
    dataset = data.load(arguments["data"], arguments["data_dir"], progress=True)
    rng = np.random.default_rng(0)
    rows = dataset.x_val[np.sort(rng.choice(len(dataset.x_val), min(16, len(dataset.x_val)), replace=False))]
    model = model.copy(dtype="float64")
    x = model_input(model, rows, rng)
    name = f"{run_folder} VAE {model.widths} {model.activation} {model.likelihood}"
    return ModelCase(name, model, x, rng.standard_normal((len(x), model.n_latent)), beta=1.0)
