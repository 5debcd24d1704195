"""Every model of `npvae.models` is what `npvae/models/protocol.py` asks for: attributes, signatures, and what they mean.

The models are found by `npvae.models.classes()`, so a new one is held to this as soon as it has its import line.
"""

import inspect
import json

import numpy as np
import pytest

import npvae
from npvae.checking import cases, run
from npvae.core.options import Option
from npvae.models.protocol import Example, Measure, Model
from npvae.models.saved import load

KINDS = npvae.models.classes()
EXAMPLES = {example.name: example for kind in KINDS.values() for example in kind.examples("numpy")}
WITH_DATA = {name: example for name, example in EXAMPLES.items() if example.batch}
FUSED = {name: example for name, example in EXAMPLES.items() if hasattr(example.model, "gradient")}
WANTED = set(Model.__annotations__) | {name for name in vars(Model) if not name.startswith("_")}
every_kind = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
every_example = pytest.mark.parametrize("example", EXAMPLES.values(), ids=EXAMPLES)


def noise_of(example, seed=0):
    return example.model.draw(np.random.default_rng(seed), *example.batch, **example.settings)


def flat(named):
    return np.concatenate([np.ravel(value) for value in named.values()])


def gradient(model, example, noise, **options):
    terms, cache = model.forward(*example.batch, noise, **example.settings)
    return terms, model.backward(cache, **options)


def parameters_of(function):
    return [p for name, p in inspect.signature(function).parameters.items() if name not in ("self", "cls")]


def names_of(function):
    return [p.name for p in parameters_of(function) if p.name != "model"]  # of a function that models share: their self


# ---- attributes and signatures ----


@every_kind
def test_a_model_has_everything_and_inherits_nothing(kind):
    model = next(iter(kind.examples("numpy"))).model
    assert not {name for name in WANTED if not hasattr(model, name)}
    assert kind.__mro__ == (kind, object)
    assert {"theta", "parameters", "config", "forward", "backward", "Terms"} <= WANTED


@every_kind
def test_signatures_are_those_of_the_protocol(kind):
    model, batch, settings = next(iter(kind.examples("numpy")))[1:]
    n = len(batch)
    arrays = names_of(kind.forward)[:n]
    assert [(p.name, p.default) for p in parameters_of(kind.backward)] == [
        ("cache", inspect.Parameter.empty), ("dloss", 1.0), ("out", None)]  # fmt: skip
    assert names_of(kind.draw)[: n + 1] == ["rng", *arrays]
    assert names_of(kind.check)[:n] == arrays
    assert set(settings) <= set(names_of(kind.forward)[n + 1 :])
    assert names_of(model.save) == names_of(kind.load) == ["path"]
    assert parameters_of(kind.copy)[-1].kind is inspect.Parameter.VAR_KEYWORD
    assert inspect.ismethod(kind.load)  # bound to the class
    assert inspect.ismethod(kind.examples)
    if hasattr(kind, "gradient"):
        assert names_of(kind.gradient)[: n + 1] == names_of(kind.forward)[: n + 1]
        assert {"dloss", "out", "workspace"} <= set(names_of(kind.gradient))
        assert set(names_of(kind.forward)) - set(names_of(kind.gradient)) <= {"check"}
    assert type(model) is kind


@every_kind
def test_terms_are_named_floats_with_the_loss_first(kind):
    assert kind.Terms._fields[0] == "loss"
    assert issubclass(kind.Terms, tuple)
    assert set(kind.terms_help) == set(kind.Terms._fields)
    example = next(iter(kind.examples("numpy")))
    assert isinstance(example.model.units, str)
    terms, _ = gradient(example.model, example, noise_of(example))
    assert type(terms) is kind.Terms
    assert [type(value) for value in terms] == [float] * len(terms)


@every_kind
def test_options_name_what_they_are_handed_to(kind):
    assert len({option.name for option in kind.options}) == len(kind.options)
    constructor, forward = names_of(kind.__init__), names_of(kind.forward)
    for option in kind.options:
        assert isinstance(option, Option)
        assert option.checked(option.default) == option.default
        if option.use == "model":
            assert option.argument in constructor
        elif option.use == "training":
            assert option.argument in forward
        else:
            assert option.use == "start"
            assert callable(getattr(kind, option.argument))
    settings = {option.argument: option.default for option in kind.options if option.use == "training"}
    if hasattr(kind, "check_settings"):
        kind.check_settings(**settings)
    else:
        assert not settings


# ---- examples ----


@pytest.mark.parametrize("backend", ["numpy", "numba"])
@every_kind
def test_examples_are_small_float64_models_with_their_data(kind, backend):
    examples = list(kind.examples(backend))
    assert examples
    assert len({example.name for example in examples}) == len(examples)
    for example in examples:
        assert isinstance(example, Example)
        assert example.name.startswith(f"{backend} {kind.__name__} ")
        assert (type(example.model), example.model.backend, example.model.dtype) == (kind, backend, np.float64)
        rows = {len(array) for array in example.batch}
        assert len(rows) <= 1
        assert all(n >= 2 and n % 2 == 0 for n in rows)
        checked = example.model.check(*example.batch)
        assert type(checked) is tuple
        for given, array in zip(example.batch, checked, strict=True):
            np.testing.assert_array_equal(array, given)
        if hasattr(kind, "check_settings"):
            kind.check_settings(**example.settings)


@pytest.mark.parametrize("example", WITH_DATA.values(), ids=WITH_DATA)
def test_what_is_no_batch_is_refused(example):
    model, (x, *others) = example.model, example.batch
    for wrong in (x[:, :-1], x[0], np.full_like(x, np.nan), x + 1j):
        with pytest.raises(ValueError, match="x must be"):
            model.check(wrong, *others)
    assert model.copy(dtype="float32").check(x, *others)[0].dtype == np.float32
    assert model.check(np.asfortranarray(x), *others)[0].flags.c_contiguous


# ---- parameters ----


@every_example
def test_parameters_are_views_of_theta_and_assignment_copies(example):
    model = example.model.copy()
    theta = model.theta
    assert (theta.ndim, theta.dtype) == (1, model.dtype)
    assert all(np.shares_memory(value, theta) for value in model.parameters.values())
    model.theta = np.arange(theta.size)
    assert model.theta is theta
    np.testing.assert_array_equal(flat(model.parameters), np.arange(theta.size))
    assert all(isinstance(value, np.ndarray) for value in model.buffers.values())


@every_example
def test_a_configuration_makes_the_same_architecture(example):
    model = example.model
    config = json.loads(json.dumps(model.config))
    assert config == model.config
    twin = type(model)(**config)
    assert {name: value.shape for name, value in twin.parameters.items()} == {
        name: value.shape for name, value in model.parameters.items()}  # fmt: skip
    assert (twin.dtype, twin.config) == (model.dtype, config)
    if hasattr(model, "shapes"):
        assert model.shapes(**config) == model.parameters.shapes


@every_example
def test_copies_have_the_dtype_and_memory_of_their_own(example):
    model, noise = type(example.model)(**example.model.config), noise_of(example)
    model.theta = example.model.theta + 0.1  # not what the seed gives
    before, (terms, _) = model.theta.copy(), gradient(model, example, noise)
    for dtype, tolerance in [("float64", 0), ("complex128", 1e-12), ("float32", 1e-4)]:
        twin = model.copy(dtype=dtype)
        assert (type(twin), twin.dtype, twin.theta.dtype) == (type(model), dtype, dtype)
        assert twin.config == {**model.config, "dtype": dtype}
        assert twin.buffers.keys() == model.buffers.keys()
        loss = twin.forward(*example.batch, noise, **example.settings)[0].loss
        assert np.abs(loss - terms.loss) <= tolerance * np.abs(terms).max()
        twin.theta[:] = 7
        np.testing.assert_array_equal(model.theta, before)


@every_kind
def test_what_is_saved_is_loaded(kind, tmp_path):
    example = next(iter(kind.examples("numpy")))
    model, noise = example.model.copy(dtype="float32"), noise_of(example)
    model.theta += 0.1  # not what the seed gives
    model.save(tmp_path / "model")
    for twin in (kind.load(tmp_path / "model"), load(tmp_path / "model")):
        assert (type(twin), twin.config) == (kind, model.config)
        np.testing.assert_array_equal(twin.theta, model.theta)
        assert gradient(twin, example, noise)[0] == gradient(model, example, noise)[0]


# ---- forward, backward and noise ----


@every_example
def test_noise_is_a_function_of_the_generator_and_has_the_rows_where_they_belong(example):
    noise, same, other = (noise_of(example, seed) for seed in (0, 0, 1))
    n_rows, arrays = run.n_rows(example.batch, noise), []
    run.of_arrays(arrays.append, noise)
    copies, others = [], []
    run.of_arrays(copies.append, same)
    run.of_arrays(others.append, other)
    for array, copied, changed in zip(arrays, copies, others, strict=True):
        assert array.shape[0 if array.ndim == 1 else -2] == n_rows
        np.testing.assert_array_equal(array, copied)
        is_start = any(np.array_equal(array, buffer) for buffer in example.model.buffers.values())  # of chains, not random
        assert is_start or not np.array_equal(array, changed)
    assert (noise is None) == (not arrays)


@every_example
def test_the_gradient_is_a_dict_of_the_parameters_and_views_of_out(example):
    model, noise = example.model, noise_of(example)
    terms, grads = gradient(model, example, noise)
    assert list(grads) == list(model.parameters)
    assert all(grads[name].shape == value.shape for name, value in model.parameters.items())
    out = np.full_like(model.theta, np.nan)
    again, into = gradient(model, example, noise, dloss=-0.25, out=out)
    assert again == terms
    np.testing.assert_array_equal(flat(into), out)
    assert all(np.shares_memory(value, out) for value in into.values())
    np.testing.assert_allclose(out, -0.25 * flat(grads), rtol=1e-12, atol=1e-14 * np.abs(flat(grads)).max())


@every_example
def test_shards_with_their_weights_add_up_to_the_batch(example):
    """Unequal shards, the gradient's weight as dloss; a loss that couples rows joins them between the two passes."""
    model, batch, settings, noise = example.model, example.batch, example.settings, noise_of(example)
    n = run.n_rows(batch, noise)
    whole, grads = gradient(model, example, noise)
    shards = [range(1), range(1, n)]
    forwards = [model.forward(*rows(batch, part), rows(noise, part), **settings) for part in shards]
    weights = [len(part) / n for part in shards]
    terms, caches = zip(*forwards)
    if hasattr(model, "couples_rows") and model.couples_rows(**settings):
        joined, caches = model.join(terms, caches, weights)
    else:
        joined = np.dot(weights, terms)
    np.testing.assert_allclose(joined, whole, rtol=1e-11, atol=1e-12)
    total = sum(flat(model.backward(cache, dloss=weight)) for cache, weight in zip(caches, weights))
    assert np.abs(total - flat(grads)).max() <= 1e-12 * np.abs(flat(grads)).max()


def rows(value, part):
    """Rows `part` of a batch or of noise."""
    return run.of_arrays(lambda a: a[part.start : part.stop] if a.ndim == 1 else a[..., part.start : part.stop, :], value)


@pytest.mark.parametrize("example", FUSED.values(), ids=FUSED)
def test_gradient_in_one_call_is_forward_then_backward(example):
    model, noise = example.model, noise_of(example)
    out = np.full_like(model.theta, np.nan)
    terms, grads = gradient(model, example, noise, dloss=0.3)
    fused, bound = model.gradient(*example.batch, noise, **example.settings, dloss=0.3, out=out)
    np.testing.assert_allclose(fused, terms, rtol=1e-12)
    np.testing.assert_allclose(out, flat(grads), rtol=0, atol=1e-13 * np.abs(flat(grads)).max())
    assert np.max(out * out) <= bound < np.inf


@every_kind
def test_validation_settings_are_settings(kind):
    if hasattr(kind, "validation_settings"):
        for example in kind.examples("numpy"):
            settings = kind.validation_settings(**example.settings)
            kind.check_settings(**settings)
            noise = example.model.draw(np.random.default_rng(0), *example.batch, **settings)
            assert np.isfinite(example.model.forward(*example.batch, noise, **settings)[0].loss)
            assert not (hasattr(kind, "couples_rows") and kind.couples_rows(**settings))


@every_kind
def test_measures_are_what_json_can_hold(kind):
    example = next(iter(kind.examples("numpy")))
    if hasattr(kind, "measure"):
        found = list(example.model.measure(*example.batch, n_samples=3, seed=0, progress=False))
        assert all(isinstance(measure, Measure) for measure in found)
        assert len({measure.name for measure in found}) == len(found) > 0
        json.dumps([measure.value for measure in found], allow_nan=False)


@every_kind
def test_each_example_becomes_two_cases(kind):
    example = next(iter(kind.examples("numpy")))
    fresh, trained = cases.cases_of(example)
    assert (fresh.name, trained.name) == (f"{example.name}, fresh", f"{example.name}, after {cases.TRAINED} steps")
    halves = [[len(array) // 2 for array in example.batch]] * 2
    assert [[len(array) for array in batch] for batch in (fresh.batch, fresh.others)] == halves
