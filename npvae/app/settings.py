"""What `npvae train` can be told: the options of every run, those of its model, their defaults, and which model is meant."""

import importlib.util
import math
import re
import sys
import traceback
from functools import cache
from pathlib import Path

from npvae import models
from npvae.core import options
from npvae.core.options import Option
from npvae.data import LABEL, NONE, STANDARDISE
from npvae.training.fit import REDUCTIONS
from npvae.training.schedules import BurdaStages, Cosine, Cyclical, Linear, StepDecay
from npvae.training.step import setting_at

SCHEDULES = ("constant", "step", "cosine", "burda")
DEFAULT_MODEL, DEFAULT_CONDITIONAL = "vae", "conditionalvae"

RUN = (
    Option("data", "ising", "ising, mnist, toy:NAME, or the path of a .npy or .npz file", options.path, metavar="DATA"),
    Option("scale", None, "divide the data by this number; or standardise: each column to mean 0 and variance 1, for "
           "real-valued data. All numbers are in the new units then, pictures in the data's own",
           options.word_or(STANDARDISE, options.positive), metavar="S"),
    Option("image_shape", None, "ROWS COLUMNS of each datum, which the pictures show as an image; or none: as a curve "
           "(default: as the data are)", options.word_or("none", options.integer(1)), metavar="N", many=True),
    Option("condition", None, "label, half (the upper half of each image, given which the lower is learned), or the name of an "
           "array of the .npz file: train a conditional model p(x|condition)", options.text, metavar="NAME"),
    Option("epochs", 30, "passes over the training rows", options.integer(1), metavar="N"),
    Option("batch_size", 128, "rows per step", options.integer(1), metavar="N"),
    Option("reduction", "fastest", "fastest; or shards: the gradients of the workers' shards are added one by one, in order, "
           "so that N processes of one worker (mpiexec -n N) and one process of N workers give the same bits",
           options.one_of(*REDUCTIONS), metavar="R", choices=REDUCTIONS),
    Option("seed", 0, "of weights, order and noise; the same seed repeats the run", options.integer(0), metavar="S"),
)  # fmt: skip
OPTIMISATION = (
    Option("learning_rate", 1e-3, "Adam's step size", options.positive, metavar="R"),
    Option("learning_rate_schedule", "constant", "constant; step: times --learning-rate-drop-factor every "
           "--learning-rate-drop-epochs; cosine: down to 0 at --epochs; burda: eight stages of 1, 3, 9, ... epochs",
           options.one_of(*SCHEDULES), metavar="K", choices=SCHEDULES),
    Option("learning_rate_drop_epochs", 10, "of the schedule step", options.integer(1), metavar="N"),
    Option("learning_rate_drop_factor", 0.1, "of the schedule step", options.positive, metavar="F"),
    Option("max_gradient_norm", None, "shorten longer gradients to this norm", options.positive, metavar="G"),
    Option("weight_decay", 0.0, "each step multiplies the weights by 1 − learning rate · W", options.not_negative, metavar="W"),
    Option("early_stopping", None, "stop after N epochs without a lower validation loss, and keep the best epoch's weights",
           options.integer(1), metavar="N"),
)  # fmt: skip
ANNEALING = (
    Option("annealing_epochs", 0, "epochs over which {names} rises from 0, against posterior collapse", options.integer(0),
           metavar="N"),
    Option("annealing_cycles", 0, "cyclical annealing: {names} rises so many times within --annealing-epochs; 0 for once",
           options.integer(0), metavar="N"),
)  # fmt: skip
MODEL_FILE = re.compile(r"(?P<path>.+\.py)(:(?P<name>\w+))?")  # FILE.py or FILE.py:CLASS
OF_DATA = ("data", "batch_size", "scale", "image_shape", "condition", "early_stopping")  # which a model without takes none of
TAKEN = {"model", "data_dir", "out", "workers", "resume", "help", "run", "kind"}


def own_options(kind):
    """The options that a model lists; ValueError where one has the name of an option of every run."""
    listed = getattr(kind, "options", ())
    taken = TAKEN | {option.name for option in (*RUN, *OPTIMISATION, *ANNEALING)}
    for option in listed:
        if option.name in taken:
            raise ValueError(f"{kind.__name__}.options: the name {option.name} is taken by an option of every run")
    return listed


def training_options(kind):
    """The options that say what a model minimises: its own settings, and annealing where one of them can rise from 0."""
    settings = [option for option in own_options(kind) if option.use == "training"]
    annealed = ", ".join("--" + option.name.replace("_", "-") for option in settings if option.annealed)
    return [*settings, *(option._replace(help=option.help.format(names=annealed)) for option in ANNEALING if annealed)]


def model_options(kind):
    """The options that say what a model is."""
    return [option for option in own_options(kind) if option.use != "training"]


def all_options(kind):
    """name -> Option of everything that a run with this kind of model can be told, with the defaults that the model prefers."""
    everything = [*RUN, *model_options(kind), *training_options(kind), *OPTIMISATION]
    preferred = getattr(kind, "defaults", {})
    return {option.name: option._replace(default=preferred.get(option.name, option.default)) for option in everything}


def defaults(kind):
    """name -> value of a run without options."""
    return {name: option.default for name, option in all_options(kind).items()}


def image_shape(arguments):
    """What --image-shape says, as `data.load` takes it: (rows, columns), "none" for no images, None where it is not given."""
    given = arguments["image_shape"]
    if given in (None, ["none"]):
        return given and "none"
    if len(given) != 2 or "none" in given:
        raise ValueError(f"--image-shape takes ROWS COLUMNS, or none; got {' '.join(map(str, given)) or 'nothing'}")
    return tuple(given)


def default_model(condition):
    """What --model is where it is not given."""
    return DEFAULT_MODEL if condition is None else DEFAULT_CONDITIONAL


def npvae_models():
    """name -> class of npvae's own models, as --model names them."""
    return {name.lower(): kind for name, kind in models.classes().items()}


def model_class(name):
    """The class that --model names: one of npvae's, in lower case, or as much of its name as no other begins with; or FILE.py,
    or FILE.py:CLASS. The file is run. ValueError or OSError if there is no such class."""
    ours, match = npvae_models(), MODEL_FILE.fullmatch(name)
    meant = [name] if name in ours else [full for full in ours if name and full.startswith(name)]
    if len(meant) == 1:
        return ours[meant[0]]
    if match is None:
        raise ValueError(f"--model must be one of {', '.join(ours)}, or FILE.py, or FILE.py:CLASS; got {name!r}")
    path, wanted = Path(match["path"]).resolve(), match["name"]
    if not path.is_file():
        raise FileNotFoundError(f"--model: there is no file {path}")
    found = models_in(module_of(path, path.stat().st_mtime_ns))
    if wanted is None and len(found) == 1:
        return next(iter(found.values()))
    if wanted in found:
        return found[wanted]
    names = ", ".join(found) or "(none: a model is a class with an attribute Terms, see npvae.models.protocol)"
    raise ValueError(f"--model: {path} holds the models {names}; name one of them as --model FILE.py:CLASS")


@cache  # a command asks twice, for the options and for the model: the file is run once
def module_of(path, _):
    """The module that a Python file makes; ValueError, naming file and line, if it cannot be run."""
    name = f"npvae_model_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        where = f", line {lines[-1]}" if lines else ""
        raise ValueError(f"--model: {path}{where} cannot be run ({type(error).__name__}: {error})") from error
    return module


def models_in(module):
    """name -> class of the models that a module defines."""
    return {name: value for name, value in vars(module).items()
            if isinstance(value, type) and hasattr(value, "Terms") and value.__module__ == module.__name__}  # fmt: skip


def model_class_of_run(folder, recorded, class_name, given):
    """The class of a run's model. What config.json has recorded, a name and a class name, never runs a file: for a model that
    is not npvae's that takes `given`, the user's --model. ValueError says what is needed."""
    ours = npvae_models()
    if recorded in ours:
        if given is not None and not (given and recorded.startswith(given)):
            raise ValueError(f"the model of {folder} is {recorded}: leave out --model {given}")
        return ours[recorded]
    if given is None or not MODEL_FILE.fullmatch(given):
        raise ValueError(f"the model of {folder} is not one of npvae's: name the file with its code, as in --model {recorded}")
    kind = model_class(given if MODEL_FILE.fullmatch(given)["name"] else f"{given}:{class_name}")
    if kind.__name__ != class_name:
        raise ValueError(f"the model of {folder} is of class {class_name}, not {kind.__name__}")
    return kind


def recorded_name(name, kind):
    """What config.json records of --model: the whole name of one of npvae's, or the absolute path and the class."""
    match = MODEL_FILE.fullmatch(name)
    return f"{Path(match['path']).resolve()}:{kind.__name__}" if match else kind.__name__.lower()


def model_option(arguments):
    """What a command needs after a run folder, to be told whose the model is: " --model FILE.py", or nothing."""
    return "" if arguments["model"] in npvae_models() else f" --model {arguments['model']}"


def takes_condition(kind):
    """Whether a model, or its class, is one of x given a condition."""
    return getattr(kind, "takes_condition", False)


def takes_data(kind):
    """Whether a model, or its class, learns from data."""
    return getattr(kind, "takes_data", True)


def check_data(kind, arguments):
    """ValueError for options of data where the model takes none, or for no data where it needs them."""
    given = ["--" + name.replace("_", "-") for name in OF_DATA if arguments[name] != defaults(kind)[name]]
    if given and not takes_data(kind):
        raise ValueError(f"{kind.__name__} learns from no data: leave out {', '.join(given)}, or name another --model")
    if arguments["data"] == NONE and takes_data(kind):
        raise ValueError(f"{kind.__name__} learns from data: say from which, as in --data ising")
    check_condition(kind, arguments)


def check_condition(kind, arguments):
    """ValueError for a condition that the model does not take, or for none where it takes one."""
    condition = arguments["condition"]
    if takes_condition(kind) and condition is None:
        raise ValueError(f"{kind.__name__} is a model of x given a condition: say which, as in --condition {LABEL}")
    if condition is not None and not takes_condition(kind):
        raise ValueError(f"--condition {condition} is for a model that takes a condition, and {kind.__name__} takes none: "
                         f"leave out --model (for {DEFAULT_CONDITIONAL}) or --condition")  # fmt: skip


def new_model(kind, arguments, n_features, n_condition=0):
    """The model that a run's arguments describe; ValueError where its constructor takes other arguments. n_condition: columns
    of the condition, where it takes one."""
    keywords = {option.argument: arguments[option.name] for option in own_options(kind) if option.use == "model"}
    keywords |= {"n_condition": n_condition} if takes_condition(kind) else {}
    keywords = ({"n_features": n_features} if takes_data(kind) else {}) | {"seed": arguments["seed"]} | keywords
    try:
        return kind(**keywords)
    except TypeError as error:
        wanted = ", ".join(f"{name}=..." for name in keywords)
        raise ValueError(f"npvae train makes a model as {kind.__name__}({wanted}), which failed: {error}") from error


def step_settings(kind, arguments, steps_per_epoch):
    """What draw and forward take in every step: values, or callables of the step where a setting is annealed."""
    steps, cycles = arguments.get("annealing_epochs", 0) * steps_per_epoch, arguments.get("annealing_cycles", 0)
    if cycles and not steps:
        raise ValueError("--annealing-cycles needs --annealing-epochs, over which the cycles go")
    settings = {}
    for option in own_options(kind):
        if option.use == "training":
            value = arguments[option.name]
            if option.annealed and steps:
                value = Cyclical(steps, cycles, end=value) if cycles else Linear(steps, 0.0, value)
            settings[option.argument] = value
    return settings


def final_step_settings(kind, arguments, n_rows):
    """The values of `step_settings` in the last step of training on n_rows rows."""
    steps_per_epoch = math.ceil(n_rows / arguments["batch_size"])
    last = arguments["epochs"] * steps_per_epoch - 1
    return {name: setting_at(value, last) for name, value in step_settings(kind, arguments, steps_per_epoch).items()}


def check_scale(model, arguments):
    """ValueError for a scale that takes the data away from the zeros and ones, or the levels, that the model wants."""
    scale, data_kind = arguments["scale"], getattr(model, "data_kind", "real")
    if data_kind == "levels" and scale not in (None, 255):
        raise ValueError(f"--scale {scale} is not for a model of the levels 0 to 255: leave it out for uint8 data, or take 255 "
                         "for levels that are saved as other numbers, or a model of real values (--likelihood "
                         "gaussian_learned)")  # fmt: skip
    if data_kind == "binary" and scale == STANDARDISE:
        raise ValueError("--scale standardise is for real-valued data, and this model wants values in [0, 1]: take a number as "
                         "the scale, or a model of real values (--likelihood gaussian)")  # fmt: skip


def check_step_settings(model, step_settings):
    """ValueError for settings that the model refuses, before there is a run folder."""
    if hasattr(model, "check_settings"):
        model.check_settings(**{name: value for name, value in step_settings.items() if not callable(value)})


def learning_rate(arguments, n_rows):
    """The learning rate that the options ask for: a number, or a callable of the step."""
    steps_per_epoch = math.ceil(n_rows / arguments["batch_size"])
    rate, drop_steps = arguments["learning_rate"], arguments["learning_rate_drop_epochs"] * steps_per_epoch
    return {
        "constant": rate,
        "step": StepDecay(rate, drop_steps, arguments["learning_rate_drop_factor"]),
        "cosine": Cosine(rate, arguments["epochs"] * steps_per_epoch),
        "burda": BurdaStages(steps_per_epoch, rate),
    }[arguments["learning_rate_schedule"]]


def learning_rate_at(arguments, n_rows, step):
    """The learning rate of a step (0 for the first) as a number."""
    return setting_at(learning_rate(arguments, n_rows), step)


def options_table(kind):
    """The options that are a model's own, as the Markdown table of examples/README.md."""
    rows = [f"| `--{option.name.replace('_', '-')}` | {in_words(option.default)} | {option.help} |"
            for option in [*model_options(kind), *training_options(kind)]]  # fmt: skip
    return "\n".join(["| option | default | what it is |", "|---|---|---|", *rows])


def in_words(default):
    """A default as it is told: 0.0039 for 1/255, on and off for flags, – for what is decided later."""
    if default is None:
        return "–"
    if isinstance(default, bool):
        return "on" if default else "off"
    if isinstance(default, (list, tuple)):
        return " ".join(map(in_words, default))
    return f"{default:.4g}" if isinstance(default, float) else str(default)
