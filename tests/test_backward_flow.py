"""The picture of backpropagation: the numbers that it shows are those of the pass, and no two texts overlap."""

import cProfile
import runpy
import sys
from itertools import combinations, pairwise
from pathlib import Path

import mean_field
import numpy as np
import pytest
from matplotlib.patches import FancyBboxPatch
from small_models import Regression, Well, regression_rows

import npvae
from npvae.app import op_graph, plots
from npvae.app.backward_flow import rms, size_of
from npvae.app.op_graph import producer_of
from npvae.app.recording import Call, Tensor, op_of, record

LogisticPCA = runpy.run_path(str(Path(__file__).parents[1] / "examples" / "logistic_pca.py"))["LogisticPCA"]
# Not of a drift, whose path is one op of many steps, and not of a game, whose losses read one network several times.
KINDS = [kind for name, kind in npvae.models.classes().items() if name not in ("Drift", "GAN")]
EXAMPLES = {example.name: example for kind in KINDS for example in kind.examples("numpy")}
X = (np.random.default_rng(0).random((20, 12)) < 0.4).astype(float)
VAE = npvae.VAE(12, 2, (6, 5), "tanh", dtype="float64", backend="numpy", seed=1)
ROWS = np.random.default_rng(1).standard_normal((20, 3))
FLOW = npvae.models.Flow(3, 6, (4,), backend="numpy", seed=1)
GREY = np.random.default_rng(2).integers(0, 256, (20, 784)) / 255


def diffusion(x, **config):
    return plots.backward_flow(npvae.models.Diffusion(x.shape[1], backend="numpy", **config), x)


PICTURES = {
    "VAE": lambda: plots.backward_flow(VAE, X),
    "VAE, wide": lambda: plots.backward_flow(npvae.VAE(784, 20, (400,)), np.zeros((128, 784))),
    "VAE, linear, importance-weighted": lambda: plots.backward_flow(npvae.VAE(12, 2, ()), X, objective="iwae", n_samples=3),
    "autoencoder": lambda: plots.backward_flow(npvae.models.Autoencoder(12, 2, (6,)), X),
    "flow": lambda: plots.backward_flow(FLOW, ROWS),
    "flow, deep conditioners": lambda: plots.backward_flow(npvae.models.Flow(3, 4, (8, 8, 8, 8)), ROWS),
    "diffusion": lambda: diffusion(ROWS),
    "diffusion, learned schedule": lambda: diffusion(ROWS, schedule="learned"),
    "diffusion, mixture": lambda: diffusion(GREY, predicts="mixture", likelihood="levels", hidden=(64,)),
    "own, of a pair": lambda: plots.backward_flow(LogisticPCA(12), X),
    "own, two inputs": lambda: plots.backward_flow(Regression(4), regression_rows(8)),
    "own, no input": lambda: plots.backward_flow(Well(), ()),
    "own, integers": lambda: plots.backward_flow(mean_field.MeanField(12), X),
}


def texts_of(figure):
    return [text.get_text() for text in figure.axes[0].texts]


def shown_beside(figure, label, lane=0):
    """The number on the colour to the right of a text that starts with a label, as text."""
    starts = [text for text in figure.axes[0].texts if text.get_text().startswith(label)]
    x, y = sorted(text.get_position() for text in starts)[lane]
    coloured = [(*text.get_position(), text.get_text()) for text in figure.axes[0].texts if text.get_bbox_patch()]
    return min((left, number) for left, height, number in coloured if left > x and abs(height - y) < 1e-9)[1]


# ---- the record of a pass ----


@pytest.mark.parametrize("example", EXAMPLES.values(), ids=EXAMPLES)
def test_gradients_of_every_model_s_ops_fit_together(example):
    """What arrives at an op's output is the sum of what its readers return; each parameter is read by one op, or by one of each
    phase. Gradients arrive at the outputs of all ops that have parameters, or read what such ops return."""
    model, batch, settings = example.model, example.batch, example.settings
    recorded = record(model, batch, **settings)
    noise = model.draw(np.random.default_rng(0), *batch, **settings)
    terms, cache = model.forward(*batch, noise, **settings)
    assert recorded.loss == terms[0]
    for name, gradient in model.backward(cache).items():
        np.testing.assert_array_equal(recorded.gradients[name], gradient)
    read = [name for op in recorded.ops for name in op.parameters]
    assert sorted(set(read)) == sorted(model.parameters)
    returned, learned = {}, {}  # id of an output -> what its readers return; id -> op that learning changes
    for i, op in enumerate(recorded.ops):
        sources = [(producer_of(tensor, recorded.ops[:i]), tensor.gradient) for tensor in op.inputs]
        if op.parameters or any(id(source) in learned for (source, _), _ in sources):
            learned[id(op)] = op
        for (source, out), gradient in sources:
            if id(source) in learned:
                returned.setdefault(id(out), []).append(np.reshape(gradient, out.value.shape))
    arriving = {id(out): out.gradient for op in recorded.ops for out in op.outputs}
    assert len(returned) >= len(learned) - 1
    for key, parts in returned.items():
        np.testing.assert_allclose(sum(parts), arriving[key], rtol=1e-12)
    assert all(out.gradient.shape == out.value.shape for op in learned.values() for out in op.outputs)
    if not isinstance(model, npvae.models.Diffusion):  # which has a schedule and noisy data that nothing changes
        assert len(learned) == len(recorded.ops)


def test_ops_of_a_vae_are_its_layers_and_the_pairs_between_them():
    recorded = record(VAE, X)
    assert [op.name for op in recorded.ops] == ["dense", "dense", "dense", "posterior", "reparameterize", "gaussian_kl",
                                                "dense", "dense", "dense", "bernoulli_nll", "elbo"]  # fmt: skip
    assert [op.note for op in recorded.ops[:3]] == ["tanh", "tanh", ""]
    posterior = recorded.ops[3]
    assert [tensor.name for tensor in posterior.outputs] == ["mu", "logvar"]
    assert [tensor.name for tensor in recorded.given] == ["x", "eps"]
    mu, _ = VAE.encode(X)
    np.testing.assert_array_equal(posterior.outputs[0].value, mu)


def test_the_pass_runs_in_float64_on_the_numpy_back_end_and_the_model_stays_as_it_is():
    model = npvae.VAE(12, 2, (6,), seed=3)
    assert (model.backend, model.dtype) == ("numba", "float32")
    theta, attributes = model.theta.copy(), dict(vars(model))
    recorded = record(model, X)
    np.testing.assert_array_equal(model.theta, theta)
    assert vars(model) == attributes
    assert recorded.ops[0].outputs[0].value.dtype == np.float64
    assert not np.shares_memory(recorded.parameters["posterior.W"], model.theta)


def test_gradients_go_to_the_inputs_in_order_past_those_that_have_none():
    """Of a(x, W, y) with a backward that leaves out dx, and whose cache has the shape of the second output."""
    x, W, y, cache = np.ones((2, 3)), np.ones((3, 2)), np.ones((2, 2)), np.ones((2, 2))
    forward = Call("a", {"x": x, "W": W, "y": y}, ((np.ones((2, 2)), np.ones((2, 2))), cache))
    backward = Call("a", {"dout": 2 * y, "cache": cache}, (None, 3 * W, 4 * y))
    op = op_of(forward, backward, {"W": W})
    assert [(tensor.name, tensor.gradient is None) for tensor in op.inputs] == [("x", True), ("y", False)]
    np.testing.assert_array_equal(op.inputs[1].gradient, 4 * y)
    assert [(tensor.name, tensor.gradient is None) for tensor in op.outputs] == [("out", False), ("a", True)]


def test_noise_and_settings_are_the_caller_s():
    eps = np.full((20, 2), 0.25)
    terms, cache = VAE.forward(X, eps, beta=3.0)
    recorded = record(VAE, X, eps, beta=3.0)
    assert recorded.loss == terms.loss
    np.testing.assert_array_equal(recorded.gradients["posterior.W"], VAE.backward(cache)["posterior.W"])


def test_a_profiler_of_the_caller_goes_on_also_after_an_error():
    def hook(*_):
        pass

    def error():
        with pytest.raises(TypeError, match="no_such_setting"):
            record(VAE, X, np.zeros((20, 2)), no_such_setting=1)

    before = sys.getprofile()
    sys.setprofile(hook)
    try:
        record(VAE, X)
        error()
        after = sys.getprofile()
    finally:
        sys.setprofile(before)
    assert after is hook
    with cProfile.Profile() as profiler:  # is no function that could be handed back
        record(VAE, X)
    assert "record" in {entry.code.co_name for entry in profiler.getstats() if not isinstance(entry.code, str)}


@pytest.mark.parametrize(
    ("x", "noise", "message"),
    [
        (X[:, :5], None, r"^x must be a real array of shape \(n, 12\); got shape \(20, 5\)$"),
        (X + 1, None, r"^x must .*\[0, 1\]"),
        (X, np.zeros((19, 2)), r"^eps must have one row for each of the 20 rows of x; got shape \(19, 2\)$"),
    ],
)
def test_what_the_model_cannot_use_is_one_clear_line(x, noise, message):
    with pytest.raises(ValueError, match=message) as error:
        plots.backward_flow(VAE, x, noise)
    assert "\n" not in str(error.value)


# ---- the picture ----


@pytest.mark.parametrize("name", PICTURES)
def test_no_two_texts_overlap_and_none_leaves_the_picture(name):
    make = PICTURES[name]
    with plots.own_settings():
        figure = make()
        figure.canvas.draw()
        boxes = [(text.get_text(), text.get_window_extent()) for text in figure.axes[0].texts if text.get_text()]
        width, height = figure.get_size_inches() * figure.dpi
    for text, box in boxes:
        assert 0 <= box.x0 < box.x1 <= width, text
        assert 0 <= box.y0 < box.y1 <= height, text
    assert [(a, b) for (a, one), (b, other) in combinations(boxes, 2) if one.overlaps(other)] == []
    assert 500 <= width <= (1700 if name.startswith("diffusion") else 1100)  # five columns for the terms and the levels


@pytest.mark.parametrize(
    ("name", "n_boxes"),
    [("VAE", 13), ("VAE, linear, importance-weighted", 9), ("flow", 10), ("diffusion, learned schedule", 13)],
)
def test_arrows_cross_no_box_and_no_text(name, n_boxes):
    with plots.own_settings():
        figure = PICTURES[name]()
        figure.canvas.draw()
        axes = figure.axes[0]
        boxes = [patch.get_window_extent() for patch in axes.patches if isinstance(patch, FancyBboxPatch)]
        texts = [text.get_window_extent() for text in axes.texts if text.get_text() not in ("", "+")]
        points = np.concatenate([along(axes.transData.transform(line.get_xydata())) for line in axes.lines])
    assert len(boxes) == n_boxes
    for box in boxes + texts:
        x, y = points.T
        assert not np.any((box.x0 + 1 < x) & (x < box.x1 - 1) & (box.y0 + 1 < y) & (y < box.y1 - 1))


def test_what_a_model_makes_itself_goes_to_all_that_read_it():
    """The latent above in a consistency term is drawn outside of any pair."""
    model = npvae.models.Diffusion(3, backend="numpy")
    _, edges = op_graph.graph_of(record(model, ROWS, objective="consistency"), "Diffusion")
    readers = {edge.target.title for edge in edges if edge.source.title == "Diffusion"}
    assert readers == {"fourier input", "predict", "consistency"}


def test_long_ways_to_different_boxes_do_not_run_on_each_other():
    model = npvae.models.Diffusion(3, backend="numpy", schedule="learned")
    nodes, edges = op_graph.graph_of(record(model, ROWS), "Diffusion")
    op_graph.arrange(nodes, edges)
    long = [edge for edge in edges if edge.is_long]
    assert len({edge.target.title for edge in long}) == 3  # predict, denoising, loss
    for one, other in combinations(long, 2):
        if one.lane == other.lane and one.target is not other.target:
            assert one.target.rank <= other.source.rank or other.target.rank <= one.source.rank


def along(corners):
    """Points on a line through corners (n, 2), about one for each pixel."""
    return np.concatenate([a + np.linspace(0, 1, int(abs(b - a).max()) + 2)[:, None] * (b - a) for a, b in pairwise(corners)])


def test_a_vae_shows_each_parameter_and_the_two_places_where_gradients_are_added():
    figure, recorded = plots.backward_flow(VAE, X), record(VAE, X)
    texts = texts_of(figure)
    for name, value in VAE.parameters.items():
        label = f"{name.rpartition('.')[2]}  {value.shape}  {rms(value):.2g}"
        assert label in texts, label
    assert shown_beside(figure, "W  (12, 6)") == f"{rms(recorded.gradients['encoder.0.W']):.2g}"
    assert shown_beside(figure, "b  (12,)") == f"{rms(recorded.gradients['likelihood.b']):.2g}"
    assert texts.count("+") == 2
    _, _, _, posterior, sample, kl, *_ = recorded.ops
    for i, name in enumerate(("mu", "logvar")):
        total = sample.inputs[i].gradient + kl.inputs[i].gradient
        assert shown_beside(figure, f"d{name}: gradients added") == f"{rms(total):.2g}"
        label = f"{name}  (20, 2)  {rms(posterior.outputs[i].value):.2g}"
        assert shown_beside(figure, label, 0) == f"{rms(sample.inputs[i].gradient):.2g}"
        assert shown_beside(figure, label, 1) == f"{rms(kl.inputs[i].gradient):.2g}"
    assert texts[texts.index("encoder.1") + 1] == "dense_forward, tanh"
    assert {"VAE: forward and backward, x (20, 12)", f"{recorded.loss:.5g}"} <= set(texts)


@pytest.mark.parametrize(
    ("name", "hidden"),
    [
        ("VAE", ["h1", "h2", "h3", "h4"]),
        ("autoencoder", ["h1", "h2", "h3"]),  # h2 is the code
        ("flow", [f"y{i}" for i in range(1, 7)]),
        ("VAE, linear, importance-weighted", []),
    ],
)
def test_no_two_boxes_and_no_two_hidden_layers_share_a_name(name, hidden):
    figure = PICTURES[name]()
    titles = [text.get_text() for text in figure.axes[0].texts if text.get_weight() == "bold" and text.get_text() != "+"]
    assert len(set(titles)) == len(titles)
    texts = texts_of(figure)
    shown = [text.split("  ")[0] for text in texts if text.startswith(("h", "y")) and "  (" in text]
    assert shown == hidden
    assert all(f"d{h}" in texts for h in hidden)
    assert ("mu, logvar" in titles) == name.startswith("VAE")


def test_an_output_that_several_ops_read_has_one_number():
    nodes, outs = [op_graph.Node("a"), op_graph.Node("b")], [Tensor("h", np.zeros(2)) for _ in range(2)]
    edges = [op_graph.Edge(nodes[0], nodes[1], out, None, "h") for out in (outs[0], outs[1], outs[0])]
    op_graph.number_outputs(edges)
    assert [edge.name for edge in edges] == ["h1", "h2", "h1"]
    alone = [op_graph.Edge(nodes[0], nodes[1], outs[0], None, "h") for _ in range(2)]
    op_graph.number_outputs(alone)
    assert [edge.name for edge in alone] == ["h", "h"]


def test_a_flow_shows_the_log_determinant_of_each_layer_on_its_way_to_the_loss():
    texts = texts_of(plots.backward_flow(FLOW, ROWS))
    assert sum(text.startswith("log_det  (20,)") for text in texts) == texts.count("dlog_det") == 7
    assert {"standardize", *(f"coupling.{i}" for i in range(6)), "standard normal nll", "loss"} <= set(texts)


def test_a_diffusion_shows_where_levels_go_and_what_is_not_learned():
    model = npvae.models.Diffusion(3, backend="numpy", schedule="learned", dtype="float64", seed=1)
    model.theta += 0.1 * np.random.default_rng(0).standard_normal(model.theta.size)
    figure, recorded = plots.backward_flow(model, ROWS), record(model, ROWS)
    ops = {op.name: op for op in recorded.ops}
    gammas = [ops["diffuse"].inputs[2].gradient, ops["predict"].inputs[2].gradient, ops["weight"].inputs[1].gradient]
    assert shown_beside(figure, "dgamma: gradients added") == size_of(sum(gammas))
    assert shown_beside(figure, "ends  (2,)") == size_of(recorded.gradients["schedule.ends"])
    assert {"schedule.ends", "diffuse", "fourier input", "denoiser", "predict", "prior kl"} <= set(texts_of(figure))
    fixed = texts_of(PICTURES["diffusion"]())  # gradients go back to the first layer, and no further
    assert {"doutput", "dh1", "dh2"} <= set(fixed)
    assert not {"dx_t", "dgamma", "dx", "dx_t: gradients added"} & set(fixed)


def test_colours_are_the_size_of_gradients_and_zero_is_grey():
    figure = plots.backward_flow(FLOW, ROWS)  # a new flow: the last layer of each conditioner is zero, and stops gradients
    zero = {t.get_bbox_patch().get_facecolor() for t in figure.axes[0].texts if t.get_text() == "0" and t.get_bbox_patch()}
    assert zero == {(0.8, 0.8, 0.8, 1.0)}
    shown = [(float(t.get_text()), t.get_bbox_patch().get_facecolor()) for t in figure.axes[0].texts
             if t.get_bbox_patch() and t.get_text() not in ("0", "+")]  # fmt: skip
    shown.sort()
    brightness = [np.dot(colour[:3], (0.3, 0.59, 0.11)) for _, colour in shown]
    assert brightness[0] > brightness[-1]
    assert all(b >= c - 0.02 for b, c in pairwise(brightness))  # the larger the darker


def test_a_model_of_one_s_own_is_drawn_by_the_pairs_that_it_calls_and_what_is_left():
    texts = texts_of(plots.backward_flow(LogisticPCA(12), X))
    assert {"input", "LogisticPCA", "bernoulli nll", "loss"} <= set(texts)
    assert {"its own arithmetic", "bernoulli_nll_forward, given x", "dlogits", "dnll"} <= set(texts)
    texts = texts_of(plots.backward_flow(Regression(4), regression_rows(8)))
    assert {"input", "Regression", "loss"} <= set(texts)
    assert any(text.startswith("w  (4,)") for text in texts)
    assert any(text.startswith("noise  (8,)") for text in texts)
