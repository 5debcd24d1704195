"""Settings: which options a run has, which model is meant, and what its arguments become."""

from pathlib import Path

import mean_field
import pytest

import npvae
from npvae.app import settings
from npvae.core import options
from npvae.core.options import Option
from npvae.training.schedules import BurdaStages, Cosine, Cyclical, Linear, StepDecay

DEFAULTS = settings.defaults(npvae.VAE)


def test_the_defaults_of_a_run_pass_their_own_checks():
    for kind in npvae.models.classes().values():
        for name, option in settings.all_options(kind).items():
            assert option.checked(option.default) == option.default, name


def test_a_run_has_the_options_of_its_model_and_of_every_run():
    own = set(settings.defaults(mean_field.MeanField))
    assert own == {"first_logit", *(option.name for option in (*settings.RUN, *settings.OPTIMISATION))}
    assert set(DEFAULTS) - own == {*(option.name for option in npvae.VAE.options), "annealing_epochs", "annealing_cycles"}


def test_annealing_is_offered_where_a_setting_can_rise_and_says_which():
    (epochs, cycles), none = settings.training_options(npvae.VAE)[-2:], settings.training_options(mean_field.MeanField)
    assert (epochs.name, cycles.name) == ("annealing_epochs", "annealing_cycles")
    assert epochs.help == "epochs over which --beta rises from 0, against posterior collapse"
    assert none == []


class Preferring(mean_field.MeanField):
    defaults = {"learning_rate": 0.5, "first_logit": 1.0}


def test_a_model_may_prefer_other_defaults():
    defaults = settings.defaults(Preferring)
    assert (defaults["learning_rate"], defaults["first_logit"], defaults["epochs"]) == (0.5, 1.0, 30)


def test_a_model_without_options_has_none():
    class Bare:
        Terms = None

    assert settings.defaults(Bare).keys() == {option.name for option in (*settings.RUN, *settings.OPTIMISATION)}
    assert settings.step_settings(Bare, settings.defaults(Bare), 3) == {}


@pytest.mark.parametrize("name", ["epochs", "seed", "model", "data_dir", "workers", "help", "kind", "annealing_epochs"])
def test_an_option_of_every_run_cannot_be_a_model_s(name):
    class Taking(mean_field.MeanField):
        options = (Option(name, 1, "mine", options.integer(1)),)

    with pytest.raises(ValueError, match=f"Taking.options: the name {name} is taken by an option of every run"):
        settings.defaults(Taking)


# ------------------------------------------------------------------------------------------------------ which model it is

TWO = "from npvae import VAE\nclass A(VAE): pass\nclass B(VAE): pass\n"


@pytest.mark.parametrize("folder", [".", "my.project", "x.py:y", "Käthe's models"])
def test_a_model_is_one_of_npvae_s_or_in_a_file(tmp_path, monkeypatch, folder):
    monkeypatch.chdir(tmp_path)
    Path(folder).mkdir(exist_ok=True)
    path = f"{folder}/mine.py"
    Path(path).write_text(TWO)
    assert settings.model_class("vae") is npvae.VAE
    assert settings.model_class(f"{path}:B").__name__ == "B"
    assert settings.model_class(f"{tmp_path}/{path}:A") is settings.model_class(f"{path}:A")  # run once
    assert settings.recorded_name(path, settings.model_class(f"{path}:A")) == f"{Path(path).resolve()}:A"
    with pytest.raises(ValueError, match=r"mine\.py holds the models A, B; name one of them as --model FILE\.py:CLASS"):
        settings.model_class(path)
    for name in (f"{path}x", f"{path}B", f"{path}:", "mine", ""):
        with pytest.raises(ValueError, match=r"--model must be one of .*vae, or FILE\.py, or FILE\.py:CLASS; got"):
            settings.model_class(name)
    with pytest.raises(ValueError, match="holds the models A, B; name one"):
        settings.model_class(f"{path}:C")


def test_the_beginning_of_a_name_is_enough_where_no_other_begins_so():
    kind = settings.model_class("hierarchical")
    assert kind is npvae.models.HierarchicalVAE
    assert settings.recorded_name("hierarchical", kind) == "hierarchicalvae"
    assert settings.model_class_of_run("run", "hierarchicalvae", "HierarchicalVAE", "hierarchical") is kind
    assert settings.model_class("vae") is npvae.VAE


def test_a_file_that_has_changed_is_read_again(tmp_path):
    path = tmp_path / "mine.py"
    for name in ("First", "Second"):
        path.write_text(f"from npvae import VAE\nclass {name}(VAE): pass\n")
        assert settings.model_class(str(path)).__name__ == name


def test_a_file_may_hold_dataclasses_and_postponed_annotations(tmp_path):
    text = "from __future__ import annotations\nfrom dataclasses import dataclass\n@dataclass\nclass Size:\n    n: int\n" + TWO
    (tmp_path / "mine.py").write_text(text)
    assert settings.model_class(f"{tmp_path}/mine.py:A").__name__ == "A"


@pytest.mark.parametrize(("recorded", "given", "message"), [
    ("vae", "mine.py", "the model of run is vae: leave out --model mine.py"),
    ("gone", None, "the model of run is not one of npvae's: name the file with its code, as in --model gone"),
    ("/a/mine.py:A", None, "name the file with its code, as in --model /a/mine.py:A"),
    ("/a/mine.py:A", "vae", "name the file with its code, as in --model /a/mine.py:A"),
    ("/a/mine.py:A", "mine.py:B", "the model of run is of class A, not B"),
])  # fmt: skip
def test_the_model_of_a_run_is_named_by_the_user_where_it_is_not_npvae_s(tmp_path, monkeypatch, recorded, given, message):
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(TWO)
    assert settings.model_class_of_run("run", "vae", "VAE", None) is npvae.VAE
    assert settings.model_class_of_run("run", "vae", "VAE", "vae") is npvae.VAE
    assert settings.model_class_of_run("run", "/gone/mine.py:A", "A", "mine.py").__name__ == "A"
    with pytest.raises(ValueError, match=message):
        settings.model_class_of_run("run", recorded, "A", given)


def test_commands_are_told_the_file_of_a_model_that_is_not_npvae_s():
    assert settings.model_option({"model": "vae"}) == ""
    assert settings.model_option({"model": "/a/mine.py:A"}) == " --model /a/mine.py:A"


# ------------------------------------------------------------------------------------------------ what the arguments become


def test_a_model_is_made_of_its_options():
    changes = {"latent": 3, "hidden": [7, 5], "likelihood": "gaussian", "sigma": 0.3, "seed": 6, "initialization": "he"}
    config = settings.new_model(npvae.VAE, {**DEFAULTS, **changes}, 12).config
    expected = {"n_features": 12, "n_latent": 3, "hidden": [7, 5], "likelihood": "gaussian", "sigma": 0.3, "seed": 6,
                "initialization": "he", "activation": "relu"}  # fmt: skip
    assert {name: config[name] for name in expected} == expected


@pytest.mark.parametrize(("changes", "beta"), [
    ({}, 1.0), ({"beta": 2.0}, 2.0), ({"beta": 4.0, "annealing_epochs": 3}, Linear(33, 0.0, 4.0)),
    ({"annealing_epochs": 6, "annealing_cycles": 2, "beta": 4.0}, Cyclical(66, 2, end=4.0)),
])  # fmt: skip
def test_a_setting_rises_over_the_epochs_that_are_asked_for(changes, beta):
    step_settings = settings.step_settings(npvae.VAE, {**DEFAULTS, **changes}, 11)
    assert step_settings == {"objective": "elbo", "n_samples": 1, "beta": beta, "free_bits_per_dimension": 0.0,
                             "free_bits_total": 0.0}  # fmt: skip


def test_cycles_need_epochs_to_go_over():
    with pytest.raises(ValueError, match="--annealing-cycles needs --annealing-epochs"):
        settings.step_settings(npvae.VAE, {**DEFAULTS, "annealing_cycles": 2}, 11)


@pytest.mark.parametrize(("changes", "rate"), [  # 105 rows, 10 a step: 11 steps per epoch
    ({}, 1e-3),
    ({"learning_rate_schedule": "cosine", "epochs": 2}, Cosine(1e-3, 22)),
    ({"learning_rate_schedule": "burda", "learning_rate": 0.01}, BurdaStages(11, 0.01)),
    ({"learning_rate_schedule": "step", "learning_rate_drop_epochs": 3, "learning_rate_drop_factor": 0.5},
     StepDecay(1e-3, 33, 0.5)),
])  # fmt: skip
def test_the_learning_rate_follows_the_schedule_that_is_asked_for(changes, rate):
    assert settings.learning_rate({**DEFAULTS, "batch_size": 10, **changes}, 105) == rate


@pytest.mark.parametrize(("changes", "beta"), [
    ({}, 1.0), ({"beta": 2.0}, 2.0), ({"beta": 4.0, "annealing_epochs": 3, "epochs": 3}, 4.0 * 32 / 33),
    ({"beta": 4.0, "annealing_epochs": 3, "epochs": 4}, 4.0),
])  # fmt: skip
def test_the_settings_of_the_last_step_are_numbers(changes, beta):
    final = settings.final_step_settings(npvae.VAE, {**DEFAULTS, "batch_size": 10, **changes}, 105)
    assert final == {"objective": "elbo", "n_samples": 1, "beta": pytest.approx(beta), "free_bits_per_dimension": 0.0,
                     "free_bits_total": 0.0}  # fmt: skip


def test_the_learning_rate_of_a_step_is_a_number():
    arguments = {**DEFAULTS, "batch_size": 10, "learning_rate_schedule": "cosine", "epochs": 2}
    assert settings.learning_rate_at(arguments, 105, 11) == pytest.approx(5e-4)
    assert settings.learning_rate_at({**arguments, "epochs": 4}, 105, 22) == pytest.approx(5e-4)
    assert settings.learning_rate_at(DEFAULTS, 105, 3) == 1e-3


@pytest.mark.parametrize(("given", "shape"), [(None, None), (["none"], "none"), ([2, 3], (2, 3))])
def test_the_image_shape_that_is_asked_for(given, shape):
    assert settings.image_shape({"image_shape": given}) == shape


@pytest.mark.parametrize("given", [[], [3], ["none", 3], ["none", "none"], [1, 2, 3]])
def test_an_image_shape_is_two_numbers_or_none(given):
    with pytest.raises(ValueError, match="--image-shape takes ROWS COLUMNS, or none; got"):
        settings.image_shape({"image_shape": given})


def test_only_real_valued_data_are_standardised():
    binary, real = npvae.VAE(4, 1, ()), npvae.VAE(4, 1, (), likelihood="gaussian")
    for model, scale in [(binary, None), (binary, 2.0), (real, None), (real, 2.0), (real, "standardise")]:
        settings.check_scale(model, {"scale": scale})
    for model in (binary, mean_field.MeanField(4)):
        with pytest.raises(ValueError, match="--scale standardise is for real-valued data, and this model wants values in"):
            settings.check_scale(model, {"scale": "standardise"})


class Levels(mean_field.MeanField):
    data_kind = "levels"


def test_levels_are_scaled_by_255_or_not_at_all():
    for scale in (None, 255.0):
        settings.check_scale(Levels(4), {"scale": scale})
    for scale in (2.0, 256.0, "standardise"):
        with pytest.raises(ValueError, match=f"--scale {scale} is not for a model of the levels 0 to 255: leave it out for "
                           "uint8 data, or take 255 .* or a model of real values"):  # fmt: skip
            settings.check_scale(Levels(4), {"scale": scale})


class Conditional(mean_field.MeanField):
    takes_condition = True

    def __init__(self, n_features, n_condition, seed=0, first_logit=0.0):
        super().__init__(n_features, seed, first_logit)
        self.n_condition = n_condition


def test_a_conditional_model_is_made_with_the_width_of_its_condition():
    arguments = {**settings.defaults(mean_field.MeanField), "condition": "label"}
    assert settings.new_model(Conditional, arguments, 12, 10).n_condition == 10
    assert settings.new_model(mean_field.MeanField, arguments, 12, 10).n_features == 12

    class Forgetful(mean_field.MeanField):
        takes_condition = True

    with pytest.raises(ValueError, match=r"makes a model as Forgetful\(n_features=.*, n_condition="):
        settings.new_model(Forgetful, arguments, 12, 10)


def test_a_condition_is_for_a_model_that_takes_one():
    settings.check_condition(Conditional, {"condition": "label"})
    settings.check_condition(npvae.VAE, {"condition": None})
    with pytest.raises(ValueError, match=r"^Conditional is a model of x given a condition: say which, as in --condition label"):
        settings.check_condition(Conditional, {"condition": None})
    with pytest.raises(ValueError, match=r"^--condition half is for a model that takes a condition, and VAE takes none"):
        settings.check_condition(npvae.VAE, {"condition": "half"})


def test_the_model_without_a_name_is_a_vae_and_with_a_condition_a_conditional_one():
    assert settings.default_model(None) == "vae"
    assert settings.default_model("label") == settings.default_model("half") == "conditionalvae"


@pytest.mark.parametrize(("default", "words"), [(1 / 255, "0.003922"), (1.0, "1"), (1e-3, "0.001"), (3, "3"), ("relu", "relu"),
                                                ([32, 32], "32 32"), (True, "on"), (False, "off")])  # fmt: skip
def test_defaults_in_words(default, words):
    assert settings.in_words(default) == words
