"""The run folder: what `npvae train` leaves, and what the other commands read.

config.json      everything needed to repeat the run; library versions, BLAS, threads
metrics.jsonl    one line per epoch, the rows of the History
checkpoint.npz   model, optimiser and position of the run, replaced after every epoch
*.png            loss curves, reconstructions, samples, the latent plane, the decoded grid
"""

import json
import platform
from importlib.metadata import version
from pathlib import Path

import numpy as np
import threadpoolctl

from npvae import checkpoint, evaluate
from npvae.batches import model_input
from npvae.history import Best, History, TrainingState
from npvae.vae import VAE

N_RECONSTRUCTIONS, N_SAMPLES = 12, 64
ELBO_SAMPLES = 10  # draws of z per datum behind the ELBO and its error


def new_folder(path=None, default="run"):
    """Make the folder of a new run; without a path, the first free of runs/<default>, runs/<default>-2, ...

    FileExistsError if it holds anything already: nothing is ever written over.
    """
    folder = free_path(Path("runs") / default) if path is None else Path(path)
    if folder.is_dir() and any(folder.iterdir()):
        raise FileExistsError(f"run folder {folder} is already in use: name another with --out, or continue it with --resume")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise type(error)(f"run folder {folder} cannot be made: {error.strerror}") from None
    return folder


def free_path(path):
    """`path`, or the first of path-2, path-3, ... that does not exist."""
    candidate, i = path, 1
    while candidate.exists():
        i += 1
        candidate = path.with_name(f"{path.stem}-{i}{path.suffix}")
    return candidate


def write_config(folder, arguments, model, image_shape):
    """Record the command's arguments, the model, the shape of the data's images (None if they are none), and the machine."""
    config = {
        "npvae": version("npvae"),
        "arguments": arguments,
        "model": model.config,
        "image_shape": image_shape,
        "versions": {"python": platform.python_version()}
        | {name: version(name) for name in ("numpy", "scipy", "numba", "matplotlib")},
        "platform": platform.platform(),
        "blas": [
            {key: pool.get(key) for key in ("internal_api", "version", "architecture", "num_threads")}
            for pool in threadpoolctl.threadpool_info()
            if pool["user_api"] == "blas"
        ],
    }
    text = json.dumps(config, indent=2) + "\n"
    checkpoint.replace_file(folder / "config.json", lambda file: file.write(text.encode()))


def read_config(folder):
    """The dict that `write_config` wrote; OSError or ValueError, naming the file, if there is none."""
    path = Path(folder) / "config.json"
    if not path.is_file():
        raise FileNotFoundError(f"{folder} is not a run folder: it has no config.json (npvae train makes one)")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        config["arguments"]["data"], config["image_shape"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: damaged, or not written by npvae train ({error!r})") from None
    return config


def save_progress(folder, model, state):
    """Write the checkpoint and the metrics as they stand after an epoch."""
    arrays = {name: value for name, value in state.optimizer.items() if name != "t"}
    arrays = {"theta": model.theta, **{f"optimizer.{name}": value for name, value in arrays.items()}}
    if state.best is not None:
        arrays["best.theta"] = state.best.theta
    training = {
        "optimizer_steps": state.optimizer["t"],
        "epoch": state.epoch,
        "step": state.step,
        "seconds": state.seconds,
        "skipped": state.skipped,
        "skipped_in_a_row": state.skipped_in_a_row,
        "history": state.history.rows,
        "best": state.best and {"epoch": state.best.epoch, "loss": state.best.loss, "beta": state.best.beta},
    }
    checkpoint.write(folder / "checkpoint.npz", arrays, {"model": model.config, "training": training})
    lines = "".join(json.dumps(row) + "\n" for row in state.history.rows)
    checkpoint.replace_file(folder / "metrics.jsonl", lambda file: file.write(lines.encode()))


def load_progress(folder):
    """The model and the TrainingState of a run folder; OSError or ValueError, naming the file, where they are missing."""
    path = Path(folder) / "checkpoint.npz"
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist: {folder} is not a run folder, or was stopped before its first epoch")
    arrays, metadata = checkpoint.read(path)
    model = VAE.from_checkpoint(arrays, metadata, path)
    try:
        training = metadata["training"]
        optimizer = {"t": training["optimizer_steps"]}
        optimizer |= {name.removeprefix("optimizer."): a for name, a in arrays.items() if name.startswith("optimizer.")}
        counts = {name: training[name] for name in ("epoch", "step", "seconds", "skipped", "skipped_in_a_row")}
        best = Best(**training["best"], theta=arrays["best.theta"]) if training.get("best") else None
        state = TrainingState(optimizer, **counts, history=History(training["history"]), best=best)
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path}: holds a model but no training state ({error!r})") from None
    return model, state


def load_model(folder):
    """The model of a run folder as its training would leave it now: with early stopping that of the best epoch so far."""
    model, state = load_progress(folder)
    if state.best is not None:
        model.theta = state.best.theta
    return model


def draw_pictures(folder, model, dataset, history):
    """Write the run's pictures; returns a dict of file name -> what it shows."""
    from npvae import plots  # Matplotlib takes half a second to load

    x = model_input(model, dataset.x_val, 0, "validation rows")
    shown = np.linspace(0, len(x) - 1, N_RECONSTRUCTIONS).astype(int)
    labels = None if dataset.labels_val is None else dataset.labels_val[shown]
    mu, kl = evaluate.posterior_means(model, x)
    pictures = {
        "loss.png": (plots.loss_curves(history), "loss, nll and kl of every epoch"),
        "reconstructions.png": (
            plots.reconstructions(x[shown], model.reconstruct(x[shown]), dataset.image_shape, labels, dataset.label_name),
            "validation rows over their reconstructions",
        ),
        "samples.png": (plots.samples(model.sample(N_SAMPLES, 0), dataset.image_shape), "draws from the model"),
        "latent.png": (
            plots.latent_plane(mu, dataset.labels_val, dataset.label_name, kl),
            f"validation rows in the latent plane, by {dataset.label_name}",
        ),
    }
    if model.n_latent == 2 and dataset.image_shape is not None:
        pictures["grid.png"] = (plots.decoded_grid(model, dataset.image_shape), "what each point of the latent plane means")
    for name, (figure, _) in pictures.items():
        plots.save(figure, folder / name)
    return {name: description for name, (_, description) in pictures.items()}


def measure(model, dataset, n_samples, seed=0, progress=False):
    """Everything `npvae evaluate` tells of a model, on the validation rows of a Dataset, as plain values for JSON."""
    x = model_input(model, dataset.x_val, seed, "validation rows")
    bound = evaluate.elbo(model, x, seed, ELBO_SAMPLES)
    information, aggregate_kl = evaluate.kl_parts(model, x, seed)
    log_likelihood = float(evaluate.log_likelihood(model, x, n_samples, seed, progress).mean())
    return {
        "rows": len(x),
        "elbo": bound.elbo,
        "nll": bound.nll,
        "kl": bound.kl,
        "mutual_information": information,
        "aggregate_kl": aggregate_kl,
        "elbo_standard_error": bound.standard_error,
        "elbo_samples": ELBO_SAMPLES,
        "log_likelihood": log_likelihood,
        "log_likelihood_samples": n_samples,
        "bits_per_dimension": {
            "elbo": evaluate.bits_per_dimension(-bound.elbo, model.n_features),
            "log_likelihood": evaluate.bits_per_dimension(-log_likelihood, model.n_features),
        },
        "active_units": int(evaluate.active_units(model, x).sum()),
        "n_latent": model.n_latent,
        "kl_per_dimension": evaluate.kl_per_dimension(model, x).tolist(),
        "units": "nats per datum; bits per data dimension",
    }
