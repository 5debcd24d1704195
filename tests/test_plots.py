"""The pictures: that they show the numbers they were given, and can be written without a warning."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import matplotlib
import mean_field
import numpy as np
import pytest
from conftest import PICTURES
from matplotlib.colors import to_hex
from matplotlib.image import imread

import npvae
from npvae import data
from npvae.app import commands, drawing, plots
from npvae.data.rows import Rows
from npvae.training.state import History, columns

ROW = dict.fromkeys(columns(npvae.Terms), 1.0)


def history(n, val=True):
    """Six different columns, so that none can stand for another."""
    rows = []
    for epoch in range(1, n + 1):
        row = {"epoch": epoch, "step": 7 * epoch, "seconds": 1.0}
        for part, size in (("train", 100.0), ("val", 200.0)):
            for i, name in enumerate(npvae.Terms._fields):
                value = 0.0 if name == "clipped" else size / epoch + i
                row[f"{part}_{name}"] = value if val or part == "train" else None
        rows.append(row)
    return History(rows)


def drawn(figure, tmp_path, dpi=30):
    """The picture as pixels, written and read."""
    plots.save(figure, tmp_path / "a.png", dpi=dpi)
    pixels = imread(tmp_path / "a.png")
    assert pixels[..., :3].std() > 0.01
    return pixels


def texts(axes):
    return [text.get_text() for text in axes.get_legend().get_texts()]


@pytest.mark.parametrize(("n", "val"), [(1, False), (3, True), (40, True)])
def test_loss_curves_show_each_term_of_both_parts(tmp_path, n, val):
    numbers = history(n, val)
    figure = plots.history(numbers, npvae.VAE)
    drawn(figure, tmp_path)
    for axes, name in zip(figure.axes, ("loss", "nll", "kl"), strict=True):
        assert (axes.get_xlabel(), axes.get_ylabel()) == ("epoch", "nats per datum")
        assert axes.get_title() == f"{name}, {npvae.VAE.terms_help[name]}"
        assert axes.get_xscale() == ("log" if n == 40 else "linear")
        lines = [(line.get_label(), line.get_color()) for line in axes.lines]
        assert lines == [("training", plots.TRAIN), ("validation", plots.VAL)][: 1 + val]
        for line, part in zip(axes.lines, ("train", "val")):
            np.testing.assert_array_equal(line.get_xdata(), range(1, n + 1))
            np.testing.assert_array_equal(line.get_ydata(), numbers[f"{part}_{name}"])
    assert texts(figure.axes[2]) == ["training", "validation"][: 1 + val]
    low, high = figure.axes[0].get_xlim()
    ticks = [tick for tick in figure.axes[0].get_xticks() if max(low, 0.5) <= tick <= min(high, n + 0.5)]
    assert ticks == ([1, 2, 5, 10, 20] if n == 40 else np.round(ticks).tolist())  # whole epochs
    figure.canvas.draw()
    shown = [label.get_text() for label in figure.axes[0].get_xticklabels() if label.get_position()[0] in ticks]
    assert shown == [f"{tick:.0f}" for tick in ticks]


def test_a_term_that_is_not_always_0_is_shown(tmp_path):
    numbers = history(3)
    numbers.rows[1]["train_clipped"] = 0.5
    axes = plots.history(numbers, npvae.VAE).axes
    assert [a.get_title().split(",")[0] for a in axes] == ["loss", "nll", "kl", "clipped"]
    np.testing.assert_array_equal(axes[3].lines[0].get_ydata(), [0, 0.5, 0])


def test_a_model_with_nothing_but_a_loss_has_one_plot_even_where_that_is_0(tmp_path):
    rows = [{"epoch": epoch, "step": 1, "seconds": 1.0, "train_loss": 0.0, "val_loss": 1.0} for epoch in (1, 2)]
    figure = plots.history(History(rows), mean_field.MeanField)
    drawn(figure, tmp_path)
    assert [axes.get_title() for axes in figure.axes] == ["loss"]
    assert (figure.axes[0].get_ylabel(), texts(figure.axes[0])) == ("", ["training", "validation"])


def test_points_in_the_plane_are_drawn_as_points(tmp_path):
    x = np.random.default_rng(0).standard_normal((50, 2))
    figure = plots.samples(x, title="points")
    drawn(figure, tmp_path)
    np.testing.assert_array_equal(figure.axes[0].collections[0].get_offsets(), x)
    axes = figure.axes[0]
    assert (axes.get_xlabel(), axes.get_ylabel(), axes.get_title()) == ("$x_1$", "$x_2$", "points")


def test_draws_are_called_what_they_are():
    assert plots.samples_title(npvae.VAE(4, 1, ())) == "E[x|z] for z drawn from the prior N(0, I)"
    assert plots.samples_title(mean_field.MeanField(4)) == "draws of the model"


def test_resolution_is_in_dots_per_inch(tmp_path):
    figure = plots.Figure(figsize=(2, 1))
    figure.subplots().plot([0, 1])
    small, large = (drawn(figure, tmp_path, dpi).shape for dpi in (50, 100))
    np.testing.assert_allclose(large[:2], np.multiply(small[:2], 2), atol=3)


@pytest.mark.parametrize("labels", [None, np.array([0.5, 1.25, 3])])
def test_reconstructions_stand_under_their_inputs(tmp_path, labels):
    x = np.random.default_rng(0).uniform(-2, 3, (3, 12))
    figure = plots.reconstructions(x, 9 - x, (3, 4), labels, "temperature")
    drawn(figure, tmp_path)
    images = [axes.images[0].get_array() for axes in figure.axes]
    for i in range(3):
        np.testing.assert_array_equal(images[i], x[i].reshape(3, 4))
        np.testing.assert_array_equal(images[3 + i], 9 - x[i].reshape(3, 4))
    assert {axes.images[0].get_clim() for axes in figure.axes} == {(x.min(), x.max())}  # one scale, that of the inputs
    assert [axes.get_title() for axes in figure.axes] == (["", "", ""] if labels is None else ["0.5", "1.25", "3"]) + [""] * 3
    assert (figure.axes[0].get_ylabel(), figure.axes[3].get_ylabel()) == ("input", "reconstruction")
    assert figure.get_suptitle() == ("" if labels is None else "temperature")


@pytest.mark.parametrize("n", [1, 6])
def test_rows_that_are_not_images_are_curves(tmp_path, n):
    x = np.random.default_rng(0).random((n, 12))
    figure = plots.reconstructions(x, 1 - x, labels=np.arange(n) / 2)
    drawn(figure, tmp_path)
    for i in range(n):
        np.testing.assert_array_equal(figure.axes[i].lines[0].get_ydata(), x[i])
        np.testing.assert_array_equal(figure.axes[i].lines[1].get_ydata(), 1 - x[i])
        assert figure.axes[i].get_title() == f"{i / 2:g}"
    assert [axes.get_visible() for axes in figure.axes] == [True] * n + [False] * (-n % 4)
    assert texts(figure.axes[0]) == ["input", "reconstruction"]
    assert figure.axes[-4].get_xlabel() == "data dimension"


def test_samples_that_are_not_images_are_curves(tmp_path):
    x = np.random.default_rng(0).random((3, 12))
    figure = plots.samples(x)
    drawn(figure, tmp_path)
    np.testing.assert_array_equal([line.get_ydata() for line in figure.axes[0].lines], x)
    assert (figure.axes[0].get_xlabel(), figure.axes[0].get_ylabel()) == ("data dimension", "value")
    assert figure.axes[0].get_title() == "draws of the model"


@pytest.mark.parametrize(("n", "columns"), [(1, 1), (5, 3), (16, 4)])
def test_samples_are_tiles_with_a_frame_between_them(tmp_path, n, columns):
    x = np.random.default_rng(0).random((n, 12))
    figure = plots.samples(x, (3, 4))
    image = figure.axes[0].images[0]
    canvas = np.ma.filled(image.get_array(), np.nan)
    assert canvas.shape == (4 * -(-n // columns) - 1, 5 * columns - 1)
    for i in range(n):
        top, left = i // columns * 4, i % columns * 5
        np.testing.assert_array_equal(canvas[top : top + 3, left : left + 4], x[i].reshape(3, 4))
    assert np.isfinite(canvas).sum() == x.size
    assert image.get_clim() == (0, 1)
    assert to_hex(image.get_cmap().get_bad()) == drawing.FRAME
    assert [to_hex(image.get_cmap()(value)) for value in (0.0, 1.0)] == ["#000000", "#ffffff"]
    if n == 5:
        drawn(figure, tmp_path)


def test_the_decoded_grid_takes_equal_steps_of_the_prior_s_probability(tmp_path):
    model = npvae.VAE(8, 2, (), likelihood="gaussian", dtype="float64", backend="numpy")
    model.theta[:] = 0
    model.parameters["likelihood.W"][:, :2] = np.eye(2)  # the first two of 2 × 4 pixels are z itself
    figure = plots.decoded_grid(model, (2, 4), n=5)
    drawn(figure, tmp_path)
    axes = figure.axes[0]
    canvas = np.asarray(axes.images[0].get_array())
    assert canvas.shape == (10, 20)
    quantiles = [-1.2815515655, -0.5244005127, 0, 0.5244005127, 1.2815515655]  # of N(0, 1) at 0.1, 0.3, ..., 0.9
    np.testing.assert_allclose(canvas[0, ::4], quantiles, atol=1e-9)  # z1 grows to the right
    np.testing.assert_allclose(canvas[::2, 1], quantiles[::-1], atol=1e-9)  # z2 grows upwards
    for ticks, labels, centres in [  # at the middle of the images whose z they name
        (axes.get_xticks(), axes.get_xticklabels(), [1.5, 9.5, 17.5]),
        (axes.get_yticks(), axes.get_yticklabels(), [8.5, 4.5, 0.5]),
    ]:
        assert [label.get_text() for label in labels] == ["-1.28", "0.00", "1.28"]
        np.testing.assert_allclose(ticks, centres)
    assert axes.get_xlabel().startswith("$z_1$")
    assert axes.get_ylabel() == "$z_2$"


MU = np.random.default_rng(0).standard_normal((40, 5))


def sorted_rows(*columns):
    rows = np.column_stack(columns)
    return rows[np.lexsort(rows.T)]


def test_one_latent_dimension_is_a_histogram_or_drawn_against_the_label(tmp_path):
    figure = plots.latent_plane(MU[:, :1])
    drawn(figure, tmp_path)
    heights = [bar.get_height() for bar in figure.axes[0].patches]
    np.testing.assert_array_equal(heights, np.histogram(MU[:, 0], 60)[0])
    assert figure.axes[0].get_ylabel() == "rows"
    labels = np.linspace(1, 4, 40)
    axes = plots.latent_plane(MU[:, :1], labels, "temperature").axes[0]
    np.testing.assert_array_equal(sorted_rows(axes.collections[0].get_offsets()), sorted_rows(MU[:, 0], labels))
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("posterior mean of $z_1$", "temperature")


@pytest.mark.parametrize("labels", [np.linspace(1, 4, 40), np.arange(40) % 11, (np.arange(40) % 3).astype(float)])
def test_quantities_and_many_labels_get_a_colour_bar(tmp_path, labels):
    figure = plots.latent_plane(MU[:, :2], labels, "temperature (J/k)")
    if labels[1] != 1:
        drawn(figure, tmp_path)
    points = figure.axes[0].collections[0]
    seen = sorted_rows(points.get_offsets(), points.get_array())
    np.testing.assert_array_equal(seen, sorted_rows(MU[:, 0], MU[:, 1], labels))
    assert figure.axes[1].get_ylabel() == "temperature (J/k)"
    assert figure.axes[0].get_legend() is None


def test_a_few_whole_labels_get_a_legend_with_one_colour_each(tmp_path):
    labels = np.arange(40) % 10 + 3
    figure = plots.latent_plane(MU[:, :2], labels, "digit")
    drawn(figure, tmp_path)
    axes = figure.axes[0]
    assert [c.get_label() for c in axes.collections] == texts(axes) == [str(label) for label in range(3, 13)]
    assert len({to_hex(c.get_facecolor()[0]) for c in axes.collections}) == 10
    assert axes.get_legend().get_title().get_text() == "digit"
    for label, points in enumerate(axes.collections, 3):
        np.testing.assert_array_equal(sorted_rows(points.get_offsets()), sorted_rows(MU[labels == label, :2]))


@pytest.mark.parametrize(("kl", "pair"), [(None, [0, 2]), (np.array([0.1, 3, 0, 2]), [1, 3])])
def test_latent_plane_shows_the_dimensions_with_the_largest_kl_or_else_variance(tmp_path, kl, pair):
    mu = MU[:, :4] * [3, 1, 2, 0.5]
    figure = plots.latent_plane(mu, kl=kl)
    drawn(figure, tmp_path)
    axes = figure.axes[0]
    assert axes.get_xlabel() == f"posterior mean of $z_{{{pair[0] + 1}}}$"
    assert axes.get_ylabel() == f"posterior mean of $z_{{{pair[1] + 1}}}$"
    assert "two of 4 dimensions" in axes.get_title()
    np.testing.assert_array_equal(sorted_rows(axes.collections[0].get_offsets()), sorted_rows(mu[:, pair]))


def test_two_dimensions_keep_their_order_whatever_their_kl():
    axes = plots.latent_plane(MU[:, :2], kl=np.array([2, 1])).axes[0]
    np.testing.assert_array_equal(sorted_rows(axes.collections[0].get_offsets()), sorted_rows(MU[:, :2]))
    assert axes.get_title() == "The latent plane"


def test_latent_plane_shows_a_random_part_of_very_many_rows(monkeypatch):
    monkeypatch.setattr(plots, "MAX_POINTS", 30)
    seen = np.asarray(plots.latent_plane(MU[:, :2]).axes[0].collections[0].get_offsets())
    assert len(np.unique(seen, axis=0)) == 30
    assert not np.isin(MU[30:, 0], seen[:, 0]).all()
    assert np.isin(MU[30:, 0], seen[:, 0]).any()  # not just the first


@pytest.mark.parametrize(
    ("values", "expected"),
    [([0.2, 0.4], (0, 1)), ([0, 1], (0, 1)), ([-2, 3], (-2, 3)), ([0.2, 3], (0.2, 3)), ([-2, 0.5], (-2, 0.5))],
)
def test_grey_range_is_0_to_1_for_values_within_else_the_extremes(values, expected):
    assert plots.grey_range(np.array(values)) == expected


# ------------------------------------------------------------------------------------- the user's settings of Matplotlib

HOSTILE = {"text.usetex": True, "image.origin": "lower", "image.cmap": "jet", "axes.facecolor": "black", "font.size": 30,
           "savefig.format": "svg", "savefig.transparent": True, "lines.linestyle": "none", "axes.grid": True,
           "axes.prop_cycle": matplotlib.cycler(color=["red"]), "figure.dpi": 20, "legend.frameon": True}  # fmt: skip
X = np.random.default_rng(0).random((6, 12))
PLANE = npvae.VAE(12, 2, (), backend="numpy")


class Disc:
    """A density in the plane, as `plots.density` takes it."""

    def log_likelihood(self, x):
        return -(x**2).sum(axis=1)

    def sample(self, n, seed):
        return np.random.default_rng(seed).standard_normal((n, 2))


PICTURES_OF_ALL_KINDS = {
    "history": lambda: plots.history(history(3), npvae.VAE),
    "reconstructions": lambda: plots.reconstructions(X, 1 - X, (3, 4), np.arange(6), "digit"),
    "reconstructed curves": lambda: plots.reconstructions(X, 1 - X),
    "samples": lambda: plots.samples(X, (3, 4)),
    "curves": lambda: plots.samples(X),
    "points": lambda: plots.samples(X[:, :2]),
    "density": lambda: plots.density(Disc(), X[:, :2], n=20),
    "decoded grid": lambda: plots.decoded_grid(PLANE, (3, 4), n=4),
    "latent plane": lambda: plots.latent_plane(X[:, :2], np.arange(6), "digit"),
    "latent plane of quantities": lambda: plots.latent_plane(X[:, :2], X[:, 2], "temperature"),
    "one latent dimension": lambda: plots.latent_plane(X[:, :1]),
    "backward flow": lambda: plots.backward_flow(PLANE, X),
}


@pytest.mark.parametrize("make", PICTURES_OF_ALL_KINDS.values(), ids=PICTURES_OF_ALL_KINDS)
def test_a_picture_that_is_made_and_saved_by_save_knows_nothing_of_the_user_s_settings(tmp_path, make):
    expected = drawn(make, tmp_path)
    with matplotlib.rc_context(HOSTILE):
        np.testing.assert_array_equal(drawn(make, tmp_path), expected)
        assert {name: matplotlib.rcParams[name] for name in HOSTILE} == HOSTILE


def test_images_are_never_upside_down():
    """Also where a figure is made with the user's settings."""
    with matplotlib.rc_context({"image.origin": "lower"}):
        for figure in (plots.samples(X, (3, 4)), plots.reconstructions(X, X, (3, 4)), plots.decoded_grid(PLANE, (3, 4), n=4)):
            for axes in figure.axes:
                bottom, top = axes.get_ylim()
                assert bottom > top


def test_pictures_of_several_threads_leave_the_user_s_settings_as_they_were(tmp_path):
    makers = [PICTURES_OF_ALL_KINDS[name] for name in ("samples", "curves", "points")]
    with matplotlib.rc_context(HOSTILE):
        with ThreadPoolExecutor(3) as pool:
            list(pool.map(lambda i: plots.save(makers[i], tmp_path / f"{i}.png", dpi=30), range(3)))
        assert {name: matplotlib.rcParams[name] for name in HOSTILE} == HOSTILE
    for i, make in enumerate(makers):
        np.testing.assert_array_equal(imread(tmp_path / f"{i}.png"), drawn(make, tmp_path))


@pytest.mark.parametrize(("backend", "is_one"), [("qt4agg", False), ("module://not_installed.inline", True), ("svg", True)])
def test_a_backend_that_is_not_installed_does_not_matter(tmp_path, backend, is_one):
    """Matplotlib's own import fails where it knows no MPLBACKEND. One that it knows is left to others who draw."""
    code = """if True:
        import os, sys
        from npvae.app import plots
        import matplotlib, numpy as np
        plots.save(plots.samples(np.eye(4), (2, 2)), sys.argv[1])
        print(os.environ["MPLBACKEND"], matplotlib.rcParams["backend"] == os.environ["MPLBACKEND"])
    """
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "a.png")], env={**os.environ, "MPLBACKEND": backend},
                          capture_output=True, text=True, check=True)  # fmt: skip
    assert done.stdout.split() == [backend, str(is_one)]
    assert imread(tmp_path / "a.png").std() > 0.01


def test_a_picture_that_fails_leaves_the_one_before(tmp_path, monkeypatch):
    figure = plots.samples(X, (3, 4))
    plots.save(figure, tmp_path / "a.png", dpi=30)
    before = (tmp_path / "a.png").read_bytes()

    def half(file, **options):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(figure, "savefig", half)
    with pytest.raises(OSError, match="No space left on device"):
        plots.save(figure, tmp_path / "a.png")
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
    assert (tmp_path / "a.png").read_bytes() == before


@pytest.mark.parametrize("image_shape", [(1, 300), (300, 1), (2, 150)])
def test_images_of_any_shape_are_drawn(tmp_path, image_shape):
    x, model = np.random.default_rng(0).random((5, 300)), npvae.VAE(300, 2, (), backend="numpy")
    grid = plots.decoded_grid(model, image_shape)
    for figure in (plots.samples(x, image_shape), plots.reconstructions(x, x, image_shape), grid):
        assert drawn(figure, tmp_path).size < 1e6
        for axes in figure.axes:
            assert len(axes.images) == 1


# -------------------------------------------------------------------------------------------------- the pictures of a run


def figures_of(monkeypatch, model, dataset):
    """The run's pictures by file name, as figures that are not written, and what is said of them."""
    figures = {}

    def kept(figure, path):
        figures[path.name] = figure() if callable(figure) else figure

    monkeypatch.setattr(plots, "save", kept)
    history = History([{**ROW, "val_kl": 5.0}, ROW])
    return figures, commands.draw_pictures(Path("folder"), model, Rows.of(model, dataset.x_val, "x"), dataset, history)


@pytest.mark.usefixtures("small_world")
def test_pictures_show_validation_rows_with_their_labels(monkeypatch):
    model, dataset = npvae.VAE(256, 2, (), seed=3, backend="numpy"), data.load("ising")
    figures, descriptions = figures_of(monkeypatch, model, dataset)
    assert sorted(figures) == sorted(descriptions) == PICTURES
    shown = [0, 11, 23, 35, 46, 58, 70, 82, 93, 105, 117, 129]  # from the first of 130 rows to the last
    x = dataset.x_val.astype(np.float32)
    axes = figures["reconstructions.png"].axes
    images = [a.images[0].get_array().ravel() for a in axes]
    np.testing.assert_array_equal(images, np.concatenate([x[shown], model.reconstruct(x[shown])]))
    assert [a.get_title() for a in axes[:12]] == [f"{t:.3g}" for t in dataset.labels_val[shown]]
    assert figures["reconstructions.png"].get_suptitle() == "temperature (J/k)"
    points = figures["latent.png"].axes[0].collections[0]
    seen = np.column_stack([points.get_offsets(), points.get_array()])
    expected = np.column_stack([model.encode(x)[0], dataset.labels_val])
    np.testing.assert_array_equal(seen[np.lexsort(seen.T)], expected[np.lexsort(expected.T)])
    assert figures["loss.png"].axes[2].lines[1].get_ydata().tolist() == [5, 1]
    assert descriptions["latent.png"] == "validation rows in the latent plane, by temperature (J/k)"
    assert figures["samples.png"].axes[0].get_title() == "E[x|z] for z drawn from the prior N(0, I)"
    assert figures["samples.png"].axes[0].images[0].get_array().shape == (8 * 17 - 1, 8 * 17 - 1)  # 64 draws


@pytest.mark.parametrize(("n_latent", "image_shape", "drawn"), [(2, (2, 2), True), (3, (2, 2), False), (2, None, False)])
def test_the_decoded_grid_is_drawn_for_two_dimensions_and_images(monkeypatch, n_latent, image_shape, drawn):
    dataset = data.Dataset("bits", np.eye(4), np.eye(4), None, "label", image_shape)
    figures, descriptions = figures_of(monkeypatch, npvae.VAE(4, n_latent, (), backend="numpy"), dataset)
    assert ("grid.png" in figures) == drawn
    assert descriptions["latent.png"] == "validation rows in the latent plane"  # there are no labels
    if image_shape is not None:
        shown = [axes.images[0].get_array().ravel() for axes in figures["reconstructions.png"].axes]
        np.testing.assert_array_equal(shown[: len(shown) // 2], np.eye(4))  # each of the four rows once
    assert not figures["reconstructions.png"].axes[0].get_title()


def test_the_latent_picture_shows_the_dimensions_with_the_largest_kl(monkeypatch):
    model = npvae.VAE(4, 3, (), backend="numpy")
    model.parameters["posterior.W"][:, 2] = 0
    model.parameters["posterior.b"][2] = 3  # far from the prior's mean, and the same for every row
    dataset = data.Dataset("bits", np.eye(4), np.eye(4), None, "label", None)
    figures, _ = figures_of(monkeypatch, model, dataset)
    assert figures["latent.png"].axes[0].get_ylabel() == "posterior mean of $z_{3}$"
