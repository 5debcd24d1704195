"""The arguments of a run, which config.json records: those of a new run are the options that were given and defaults for the
others; a run that goes on keeps its own.

Paths are absolute, so that a run can be used from any folder.
"""

from pathlib import Path

from npvae.app import run_folder, settings

MAY_CHANGE = ("epochs", "workers", "data_dir")  # when a run goes on; data may have moved, and their digest tells them


def of_new_run(args):
    """The model's class, and the arguments of a new run."""
    model = settings.recorded_name(args.model or settings.default_model(args.condition), args.kind)
    return args.kind, {**settings.defaults(args.kind), "data_dir": None, "workers": None, **_given(args), "model": model}


def of_run(folder, model=None):
    """The model's class, the checked arguments and the config of a run folder. model: --model, for a class not of npvae."""
    config = run_folder.read_config(folder)
    kind = settings.model_class_of_run(folder, config["arguments"]["model"], config["model"]["class"], model)
    arguments = run_folder.checked_arguments(folder, config["arguments"], settings.all_options(kind))
    return kind, arguments, {**config, "arguments": arguments}


def of_resumed_run(args):
    """The model's class, the arguments and the config of the run that --out names, with new values of MAY_CHANGE if such are
    given; ValueError for another option whose value is not the run's."""
    kind, arguments, config = of_run(args.out, args.model)
    given = _given(args)
    if "data_dir" in given and Path(given.get("data", "")).name == Path(arguments["data"]).name:
        given.pop("data", None)
    others = [f"--{name.replace('_', '-')} is {_in_words(arguments, name)} there, not {_in_words(given, name)}"
              for name in given if name not in MAY_CHANGE and given[name] != arguments.get(name)]  # fmt: skip
    if others:
        raise ValueError(f"--resume goes on with the settings of {args.out}/config.json: {'; '.join(others)}. Leave out what "
                         "differs, or begin another run")  # fmt: skip
    return kind, {**arguments, **{name: given[name] for name in MAY_CHANGE if name in given}}, config


def _given(args):
    """name -> value of the options on the command line, paths absolute."""
    names = [*settings.defaults(args.kind), "data_dir", "workers"]
    given = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    if "data_dir" in given:
        given["data_dir"] = str(Path(given["data_dir"]).resolve())
    elif Path(given.get("data", "")).suffix:
        given["data"] = str(Path(given["data"]).resolve())
    return given


def _in_words(arguments, name):
    """The value of an option as it is typed."""
    value = arguments.get(name, "no option")
    if value is None:
        return "not given"
    return " ".join(map(str, value)) or "empty" if isinstance(value, list) else value
