"""The page of `npvae explore`: its JavaScript against the Python decoders, in a browser and in Node, and what a user does with
it. Without a browser or without Node the tests that need it are skipped."""

import base64
import configparser
import json
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import browser as browsers
import numpy as np
import pytest
from small_models import Regression

import npvae
from npvae import data, models
from npvae.app import cli, commands, explore
from npvae.data import Dataset, Scaling, Whole

RNG = np.random.default_rng(0)
START = RNG.bit_generator.state
IN_NODE = """
const html = require("fs").readFileSync(process.argv[1], "utf8"), [zs, condition] = JSON.parse(process.argv[2]);
const part = id => html.match(new RegExp(`<script id="${id}"[^>]*>([^]*?)</script>`))[1];
require("vm").runInThisContext(part("decoder"));
const decode = decoderOf(JSON.parse(part("run")));
console.log(JSON.stringify(zs.map(z => [...decode(z, condition)])));
"""
PIXELS = """(() => { const canvas = document.getElementById("image");
  return [...canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data]; })()"""


@pytest.fixture(autouse=True)
def the_same_numbers():
    """Each test draws the same numbers, whichever ran before it."""
    RNG.bit_generator.state = START


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    if browsers.program() is None:
        pytest.skip("there is no Chromium or Chrome on this machine")
    window = browsers.Browser(tmp_path_factory.mktemp("profile"))
    try:
        window.start()
        yield window
    except (EOFError, BrokenPipeError):  # a stub that asks for a snap, or a sandbox that forbids it
        pytest.skip(f"{browsers.program()} does not start on this machine")
    finally:
        window.close()


def decoded_in_node(path, z, condition):
    result = subprocess.run(["node", "-e", IN_NODE, path, json.dumps([z.tolist(), condition])], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return np.array(json.loads(result.stdout))


@pytest.fixture(params=["browser", "node"])
def decoded(request):
    """A function: a page's E[x|z] of rows z (n, L)."""
    if request.param == "node":
        if shutil.which("node") is None:
            pytest.skip("there is no Node on this machine")
        return lambda path, z, condition=0: decoded_in_node(path, z, condition)
    window = request.getfixturevalue("browser")

    def decoded_in_browser(path, z, condition=0):
        window.open(path)
        assert window.errors == []
        return np.array(window.evaluate(f"{json.dumps(z.tolist())}.map(z => [...decode(z, {condition})])"))

    return decoded_in_browser


# ---- small runs: a model whose weights are random and large enough that E[x|z] depends on z, and a data set


def grown(model):
    """The model with weights that let E[x|z] vary over the plane."""
    model.theta[:] *= 2
    for name, value in model.parameters.items():
        if name.endswith(".b"):
            value += RNG.normal(0, 1.5, value.shape)
    return model


def dataset_of(x, labels=None, image_shape=None, **fields):
    return Dataset("rows", x, x, labels, "digit", image_shape, **fields)


def written(folder, model, dataset, name="a run"):
    """The page of a model, and the batch of its dots."""
    explore.check(model)
    index = explore.shown_rows(dataset)
    batch = commands.validation_rows(model, dataset, 0, index)
    path = folder / "page.html"
    path.write_text(explore.page(model, batch, index, dataset, name), encoding="utf-8")
    return path


class Reader(HTMLParser):
    """What stands in the tags of a page: `texts`, tag and id -> text."""

    def __init__(self, path):
        super().__init__()
        self.texts, self.tag = {}, None
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        self.tag = (tag, dict(attributes).get("id"))
        assert self.tag not in self.texts or tag not in ("script", "title"), self.tag

    def handle_endtag(self, tag):
        self.tag = None

    def handle_data(self, text):
        self.texts[self.tag] = self.texts.get(self.tag, "") + text


def run_in(path):
    return json.loads(Reader(path).texts["script", "run"])


def numbers(text, *shape):
    return np.frombuffer(base64.b64decode(text), "<f4").reshape(shape)


def ising_run(monkeypatch):
    monkeypatch.setattr(data, "ISING_ROWS", (2, 2))
    return grown(npvae.VAE(256, 2, (256,), seed=1)), data.load("ising")


def mnist_run(monkeypatch):
    x = RNG.integers(0, 256, (50, 784)).astype(np.uint8)
    return grown(npvae.VAE(784, 5, (400,), seed=2)), dataset_of(x, RNG.integers(0, 10, 50), (28, 28))


def gaussian_run(monkeypatch):
    x, _, scaling = data.scaled(*[RNG.normal(300, 40, (60, 30)) * np.linspace(1, 5, 30)] * 2, "standardise")
    model = grown(npvae.VAE(30, 3, (20, 10), "silu", "gaussian", seed=3))
    return model, dataset_of(x.astype(np.float32), scaling=scaling)


RUNS = {"ising": ising_run, "mnist": mnist_run, "gaussian": gaussian_run}


@pytest.mark.parametrize("name", RUNS)
def test_the_page_decodes_as_python_does(name, decoded, monkeypatch, tmp_path):
    model, dataset = RUNS[name](monkeypatch)
    z = RNG.normal(0, 1.5, (12, model.n_latent))
    expected = dataset.in_own_units(model.decode(z))
    spread = np.ptp(expected)
    assert expected.std(axis=0).mean() > 0.05 * spread  # it depends on z
    got = decoded(written(tmp_path, model, dataset), z)
    assert got.shape == expected.shape
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-4 * spread)


@pytest.mark.parametrize(
    ("likelihood", "activation"),
    [("bernoulli", "relu"), ("gaussian", "tanh"), ("gaussian_global", "sigmoid"), ("gaussian_learned", "softplus"),
     ("categorical", "silu"), ("beta_binomial", "relu")],
)  # fmt: skip
def test_every_likelihood_and_activation(likelihood, activation, decoded, tmp_path):
    model = grown(npvae.VAE(6, 3, (9, 7), activation, likelihood, seed=4))
    if likelihood == "beta_binomial":
        model.parameters["likelihood.b"][:] += np.tile([30, 10, -30, 0, 0, 0], 2)  # beyond the bounds of log alpha, log beta
    x = RNG.integers(0, 256, (20, 6)).astype(np.uint8)
    z = RNG.normal(0, 2, (9, 3))
    got = decoded(written(tmp_path, model, dataset_of(x)), z)
    np.testing.assert_allclose(got, model.decode(z), rtol=0, atol=1e-4)


def test_a_model_without_hidden_layers_without_a_prior(decoded, tmp_path):
    model, x = grown(models.Autoencoder(5, 2, (), seed=1)), RNG.normal(size=(9, 5))
    path = written(tmp_path, model, dataset_of(x))
    z = RNG.normal(size=(4, 2))
    np.testing.assert_allclose(decoded(path, z), model.decode(z), rtol=0, atol=1e-5)
    assert run_in(path)["prior"] is None
    assert run_in(path)["dots"] == "codes of 9 validation rows"


def conditional_run(**fields):
    """A conditional VAE of 3 classes."""
    model = grown(models.ConditionalVAE(6, 3, 2, (7,), "tanh", seed=5, **fields))
    labels = RNG.integers(0, 3, 40)
    x = (RNG.random((40, 6)) < 0.5).astype(np.float32)
    return model, dataset_of(x, labels, (2, 3), condition_train=labels, condition_val=labels, condition_name="digit",
                             n_condition=3)  # fmt: skip


@pytest.mark.parametrize("condition", [0, 2])
def test_the_class_of_a_conditional_model_is_chosen(condition, decoded, tmp_path):
    model, dataset = conditional_run(prior="learned")
    z = RNG.normal(size=(4, 2))
    got = decoded(written(tmp_path, model, dataset), z, condition)
    np.testing.assert_allclose(got, model.decode(z, np.full(4, condition)), rtol=0, atol=1e-5)
    assert np.abs(got - model.decode(z, np.full(4, 1))).max() > 0.01


def test_the_lower_half_is_decoded_under_the_upper_one(decoded, tmp_path):
    model = grown(models.ConditionalVAE(6, 3, 2, (7,), "tanh", "gaussian", seed=5))
    x, upper, scaling = RNG.normal(size=(40, 6)), RNG.normal(size=(40, 3)), Scaling(5.0, 2.0)
    dataset = dataset_of(x, None, (2, 3), condition_train=upper, condition_val=upper, condition_name="upper half",
                         n_condition=3, scaling=scaling, whole=Whole((3, 3), scaling))  # fmt: skip
    z, path = RNG.normal(size=(4, 2)), written(tmp_path, model, dataset)
    chosen = np.tile(dataset.conditions(10)[7], (4, 1))
    got, (expected, shape) = decoded(path, z, 7), dataset.whole_images(chosen, model.decode(z, chosen))
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-4)
    run = run_in(path)
    assert tuple(run["image_shape"]) == shape == (3, 3)
    assert (run["condition_title"], run["condition_names"][7]) == ("upper half", "8 of 10")


# ---- what stands in the page


def test_the_dots_are_validation_rows_with_their_labels(monkeypatch, tmp_path):
    monkeypatch.setattr(explore, "MAX_POINTS", 30)
    model, dataset = mnist_run(monkeypatch)
    run = run_in(written(tmp_path, model, dataset))
    index = np.array(run["rows"])
    assert len(set(run["rows"])) == 30
    x = commands.validation_rows(model, dataset, 0, index)[0]
    np.testing.assert_allclose(numbers(run["mu"], 30, 5), model.encode(x)[0], rtol=1e-6)
    shown = [run["labels"]["classes"][int(value)] for value in numbers(run["labels"]["values"], 30)]
    assert shown == [str(label) for label in dataset.labels_val[index]]
    assert len(set(run["labels"]["colours"])) == len(run["labels"]["classes"]) == len(np.unique(dataset.labels_val[index]))
    kl = npvae.evaluate.kl_per_dimension(model, x)
    np.testing.assert_allclose(run["usage"], kl, atol=1e-4)
    assert run["plane"] == sorted(np.argsort(kl)[-2:])
    assert run["usage_name"] == "KL"
    assert run["dots"] == "posterior means of 30 validation rows, coloured by digit"


def test_quantities_have_a_colour_bar_and_rows_keep_the_numbers_of_their_file(monkeypatch, tmp_path):
    model, dataset = gaussian_run(monkeypatch)
    labels, file_rows = RNG.normal(size=60), RNG.permutation(1000)[:60]
    run = run_in(written(tmp_path, model, dataset._replace(labels_val=labels, numbers_val=file_rows)))
    index = explore.shown_rows(dataset)
    np.testing.assert_allclose(numbers(run["labels"]["values"], 60), labels[index], rtol=1e-6)
    assert run["labels"]["classes"] is None
    assert run["labels"]["colours"][0] == "#440154"  # viridis, from low to high
    assert run["labels"]["colours"][-1] == "#fde725"
    assert run["rows"] == file_rows[index].tolist()
    assert run["kind"] == "curve"
    np.testing.assert_allclose(run["range"], [f(dataset.in_own_units(dataset.x_val)) for f in (np.min, np.max)])


def test_rows_of_two_values_are_points_of_a_plane(tmp_path):
    model, x, scaling = npvae.VAE(2, 2, (4,), likelihood="gaussian"), RNG.normal(size=(20, 2)), Scaling(5.0, 2.0)
    run = run_in(written(tmp_path, model, dataset_of(x, scaling=scaling)))
    assert run["kind"] == "point"
    np.testing.assert_allclose(numbers(run["data_points"], 20, 2), 5 + 2 * x[run["rows"]], rtol=1e-6)


def test_the_prior_of_each_condition(tmp_path):
    model, dataset = conditional_run(prior="learned")
    run = run_in(written(tmp_path, model, dataset))
    output = model.prior_output(np.eye(3, dtype=np.float32))
    np.testing.assert_allclose(numbers(run["prior"]["mean"], 3, 2), output[:, :2], rtol=1e-5)
    np.testing.assert_allclose(numbers(run["prior"]["sd"], 3, 2), np.exp(output[:, 2:] / 2), rtol=1e-5)
    run = run_in(written(tmp_path, *conditional_run()))
    assert not numbers(run["prior"]["mean"], 6).any()
    assert (numbers(run["prior"]["sd"], 6) == 1).all()


EVIL = "</script><script>alert(1)</script><!-- & \" ' {{run}} é"


def test_texts_are_escaped(monkeypatch, tmp_path):
    model, dataset = mnist_run(monkeypatch)
    path = written(tmp_path, model, dataset._replace(description=EVIL, label_name=EVIL), name=EVIL)
    page = Reader(path)  # which finds three scripts, each once
    assert page.texts["title", None] == f"npvae explore: {EVIL}"
    run = json.loads(page.texts["script", "run"])
    assert run["name"] == run["data"] == run["labels"]["name"] == EVIL


def test_the_page_shows_such_texts_as_they_are(browser, monkeypatch, tmp_path):
    model, dataset = mnist_run(monkeypatch)
    browser.open(written(tmp_path, model, dataset._replace(description=EVIL, label_name=EVIL), name=EVIL))
    assert browser.errors == []
    assert browser.evaluate("[document.title, document.querySelector('h1').textContent]") == [f"npvae explore: {EVIL}", EVIL]


# ---- what a user does with it


def frame(browser):
    browser.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")


def place(browser, across, up):
    """A place of the plane in pixels of the window; across and up from 0 to 1 between its axes."""
    return browser.evaluate(f"""(() => {{
      const at = document.getElementById("plane").getBoundingClientRect(), {{left, right, top, bottom}} = dots.box;
      return [at.left + left + {across} * (right - left), at.top + bottom - {up} * (bottom - top)]; }})()""")


def z_at(browser, across, up):
    view = browser.evaluate("[dots.view.x, dots.view.y]")
    return [low + share * (high - low) for share, (low, high) in zip((across, up), view)]


@pytest.fixture
def opened(browser, monkeypatch, tmp_path):
    """The page of the MNIST-like run, five latent dimensions, in the browser, and its model."""
    model, dataset = mnist_run(monkeypatch)
    browser.open(written(tmp_path, model, dataset))
    frame(browser)
    return browser, model


def test_the_image_follows_the_pointer(opened):
    browser, model = opened
    plane = browser.evaluate("run.plane")
    browser.mouse("mouseMoved", *place(browser, 0.7, 0.2))
    frame(browser)
    z = np.array(browser.evaluate("[...state.z]"))
    np.testing.assert_allclose(z[plane], z_at(browser, 0.7, 0.2), atol=0.02)
    assert np.count_nonzero(z) == 2
    pixels = np.array(browser.evaluate(PIXELS)).reshape(784, 4)
    np.testing.assert_allclose(pixels[:, 0] / 255, model.decode(z[None])[0], atol=0.5 / 255 + 1e-3)
    assert (pixels[:, :3] == pixels[:, :1]).all()
    assert (pixels[:, 3] == 255).all()
    texts = [f"z{'₀₁₂₃₄₅'[l + 1]} = {z[l]:.2f}".replace("-", "−") for l in plane]
    assert browser.evaluate("document.getElementById('where').textContent").split(",  ") == texts


def test_a_click_holds_the_point_and_takes_a_dot(opened):
    browser, _ = opened
    browser.mouse("mouseMoved", *place(browser, 0.5, 0.5))
    x, y = browser.evaluate("""(() => { const at = document.getElementById("plane").getBoundingClientRect();
      return [at.left + dots.x(mu[7 * L + state.plane[0]]), at.top + dots.y(mu[7 * L + state.plane[1]])]; })()""")
    browser.mouse("mouseMoved", x, y)
    browser.mouse("mousePressed", x, y)
    browser.mouse("mouseReleased", x, y)
    frame(browser)
    i = browser.evaluate("state.near")
    dot = browser.evaluate(f"[...mu.subarray({i} * L, {i + 1} * L)]")
    assert browser.evaluate("[...state.z]") == dot
    browser.mouse("mouseMoved", *place(browser, 0.1, 0.1))
    frame(browser)
    assert browser.evaluate("[...state.z]") == dot
    browser.mouse("mousePressed", *place(browser, 0.1, 0.1))
    browser.mouse("mouseReleased", *place(browser, 0.1, 0.1))
    browser.mouse("mouseMoved", *place(browser, 0.9, 0.9))
    z = browser.evaluate("state.plane.map(l => state.z[l])")
    np.testing.assert_allclose(z, z_at(browser, 0.9, 0.9), atol=0.02)


def test_the_label_of_the_nearest_dot_is_shown(opened):
    browser, _ = opened
    browser.evaluate("""{ const fill = CanvasRenderingContext2D.prototype.fillText;
      window.written = [];
      CanvasRenderingContext2D.prototype.fillText = function (...drawn) { written.push(drawn[0]); fill.call(this, ...drawn); };
    }""")
    x, y = browser.evaluate("""(() => { const at = document.getElementById("plane").getBoundingClientRect();
      return [at.left + dots.x(mu[9 * L + state.plane[0]]), at.top + dots.y(mu[9 * L + state.plane[1]])]; })()""")
    browser.mouse("mouseMoved", x, y)
    frame(browser)
    i = browser.evaluate("state.near")
    row, label = browser.evaluate(f"[run.rows[{i}], run.labels.classes[labels[{i}]]]")
    assert browser.evaluate("written") == [f"digit {label}, row {row}"]
    distance = "Math.hypot(dots.x(mu[i * L + state.plane[0]]) - dots.x(mu[9 * L + state.plane[0]]), " \
               "dots.y(mu[i * L + state.plane[1]]) - dots.y(mu[9 * L + state.plane[1]]))"  # fmt: skip
    assert browser.evaluate(f"(i => {distance})({i})") < 2
    browser.mouse("mouseMoved", *place(browser, 0.02, 0.98))  # a corner without dots
    assert browser.evaluate("state.near") == -1
    browser.mouse("mouseMoved", x, y)
    assert browser.evaluate("state.near") == i
    browser.mouse("mouseMoved", 5, 5)  # out of the plane
    assert browser.evaluate("state.near") == -1


def test_arrow_keys_move_the_point(opened):
    browser, _ = opened
    for key in ("ArrowRight", "ArrowRight", "ArrowUp", "ArrowDown", "ArrowDown"):
        browser.key(key)
    (left, right), (low, high) = browser.evaluate("[dots.view.x, dots.view.y]")
    z = browser.evaluate("state.plane.map(l => state.z[l])")
    np.testing.assert_allclose(z, [2 * (right - left) / 60, -(high - low) / 60], rtol=1e-6)
    for _ in range(70):
        browser.key("ArrowLeft")
    np.testing.assert_allclose(browser.evaluate("state.z[state.plane[0]]"), left)  # no further than the plane


def test_a_finger_moves_the_point_on_a_phone(browser, monkeypatch, tmp_path):
    model, dataset = gaussian_run(monkeypatch)
    browser.open(written(tmp_path, model, dataset), width=390, height=844, phone=True)
    frame(browser)
    assert browser.evaluate("document.documentElement.scrollWidth") <= 390
    places = [place(browser, 0.4 + share / 3, 0.3 + share / 2) for share in (0, 0.3, 0.6, 1)]
    browser.touch("touchStart", places[0])
    for to in places[1:]:
        browser.touch("touchMove", to)
    browser.touch("touchEnd")
    assert browser.evaluate("window.scrollY") == 0  # the page, which is longer than the window, stays where it is
    np.testing.assert_allclose(browser.evaluate("state.plane.map(l => state.z[l])"), z_at(browser, 0.4 + 1 / 3, 0.8), atol=0.1)
    assert browser.evaluate("state.held") is False
    browser.evaluate("window.scrollTo(0, 100000)")
    assert browser.evaluate("window.scrollY") > 100
    assert browser.evaluate("document.getElementById('graph').getBoundingClientRect().top") >= 0  # seen beside the sliders
    assert browser.errors == []


def test_sliders_and_the_choice_of_the_plane(opened):
    browser, _ = opened
    plane = browser.evaluate("run.plane")
    others = [l for l in range(5) if l not in plane]
    assert browser.evaluate("[...sliders.keys()]") == others
    browser.evaluate(f"""(() => {{ const {{input}} = sliders.get({others[1]}); input.value = 1.25;
      input.dispatchEvent(new Event("input")); }})()""")
    browser.evaluate(f"""(() => {{ const select = document.getElementById("up"); select.value = {others[0]};
      select.dispatchEvent(new Event("change")); }})()""")
    frame(browser)
    assert browser.evaluate("state.plane") == [plane[0], others[0]]
    assert browser.evaluate("[...sliders.keys()]") == sorted([plane[1], *others[1:]])
    z = np.zeros(5)
    z[others[1]] = 1.25
    np.testing.assert_allclose(browser.evaluate("[...state.z]"), z, atol=1e-6)
    assert browser.evaluate(f"sliders.get({others[1]}).output.textContent") == "1.25"


def test_buttons_go_to_the_origin_and_draw_from_the_prior(browser, tmp_path):
    model, dataset = conditional_run(prior="learned")
    browser.open(written(tmp_path, model, dataset))
    browser.evaluate("document.getElementById('condition').value = 2")
    browser.evaluate("document.getElementById('condition').dispatchEvent(new Event('change'))")
    assert browser.evaluate("state.condition") == 2
    assert not browser.evaluate("document.getElementById('draw').hidden")
    drawn = browser.evaluate("""Array.from({length: 4000}, () => {
      document.getElementById("draw").click(); return [...state.z]; })""")
    drawn = np.array(drawn)
    output = model.prior_output(np.eye(3, dtype=np.float32))[2]
    mean, sd = output[:2], np.exp(output[2:] / 2)
    np.testing.assert_allclose((drawn.mean(axis=0) - mean) / sd, 0, atol=5 / 4000**0.5)
    np.testing.assert_allclose(drawn.std(axis=0) / sd, 1, atol=5 / 8000**0.5)
    browser.evaluate("document.getElementById('origin').click()")
    assert browser.evaluate("[...state.z]") == [0, 0]


@pytest.mark.parametrize("n_latent", [1, 2])
@pytest.mark.parametrize("n_features", [2, 5])
def test_points_and_curves_and_a_single_dimension(n_latent, n_features, browser, tmp_path):
    """What is drawn on the graph changes with z, in both colour schemes, without an error. It is in view also where it lies
    far outside the data."""
    model, x = grown(npvae.VAE(n_features, n_latent, (6,), likelihood="gaussian")), 1e-3 * RNG.normal(size=(30, n_features))
    for scheme in ("light", "dark"):
        browser.open(written(tmp_path, model, dataset_of(x)), scheme=scheme)
        frame(browser)
        picture = "document.getElementById('graph').toDataURL()"
        before = browser.evaluate(picture)
        browser.mouse("mouseMoved", *place(browser, 0.9, 0.8))
        frame(browser)
        assert browser.evaluate(picture) != before
        assert browser.evaluate("document.getElementById('image').hidden")
        assert browser.errors == []


def test_a_single_dimension_is_drawn_against_the_label(browser, tmp_path):
    model, x, labels = npvae.VAE(6, 1, (4,), likelihood="gaussian"), RNG.normal(size=(12, 6)), np.repeat([3, 7], 6)
    dataset = dataset_of(x, labels)
    browser.open(written(tmp_path, model, dataset))
    assert browser.evaluate("run.rows.map((_, i) => heightOf(i))") == labels[explore.shown_rows(dataset)].tolist()


def test_a_model_without_a_prior_draws_no_z(browser, tmp_path):
    model, x = models.Autoencoder(4, 2, (3,)), RNG.random((20, 4))
    browser.open(written(tmp_path, model, dataset_of(x, None, (2, 2))))
    frame(browser)
    assert browser.errors == []
    assert browser.evaluate("document.getElementById('draw').hidden")
    assert "prior" not in browser.evaluate("document.getElementById('hint').textContent")


# ---- the command


def test_the_page_is_installed_with_the_package():
    setup = configparser.ConfigParser()
    setup.read(Path(__file__).parents[1] / "setup.cfg", encoding="utf-8")
    assert setup["options.package_data"]["npvae.app"] == "explore.html"
    assert Path(explore.__file__).with_name("explore.html").is_file()


def test_the_command_writes_a_page_and_pictures(run, capsys):
    assert cli.main(["explore", "run", "--pictures"]) == 0
    names = ["explore.html", "explore-interpolations.png", "explore-traversals.png", "explore-usage.png"]
    assert sorted(path.name for path in Path("run").glob("explore*")) == sorted(names)
    out = capsys.readouterr().out
    assert all(f"run/{name}: " in out for name in names)
    assert Reader(Path("run/explore.html")).texts["title", None] == "npvae explore: run"
    assert cli.main(["explore", "run"]) == 0
    assert Path("run/explore-2.html").read_bytes() == Path("run/explore.html").read_bytes()
    assert cli.main(["explore", "run", "--out", "mine.html"]) == 0
    assert Path("mine.html").read_bytes() == Path("run/explore.html").read_bytes()


def test_a_page_needs_a_name_of_its_own(run, error_of):
    Path("mine.html").write_text("mine")
    assert "mine.html exists already; name another file with --out" in error_of("explore", "run", "--out", "mine.html")
    assert Path("mine.html").read_text() == "mine"
    assert "--out must name a .html file; got mine.png" in error_of("explore", "run", "--out", "mine.png")


def test_a_page_that_cannot_be_written_leaves_no_empty_file(run, error_of, monkeypatch):
    def full(path, write_to):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(explore.run_folder.files, "replace_file", full)
    assert "No space left on device" in error_of("explore", "run")
    assert not Path("run/explore.html").exists()


class Doubled(npvae.VAE):
    """A VAE of somebody else that decodes otherwise."""

    def decode(self, z):
        return 0.5 * super().decode(z)


def test_models_that_cannot_be_explored(monkeypatch, tmp_path):
    with pytest.raises(ValueError, match="class Regression has no method encode, and so no latent space"):
        explore.check(Regression(2))
    with pytest.raises(ValueError, match="the decoder of a model of class Flow is not known"):
        explore.check(models.Flow(2))
    with pytest.raises(ValueError, match="decode of the class Doubled is not what its decoder and likelihood 'bernoulli' give"):
        written(tmp_path, Doubled(4, 2, (3,)), dataset_of((RNG.random((5, 4)) < 0.5).astype(float)))
    other = npvae.VAE(4, 2, (3,))
    other.likelihood = "poisson"
    with pytest.raises(ValueError, match=r"a page needs `decoder`, .*, and `likelihood`, one of bernoulli, gaussian, "):
        explore.check(other)
    monkeypatch.setattr(explore, "MAX_WEIGHTS", 17)
    explore.check(npvae.VAE(4, 1, (3,)))
    with pytest.raises(ValueError, match="the decoder has 18 weights, and a page holds at most 17"):
        explore.check(npvae.VAE(4, 2, (3,)))
