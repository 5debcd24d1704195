"""The run folder: what `npvae train` leaves, and what the other commands read.

    config.json      everything needed to repeat the run; library versions, BLAS, threads
    *.png            the history, and what the model shows of itself

and what `npvae.training.checkpoint` writes: checkpoints and metrics.
"""

import contextlib
import json
import os
import platform
from importlib.metadata import version
from pathlib import Path

import threadpoolctl

from npvae.core import checks, files


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
    description = {"class": type(model).__name__, "config": model.config}
    config = {"npvae": version("npvae"), "arguments": arguments, "model": description, "image_shape": image_shape}
    text = json.dumps(config | environment(), indent=2) + "\n"
    files.replace_file(folder / "config.json", lambda file: file.write(text.encode()))


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
    before, after = (blas_in_words(at.get("blas", [])) for at in (config, now))
    if before != after:
        changes.append(f"BLAS {before} became {after}")
    return changes


def blas_in_words(pools):
    """The BLAS libraries of an environment, in whatever order they were loaded."""
    names = ("internal_api", "version", "architecture")
    return "; ".join(sorted(" ".join(str(pool.get(name)) for name in names) for pool in pools))


def read_config(folder):
    """The dict that `write_config` wrote, its outline checked (`checked_arguments` looks at the rest); OSError or ValueError,
    naming the file, if there is none."""
    path = Path(folder) / "config.json"
    if not path.is_file():
        raise FileNotFoundError(f"{folder} is not a run folder: it has no config.json (npvae train makes one)")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        arguments, shape = config["arguments"], config["image_shape"]
        if not isinstance(config["model"]["class"], str) or not isinstance(arguments["model"], str):
            raise TypeError(f"model {arguments['model']!r}")
        if not isinstance(arguments["data_dir"], str | None):
            raise TypeError(f"data_dir {arguments['data_dir']!r}")
        if arguments["workers"] is not None:
            checks.integer("workers", arguments["workers"], 1)
        changes_since(config)  # whether its words about the environment are as they should be
        if shape is not None:
            rows, columns = (checks.integer("image_shape", side, 1) for side in shape)
            if rows * columns != config["model"]["config"]["n_features"]:
                raise ValueError(f"image_shape {shape} of {config['model']['config']['n_features']} features")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path}: damaged, or not written by this version of npvae train ({error!r})") from None
    return config


def checked_arguments(folder, arguments, options):
    """The arguments of a config with every value checked by its Option; ValueError, naming the file, for what cannot be."""
    try:
        unknown = set(arguments) - {*options, "data_dir", "workers", "model"}
        if unknown:
            raise ValueError(f"unknown arguments {', '.join(sorted(map(str, unknown)))}")
        values = {name: option.checked(arguments.get(name, option.default)) for name, option in options.items()}
    except (ValueError, TypeError) as error:
        raise ValueError(f"{Path(folder) / 'config.json'}: {error}") from None
    return {**arguments, **values}


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
