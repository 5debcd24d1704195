"""The run folder: what `npvae train` leaves, and what the other commands read.

    config.json      everything needed to repeat the run; library versions, BLAS, threads
    *.png            the history, and what the model shows of itself

and what `npvae.training.checkpoint` writes: checkpoints and metrics.
"""

import contextlib
import json
import platform
import warnings
from importlib.metadata import version
from pathlib import Path

import threadpoolctl

from npvae.core import checks, files
from npvae.core.checks import NpvaeWarning
from npvae.data import Scaling


def new_folder(path=None, default="run"):
    """Make the folder of a new run; without a path, the first of runs/<default>, runs/<default>-2, ... that this makes.

    FileExistsError if it holds anything already: nothing is ever written over.
    """
    wanted = Path("runs") / default if path is None else Path(path)
    if path is not None:
        check_unused(wanted)
    try:
        wanted.parent.mkdir(parents=True, exist_ok=True)
        if path is None:
            return first_made(wanted, Path.mkdir)
        wanted.mkdir(exist_ok=True)
    except OSError as error:
        raise type(error)(f"run folder {wanted} cannot be made: {error.strerror}") from None
    return wanted


def new_file(out, default):
    """Make the empty file of a new picture or page, which has the suffix of the path `default`; without `out`, the first of
    draws.png, draws-2.png, ... for the default draws.png. FileExistsError if it is there already."""
    if out is None:
        return first_made(default, lambda file: file.touch(exist_ok=False))
    check_free(out, default.suffix)
    path = Path(out)
    try:
        path.touch(exist_ok=False)
    except FileExistsError:  # made since the check
        raise FileExistsError(already_there(path)) from None
    return path


def check_free(out, suffix):
    """Refuse an --out that `new_file` would refuse, before the work is done; None is free."""
    if out is not None and Path(out).suffix.lower() != suffix:
        raise ValueError(f"--out must name a {suffix} file; got {out}")
    if out is not None and Path(out).exists():
        raise FileExistsError(already_there(out))


def already_there(path):
    return f"{path} exists already; name another file with --out"


def write_new(out, default, write_to):
    """Let `write_to(file)` write the new file `out`, or the first free one of the default's name; returns its path. Where that
    fails there is no file."""
    path = new_file(out, default)
    try:
        files.replace_file(path, write_to)
    except BaseException:
        path.unlink(missing_ok=True)  # the empty file
        raise
    return path


def is_unused(folder):
    """Whether a folder is not there or holds nothing, but for hidden files: the lock, what a killed program was writing."""
    return not folder.is_dir() or all(path.name.startswith(".") for path in folder.iterdir())


def check_unused(folder):
    """FileExistsError for the folder of another run."""
    if not is_unused(folder):
        raise FileExistsError(f"run folder {folder} is already in use: name another with --out, or continue it with --resume")


def first_made(path, make):
    """`path`, or path-2, path-3, ...: the first for which make(path) raises no FileExistsError. Programs that do this at the
    same time get one each, for the system makes a file or folder only once."""
    candidate, i = path, 1
    while True:
        try:
            make(candidate)
            return candidate
        except FileExistsError:
            i += 1
            candidate = path.with_name(f"{path.stem}-{i}{path.suffix}")


def write_config(folder, arguments, model, dataset):
    """Record the command's arguments, the model, what is to be known of the data without having them, and the machine."""
    description = {"class": type(model).__name__, "config": model.config}
    scaling = (dataset.whole or dataset).scaling  # that of all columns in the file, for data that are read again
    config = {
        "npvae": version("npvae"),
        "arguments": arguments,
        "model": description,
        "image_shape": dataset.image_shape,  # None if they are no images
        "scaling": scaling and scaling.as_json(),
        "data_sha256": dataset.digest,
    }
    text = json.dumps(config | environment(), indent=2) + "\n"
    files.replace_file(folder / "config.json", lambda file: file.write(text.encode()))


def environment():
    """What the last bits of a result depend on: versions of libraries, machine, BLAS."""
    import scipy.linalg  # noqa: F401

    # With that SciPy's BLAS is loaded, too, and not only where something has needed it before.
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


def data_have_changed(folder, config, dataset):
    """A sentence if a data set is not the one that the run was begun with, else None."""
    before, now = config["data_sha256"], dataset.digest
    if before == now:
        return None
    return (f"the data are not those that {folder} was trained on: their SHA-256 is {now[:12]}..., and config.json has "
            f"{before[:12]}...")  # fmt: skip


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
        if not isinstance(config["data_sha256"], str):
            raise TypeError(f"data_sha256 {config['data_sha256']!r}")
        Scaling.from_json(config["scaling"])
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

    The lock is the operating system's and goes with the process, however that ends. A file system without locks (some mounts of
    NFS and Lustre) gets a warning.
    """
    with (Path(folder) / ".lock").open("ab") as file:
        try:
            files.lock(file.fileno())
        except OSError as error:
            if error.errno in files.HELD:
                message = f"run folder {folder} is in use by another npvae train; name another with --out"
                raise BlockingIOError(message) from None
            warnings.warn(f"the file system of {folder} has no locks ({error.strerror}): see to it that no other npvae train "
                          "writes there", NpvaeWarning, stacklevel=3)  # fmt: skip
        yield
