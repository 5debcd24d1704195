"""The run folder: what `npvae train` leaves, and what the other commands read.

    config.json      everything needed to repeat the run; library versions, BLAS, threads
    *.png            loss curves, reconstructions, samples, the latent plane, the decoded grid

and what `npvae.saving` writes: checkpoints and metrics.
"""

import json
import platform
from importlib.metadata import version
from pathlib import Path

import numpy as np
import threadpoolctl

from npvae import checkpoint, checks, evaluate
from npvae.batches import model_input

# What `npvae train` does without options.
DEFAULTS = {
    "data": "ising",
    "epochs": 30,
    "batch_size": 128,
    "latent": 2,
    "hidden": [256],
    "activation": "relu",
    "likelihood": "bernoulli",
    "sigma": 0.1,
    "learning_rate": 1e-3,
    "learning_rate_schedule": "constant",
    "learning_rate_drop_epochs": 10,
    "learning_rate_drop_factor": 0.1,
    "objective": "elbo",
    "train_samples": 1,
    "beta": 1.0,
    "annealing_epochs": 0,
    "annealing_cycles": 0,
    "free_bits_per_dimension": 0.0,
    "free_bits_total": 0.0,
    "max_gradient_norm": None,
    "weight_decay": 0.0,
    "early_stopping": None,
    "initialization": "glorot",
    "output_bias": False,
    "seed": 0,
}
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
    config = {"npvae": version("npvae"), "arguments": arguments, "model": model.config, "image_shape": image_shape}
    text = json.dumps(config | environment(), indent=2) + "\n"
    checkpoint.replace_file(folder / "config.json", lambda file: file.write(text.encode()))


def environment():
    """What the last bits of a result depend on: versions of libraries, machine, BLAS."""
    return {
        "versions": {"python": platform.python_version()}
        | {name: version(name) for name in ("numpy", "scipy", "numba", "matplotlib")},
        "platform": platform.platform(),
        "blas": [
            {key: pool.get(key) for key in ("internal_api", "version", "architecture", "num_threads")}
            for pool in threadpoolctl.threadpool_info()
            if pool["user_api"] == "blas"
        ],
    }


def changes_since(config):
    """What of the environment is not as it was when `config` was written, in words: bits cannot be promised then."""
    changes, now = [], environment()
    for name in ("numpy", "scipy", "numba"):
        before, after = config.get("versions", {}).get(name), now["versions"][name]
        if before != after:
            changes.append(f"{name} {before} became {after}")
    before, after = (
        "; ".join(f"{pool.get('internal_api')} {pool.get('version')} {pool.get('architecture')}" for pool in at.get("blas", []))
        for at in (config, now)
    )
    if before != after:
        changes.append(f"BLAS {before} became {after}")
    return changes


def read_config(folder):
    """The dict that `write_config` wrote; OSError or ValueError, naming the file, if there is none."""
    path = Path(folder) / "config.json"
    if not path.is_file():
        raise FileNotFoundError(f"{folder} is not a run folder: it has no config.json (npvae train makes one)")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        _check_config(config)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path}: damaged, or not written by npvae train ({error!r})") from None
    return config


def _check_config(config):
    """An exception unless a config holds what the commands use, of the right kinds."""
    arguments, shape = config["arguments"], config["image_shape"]
    unknown = set(arguments) - {*DEFAULTS, "data_dir", "workers"}
    if unknown:
        raise ValueError(f"unknown arguments {', '.join(map(str, unknown))}")
    if not isinstance(arguments["data"], str) or not isinstance(arguments["data_dir"], str | None):
        raise TypeError(f"data {arguments['data']!r}, data_dir {arguments['data_dir']!r}")
    for name, default in DEFAULTS.items():
        value = arguments.get(name, default)
        if isinstance(default, bool | str | list) and not isinstance(value, type(default)):
            raise TypeError(f"{name} {value!r}")
        if value is not None and (default is None or (isinstance(default, int | float) and not isinstance(default, bool))):
            checks.number(name, value, 0)
    if shape is not None:
        rows, columns = (checks.integer("image_shape", side, 1) for side in shape)
        if rows * columns != config["model"]["n_features"]:
            raise ValueError(f"image_shape {shape} of {config['model']['n_features']} features")


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
