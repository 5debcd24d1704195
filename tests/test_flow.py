"""The normalizing flow: gradient, inverse, log-determinant, and the density as a density."""

import math
import runpy
from pathlib import Path

import naive
import numpy as np
import pytest
from scipy.stats import kstest, multivariate_normal, norm

import npvae
from npvae import data
from npvae.app import plots
from npvae.data import toy
from npvae.models.flow import Flow, split_columns
from npvae.training.optim import initial_state

ACTIVATIONS = ("relu", "tanh", "sigmoid", "softplus", "silu")
DIMENSIONS = (2, 3, 5, 7)

backends = pytest.mark.parametrize("backend", ["numpy", "numba"])
dimensions = pytest.mark.parametrize("D", DIMENSIONS)


def problem(D=3, n_layers=5, hidden=(6, 4), activation="tanh", backend="numpy", dtype="float64", B=4, **options):
    """A small flow with generic parameters, and a batch."""
    rng = np.random.default_rng(1)
    model = Flow(D, n_layers, hidden, activation, backend, dtype, seed=2, **options)
    model.theta += 0.4 * rng.standard_normal(model.theta.size)
    return model, rng.standard_normal((B, D))


def flat(grads):
    return np.concatenate([value.ravel() for value in grads.values()])


def complex_step_gradient(model, x):
    """d loss/d theta, one parameter after the other: Im loss(theta + ih e_k)/h with h = 1e-20."""
    twin = model.copy(dtype="complex128", backend="numpy")
    gradient = np.empty(model.theta.size)
    for k in range(gradient.size):
        twin.theta[k] += 1e-20j
        gradient[k] = twin.forward(x)[0].loss.imag / 1e-20
        twin.theta[k] = model.theta[k]
    return gradient


# ---- the gradient ----


CASES = [
    *({"D": D} for D in DIMENSIONS),
    *({"activation": a} for a in ACTIVATIONS),
    *({"hidden": h} for h in [(), (5,), (4, 3, 4)]),
    *({"n_layers": n} for n in (1, 2)),
    {"B": 1},
    {"max_scale": 0.3},
]


@pytest.mark.parametrize("changes", CASES, ids=str)
def test_gradient_of_the_model_is_that_of_the_complex_step(changes):
    expected = complex_step_gradient(*problem(**changes))
    for backend in ("numpy", "numba"):
        model, x = problem(backend=backend, **changes)
        grads = model.backward(model.forward(x)[1])
        assert list(grads) == list(model.parameters)
        assert np.abs(flat(grads) - expected).max() <= 1e-12 * np.abs(expected).max(), backend


def test_gradient_is_that_of_central_differences():
    """A second derivative that shares nothing with the first."""
    model, x = problem()
    twin = model.copy()

    def loss(theta):
        twin.theta = theta
        return twin.forward(x)[0].loss

    expected = naive.central_difference_grad(loss, model.theta)
    naive.assert_close(flat(model.backward(model.forward(x)[1])), expected, tolerance=1e-7)


@backends
def test_gradient_of_a_new_model(backend):
    """The last layer of each conditioner is zero: those before it have no gradient yet, it has one itself."""
    model = Flow(3, 4, (6, 4), backend=backend, dtype="float64")
    x = np.random.default_rng(0).standard_normal((4, 3))
    grads = model.backward(model.forward(x)[1])
    expected = complex_step_gradient(model, x)
    assert np.abs(flat(grads) - expected).max() <= 1e-12 * np.abs(expected).max()
    assert grads["coupling.0.2.W"].all()
    assert not grads["coupling.0.1.W"].any()


def test_upstream_gradient_and_out():
    model, x = problem()
    cache = model.forward(x)[1]
    grads, out = model.backward(cache), np.full(model.theta.size, np.nan)
    scaled = model.backward(cache, dloss=0.25, out=out)
    naive.assert_close(out, 0.25 * flat(grads), tolerance=1e-14)
    assert all(np.shares_memory(view, out) for view in scaled.values())
    assert {name: g.shape for name, g in scaled.items()} == {name: p.shape for name, p in model.parameters.items()}


def test_weighted_shards_add_up_to_the_batch():
    model, x = problem(B=7)
    whole = flat(model.backward(model.forward(x)[1]))
    shares = [flat(model.backward(model.forward(part)[1], dloss=len(part) / 7)) for part in (x[:3], x[3:])]
    naive.assert_close(sum(shares), whole, tolerance=1e-13)


def test_backward_is_pure():
    model, x = problem()
    terms, cache = model.forward(x)
    theta, grads = model.theta.copy(), flat(model.backward(cache))
    naive.freeze(cache.transform)
    naive.freeze(cache.base)
    model.sample(3, 0), model.transform(x), model.jacobian(x)
    np.testing.assert_array_equal(flat(model.backward(cache)), grads)
    np.testing.assert_array_equal(model.theta, theta)
    assert model.forward(x)[0] == terms


# ---- inverse and log-determinant ----


@backends
@dimensions
def test_the_inverse_undoes_the_transform(D, backend):
    model, x = problem(D, n_layers=8, backend=backend, B=50)
    z, _ = model.transform(x)
    assert np.abs(z - x).max() > 1
    assert np.abs(model.inverse(z) - x).max() <= 1e-12 * np.abs(x).max()
    z = np.random.default_rng(3).standard_normal((50, D))
    assert np.abs(model.encode(model.decode(z)) - z).max() <= 1e-12 * np.abs(z).max()


def complex_jacobian(model, x):
    """∂z/∂x of one datum (D,), by the complex step through the ops."""
    columns = []
    for d in range(model.n_features):
        stepped = x[None].astype(complex)
        stepped[0, d] += 1e-20j
        columns.append(model.transform_forward(stepped)[0][0].imag[0] / 1e-20)
    return np.stack(columns, axis=1)


@dimensions
def test_the_log_determinant_is_that_of_the_numerical_jacobian(D):
    model, x = problem(D, n_layers=8, B=6)
    _, log_det = model.transform(x)
    signs, expected = np.linalg.slogdet([complex_jacobian(model, row) for row in x])
    assert (signs == 1).all()
    assert np.abs(log_det - expected).max() <= 1e-11
    assert np.abs(log_det).max() > 1


@backends
@dimensions
def test_the_jacobian_is_the_numerical_one(D, backend):
    model, x = problem(D, backend=backend)
    naive.assert_close(model.jacobian(x), [complex_jacobian(model, row) for row in x], tolerance=1e-12)


# ---- the density ----


def test_a_new_flow_is_the_standard_normal_density():
    model = Flow(3, dtype="float64")
    x = np.random.default_rng(0).standard_normal((5, 3))
    np.testing.assert_array_equal(model.encode(x), x)
    naive.assert_close(model.log_likelihood(x), multivariate_normal(np.zeros(3)).logpdf(x))


def test_a_standardized_flow_is_the_normal_density_of_the_data():
    """On rows of very different units, as tables have them."""
    x = np.random.default_rng(0).standard_normal((500, 3)) * [1e-3, 1, 1e5] + [7, -2, 3e5]
    model = Flow(3, dtype="float64")
    model.standardize(x)
    expected = norm(x.mean(axis=0), x.std(axis=0)).logpdf(x).sum(axis=1)
    naive.assert_close(model.log_likelihood(x), expected, tolerance=1e-12)
    assert model.forward(x)[0].loss == pytest.approx(-expected.mean(), rel=1e-12)


def test_the_loss_is_the_mean_of_minus_log_p():
    model, x = problem(B=9)
    terms, _ = model.forward(x)
    z, log_det = model.transform(x)
    assert terms.loss == pytest.approx(-model.log_likelihood(x).mean(), rel=1e-14)
    assert terms.base == pytest.approx(-multivariate_normal(np.zeros(3)).logpdf(z).mean(), rel=1e-13)
    assert terms.log_det == pytest.approx(log_det.mean(), rel=1e-13)
    assert terms.loss == pytest.approx(terms.base - terms.log_det, rel=1e-14)


@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_the_density_integrates_to_1(activation):
    """On the grid x = sinh(t), which reaches far into the tails."""
    model, _ = problem(2, n_layers=4, activation=activation, max_scale=1.0)
    line = np.linspace(-6, 6, 601)
    t = np.stack(np.meshgrid(line, line), axis=-1).reshape(-1, 2)
    p = np.exp(model.log_likelihood(np.sinh(t))) * np.cosh(t).prod(axis=1)
    assert p.sum() * (line[1] - line[0]) ** 2 == pytest.approx(1, abs=1e-6 if activation == "tanh" else 1e-3)


def test_samples_are_of_the_density():
    """Each coordinate of encode(sample) is standard normal, and a histogram of samples is what the density says."""
    model, _ = problem(2, n_layers=4, max_scale=1.0)
    n = 40_000
    x = model.sample(n, 5)
    z = model.encode(x)
    assert all(kstest(column, "norm").pvalue > 1e-4 for column in z.T)
    edges = np.linspace(-4, 4, 21)
    line = edges[0] + (np.arange(160) + 0.5) * 0.05  # 8 × 8 points in each bin
    points = np.stack(np.meshgrid(line, line, indexing="ij"), axis=-1).reshape(-1, 2)
    expected = n * np.exp(model.log_likelihood(points)).reshape(20, 8, 20, 8).sum(axis=(1, 3)) * 0.05**2
    observed, _, _ = np.histogram2d(*x.T, bins=(edges, edges))
    many = expected > 10
    assert many.sum() > 30
    pearson = (observed[many] - expected[many]) / np.sqrt(expected[many])
    assert np.abs(pearson).max() < 5
    assert abs((pearson**2).mean() - 1) < 6 * math.sqrt(2 / many.sum())


def test_the_mean_of_log_p_over_samples_is_minus_the_entropy():
    """By the change of variables, H(x) = H(z) − E[log_det]: both sides by Monte Carlo with the same samples."""
    model, _ = problem(3)
    z = np.random.default_rng(6).standard_normal((20_000, 3))
    x = model.inverse(z)
    _, log_det = model.transform(x)
    difference = -model.log_likelihood(x) + log_det
    assert difference.mean() == pytest.approx(1.5 * (1 + math.log(2 * math.pi)), abs=5 * difference.std() / math.sqrt(len(z)))


@backends
def test_training_reaches_the_entropy_of_the_banana(backend):
    """Two coupling layers can express it: 500 steps of gradient descent come within 0.03 nats."""
    x = toy.sample("banana", 5000, 1)
    model = Flow(2, 2, (16,), backend=backend, dtype="float64")
    model.standardize(x)
    optimizer = npvae.Adam(npvae.schedules.Cosine(2e-2, 500))
    state = initial_state(optimizer, model.theta)
    for step in range(500):
        batch = x[step * 100 % 5000 :][:100]
        optimizer.step(model.theta, flat(model.backward(model.forward(batch)[1])), state)
    test = toy.sample("banana", 5000, 2)
    excess = (toy.log_density("banana", test) - model.log_likelihood(test)).mean()
    assert -0.001 < excess < 0.03


# ---- columns ----


def test_two_columns_alternate():
    assert [tuple(map(list, split_columns(2, i))) for i in range(3)] == [([0], [1]), ([1], [0]), ([0], [1])]


@pytest.mark.parametrize("D", [2, 3, 4, 5, 7, 8, 9])
def test_every_column_is_moved_and_any_two_are_separated(D):
    layers = [split_columns(D, i) for i in range(2 * (D - 1).bit_length())]
    for kept, moved in layers:
        assert sorted([*kept, *moved]) == list(range(D))
        assert min(len(kept), len(moved)) >= 1
    assert {int(column) for _, moved in layers for column in moved} == set(range(D))
    separated = {(int(a), int(b)) for kept, moved in layers for a in kept for b in moved}
    assert separated == {(a, b) for a in range(D) for b in range(D) if a != b}


# ---- the contract of a model ----


def test_names_and_shapes():
    model = Flow(5, 2, (6,))
    assert {name: value.shape for name, value in model.parameters.items()} == {
        "shift": (5,), "scale.log": (5,), "coupling.0.0.W": (3, 6), "coupling.0.0.b": (6,), "coupling.0.1.W": (6, 4),
        "coupling.0.1.b": (4,), "coupling.1.0.W": (2, 6), "coupling.1.0.b": (6,), "coupling.1.1.W": (6, 6),
        "coupling.1.1.b": (6,),
    }  # fmt: skip
    assert model.theta.dtype == np.float32
    assert model.buffers == {}


def test_there_is_no_noise():
    model, x = problem()
    rng = np.random.default_rng(0)
    assert model.draw(rng, x) is None
    assert rng.random() == np.random.default_rng(0).random()  # and nothing was drawn
    assert model.forward(x, model.draw(rng, x))[0] == model.forward(x)[0]


@backends
def test_float32_is_the_float64_model_rounded(backend):
    model, x = problem(backend=backend, B=20)
    single = model.copy(dtype="float32")
    np.testing.assert_allclose(single.log_likelihood(x), model.log_likelihood(x), rtol=2e-5, atol=2e-5)
    np.testing.assert_allclose(single.inverse(single.encode(x)), x, atol=1e-4)
    grads = model.backward(model.forward(x)[1])
    for name, grad in single.backward(single.forward(x)[1]).items():
        assert grad.dtype == np.float32
        np.testing.assert_allclose(grad, grads[name], atol=1e-4 * np.abs(flat(grads)).max())


def test_the_back_ends_agree():
    model, x = problem(B=20)
    twin = model.copy(backend="numba")
    naive.assert_close(twin.log_likelihood(x), model.log_likelihood(x), tolerance=1e-12)
    naive.assert_close(flat(twin.backward(twin.forward(x)[1])), flat(model.backward(model.forward(x)[1])), tolerance=1e-12)


def test_save_load_copy(tmp_path):
    model, x = problem()
    model.save(tmp_path / "flow.npz")
    for twin in (Flow.load(tmp_path / "flow.npz"), model.copy(), Flow(**model.config)):
        assert twin.config == model.config
        twin.theta = model.theta
        np.testing.assert_array_equal(twin.log_likelihood(x), model.log_likelihood(x))
    np.testing.assert_array_equal(Flow.load(tmp_path / "flow.npz").theta, model.theta)


def test_rows_are_transformed_in_passes(monkeypatch):
    model, x = problem(B=11)
    whole = model.transform(x), model.inverse(x)
    monkeypatch.setattr("npvae.models.flow.ROWS_PER_PASS", 4)
    (z, log_det), inverse = model.transform(x), model.inverse(x)
    naive.assert_close(z, whole[0][0])
    naive.assert_close(log_det, whole[0][1])
    naive.assert_close(inverse, whole[1])


def test_samples_are_a_pure_function_of_the_seed():
    model, _ = problem()
    first, again = model.sample(4, 7), model.sample(4, np.random.default_rng(7))
    assert first.shape == (4, 3)
    np.testing.assert_array_equal(first, again)


@pytest.mark.parametrize(("arguments", "message"), [
    ({"n_features": 1}, "n_features must be an integer of at least 2; got 1"),
    ({"n_layers": 0}, "n_layers must be an integer of at least 1"),
    ({"hidden": (4, 0)}, "hidden must be an integer of at least 1"),
    ({"max_scale": 0.0}, "max_scale must be a finite number above 0"),
    ({"activation": "identity"}, "activation must be one of relu"),
    ({"backend": "torch"}, "backend must be one of numba, numpy"),
    ({"dtype": "float16"}, "dtype must be one of float32"),
    ({"initialization": "zero"}, "initialization must be one of glorot"),
])  # fmt: skip
def test_a_flow_that_cannot_be_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Flow(**{"n_features": 3, **arguments})


@pytest.mark.parametrize("method", ["forward", "transform", "encode", "log_likelihood", "jacobian", "inverse"])
@pytest.mark.parametrize(("bad", "message"), [
    (np.ones((3, 4)), r"must be a real array of shape \(n, 3\); got shape \(3, 4\)"),
    (np.full((2, 3), np.nan), "must be finite"),
    (np.ones((2, 3), complex), "got dtype complex128"),
])  # fmt: skip
def test_rows_that_cannot_be_are_refused(method, bad, message):
    model, _ = problem()
    with pytest.raises(ValueError, match=message):
        getattr(model, method)(bad)


def test_a_constant_column_cannot_be_standardized():
    with pytest.raises(ValueError, match=r"x must vary in every column; column 1 is 2.0 in all rows"):
        Flow(2).standardize(np.array([[1.0, 2.0], [0.0, 2.0]]))


# ---- what commands and checks use ----


def test_measures():
    model, x = problem(B=30)
    measures = {measure.name: measure for measure in model.measure(x)}
    log_p = model.log_likelihood(x)
    assert measures["log_likelihood"].value == pytest.approx(log_p.mean(), rel=1e-14)
    assert measures["log_likelihood_standard_error"].value == pytest.approx(log_p.std() / math.sqrt(30), rel=1e-14)
    assert measures["bits_per_dimension"].value == pytest.approx(-log_p.mean() / (3 * math.log(2)), rel=1e-14)
    assert "density" in measures["bits_per_dimension"].note
    assert "bits_per_grey_level" not in measures
    grey = np.random.default_rng(0).integers(0, 256, (30, 3), np.uint8)
    npvae.fit(model, grey, epochs=1, progress=False)
    measures = {measure.name: measure.value for measure in model.measure(grey)}
    assert measures["bits_per_grey_level"] == pytest.approx(measures["bits_per_dimension"] + math.log2(255), rel=1e-12)


@pytest.mark.parametrize(("D", "names"), [(2, ["samples.png", "density.png"]), (3, ["samples.png"])])
def test_pictures(D, names):
    model, x = problem(D, B=20)
    pictures = list(model.pictures(plots, x, data.Dataset("", x, x, None, "label", None)))
    assert [name for name, _, _ in pictures] == names
    for _, _, figure in pictures:
        figure().canvas.draw()


def test_pictures_of_draws_are_in_the_units_of_the_data(monkeypatch):
    model, x = problem(3)
    drawn = []
    monkeypatch.setattr(plots, "samples", lambda x, *_: drawn.append(x))
    scaling = data.Scaling(np.array([1.0, 2.0, 3.0]), np.array([10.0, 20.0, 30.0]))
    for each in (None, scaling):
        for _, _, figure in model.pictures(plots, x, data.Dataset("", x, x, None, "label", None, each)):
            figure()
    np.testing.assert_allclose(drawn[1], [1, 2, 3] + drawn[0] * [10, 20, 30])


def test_the_picture_shows_the_density_where_it_is():
    """A flow that scales and shifts: its largest density is at the shift."""
    model = Flow(2, 1, dtype="float64")
    model.parameters["shift"], model.parameters["scale.log"] = [1.0, -2.0], np.log([0.5, 0.5])
    figure = plots.density(model, model.sample(100, 0), limits=(-4, 4), n=80)
    image = figure.axes[1].images[0]
    row, column = np.unravel_index(np.argmax(image.get_array()), (80, 80))
    left, right, bottom, top = image.get_extent()
    assert left + (column + 0.5) / 80 * (right - left) == pytest.approx(1, abs=0.1)
    assert bottom + (row + 0.5) / 80 * (top - bottom) == pytest.approx(-2, abs=0.1)
    assert image.origin == "lower"


@backends
def test_examples_have_a_gradient_of_every_parameter(backend):
    examples = list(Flow.examples(backend))
    assert len({example.name for example in examples}) == len(examples)
    assert {example.model.activation for example in examples} == set(ACTIVATIONS)
    for _, model, batch, settings in examples:
        assert model.dtype == np.float64
        assert len(batch[0]) % 2 == 0
        assert all(g.any() for g in model.backward(model.forward(*batch, **settings)[1]).values())


def test_options_build_the_default_flow():
    arguments = {option.argument: option.default for option in Flow.options if option.use == "model"}
    assert Flow(2, **arguments).config == Flow(2).config
    assert all(option.checked(option.default) == option.default for option in Flow.options)
    assert all(hasattr(Flow, option.argument) for option in Flow.options if option.use == "start")


def test_start_of_the_conditioners():
    """The middles of the first layer's units are spread over the data, in every layer differently."""
    model = Flow(2, 2, (500,), dtype="float64")
    middles = [-model.parameters[f"coupling.{i}.0.b"] / model.parameters[f"coupling.{i}.0.W"][0] for i in range(2)]
    assert all(kstest(m, norm(0, 1.5).cdf).pvalue > 1e-3 for m in middles)
    assert model.parameters["coupling.0.0.W"].std() == pytest.approx(3, rel=0.1)
    assert (middles[0] != middles[1]).all()
    assert Flow(4, 1, (500,)).parameters["coupling.0.0.W"].std() == pytest.approx(3 / math.sqrt(2), rel=0.1)
    assert (Flow(2, seed=1).theta != Flow(2, seed=2).theta).any()


# ---- the examples' mathematics ----


EXAMPLES = Path(__file__).parent.parent / "examples"


def test_the_vae_of_the_banana_tends_to_the_flow_as_worked_out_by_hand():
    example = runpy.run_path(str(EXAMPLES / "flow_as_limit.py"))
    banana, s = example["Banana"](), example["S"]
    x = toy.sample("banana", 20, 0)
    z, log_det = banana.transform(x)
    np.testing.assert_allclose(banana.inverse(z), x, rtol=1e-14, atol=1e-14)
    np.testing.assert_allclose(log_det + norm.logpdf(z).sum(axis=1), banana.log_likelihood(x), rtol=1e-12)
    np.testing.assert_allclose(np.linalg.slogdet(banana.jacobian(x))[1], log_det, rtol=1e-14)
    mean, single = example["measured"](banana, x, "J Jᵀ")
    np.testing.assert_allclose(mean[s >= 1e-3], banana.coefficient * s[s >= 1e-3] ** 2, rtol=1e-6)
    assert example["order"](mean) == pytest.approx(2, abs=1e-3)
    assert example["order"](single) == pytest.approx(1, abs=1e-3)
    for decoder in ("I", "|det J|^(2/D) I"):  # these do not tend to the flow: a divergence remains
        mean, _ = example["measured"](banana, x, decoder)
        gap = example["gaussian_kl"](banana, x, decoder)
        assert mean[-1] == pytest.approx(np.median(gap), rel=1e-5)
        assert (gap > 0).all()


def test_the_entropy_of_the_gases_is_the_mean_of_minus_their_log_density():
    example = runpy.run_path(str(EXAMPLES / "flow.py"))
    log_p = example["log_density_of_gases"](example["sample_gases"](50_000, np.random.default_rng(1)))
    assert abs(log_p.mean() + example["entropy_of_gases"]()) < 4.5 * log_p.std() / math.sqrt(50_000)
