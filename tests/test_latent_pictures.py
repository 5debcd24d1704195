"""Pictures of a latent space: the paths, and that the pictures show what is decoded on them."""

import matplotlib
import numpy as np
import pytest
from test_plots import drawn

import npvae
from npvae import models
from npvae.app import latent_pictures
from npvae.app.drawing import TRAIN
from npvae.data import Dataset, Scaling, Whole

RNG = np.random.default_rng(0)


def first_pixels(z):
    """A decoder of 2 × 3 images whose first pixels are z itself, (n, 3) -> (n, 6)."""
    return np.hstack([z, np.zeros((len(z), 6 - z.shape[1]))])


def canvas_of(figure):
    return np.asarray(figure.axes[0].images[0].get_array())


def tick_labels(axis):
    return [label.get_text() for label in axis.get_ticklabels()]


# ---- paths


def test_the_straight_path_has_equal_steps():
    path = latent_pictures.linear_path(np.array([0.0, 4.0]), np.array([2.0, 0.0]), 5)
    np.testing.assert_allclose(path, [[0, 4], [0.5, 3], [1, 2], [1.5, 1], [2, 0]])


def test_the_spherical_path_keeps_the_distance_from_0_and_has_equal_angles():
    start, end = RNG.normal(size=(2, 7))
    end *= np.linalg.norm(start) / np.linalg.norm(end)
    path = latent_pictures.spherical_path(start, end, 6)
    np.testing.assert_allclose(path[[0, -1]], [start, end])
    np.testing.assert_allclose(np.linalg.norm(path, axis=1), np.linalg.norm(start))
    cosines = (path[1:] * path[:-1]).sum(axis=1) / (start @ start)
    np.testing.assert_allclose(np.arccos(cosines), np.arccos(start @ end / (start @ start)) / 5)


def test_the_spherical_path_reaches_ends_at_unequal_distances():
    start, end = np.array([1.0, 0.0]), np.array([0.0, 3.0])
    path = latent_pictures.spherical_path(start, end, 3)
    np.testing.assert_allclose(path, [start, [0.5**0.5, 3 * 0.5**0.5], end], atol=1e-12)


@pytest.mark.parametrize("factor", [2.0, -2.0, 0.0, 1 + 1e-9])
def test_where_there_is_no_spherical_path_it_is_the_straight_one(factor):
    start = np.array([1.0, -2.0, 0.5])
    path = latent_pictures.spherical_path(start, factor * start, 4)
    np.testing.assert_allclose(path, latent_pictures.linear_path(start, factor * start, 4))


# ---- traversals, interpolations


def test_traversals_change_one_dimension_in_each_row(tmp_path):
    z = np.array([0.3, -0.7, 1.1])
    figure = latent_pictures.traversals(first_pixels, z, [2, 0], (2, 3), [-1, 0, 2, 4])
    drawn(figure, tmp_path)
    canvas, axes = canvas_of(figure), figure.axes[0]
    assert canvas.shape == (5, 15)
    np.testing.assert_allclose(canvas[0, 2::4], [-1, 0, 2, 4])  # z3 in the first row of images
    np.testing.assert_allclose(canvas[0, :2], z[:2])
    np.testing.assert_allclose(canvas[3, ::4], [-1, 0, 2, 4])  # z1 in the second
    np.testing.assert_allclose(canvas[3, 1:3], z[1:])
    assert tick_labels(axes.yaxis) == ["$z_{3}$", "$z_{1}$"]
    assert tick_labels(axes.xaxis) == ["-1", "0", "2", "4"]
    np.testing.assert_allclose(axes.get_xticks(), [1, 5, 9, 13])  # the middle of each image
    np.testing.assert_allclose(axes.get_yticks(), [0.5, 3.5])
    assert axes.get_xlabel() == "value of $z$"


def test_traversals_reach_from_minus_3_to_3_in_the_data_s_units(tmp_path):
    canvas = canvas_of(latent_pictures.traversals(first_pixels, np.zeros(3), [1], (2, 3), in_own_units=Scaling(10.0, 2.0).undo))
    np.testing.assert_allclose(canvas[0, 1::4], 10 + 2 * np.linspace(-3, 3, 9))


def test_each_dimension_may_have_values_of_its_own():
    values = np.array([[-1.0, 0, 1], [5, 6, 7]])
    figure = latent_pictures.traversals(first_pixels, np.zeros(3), [0, 1], (2, 3), values)
    np.testing.assert_allclose(canvas_of(figure)[0, ::4], values[0])
    np.testing.assert_allclose(canvas_of(figure)[3, 1::4], values[1])
    assert tick_labels(figure.axes[0].xaxis) == ["lowest", "", "highest"]


def test_traversals_of_curves_are_panels_coloured_by_z(tmp_path):
    figure = latent_pictures.traversals(first_pixels, np.zeros(3), [0, 1, 2, 1], None, [-2.0, 0, 2])
    drawn(figure, tmp_path)
    panels, bar = figure.axes[:6], figure.axes[6]
    assert [panel.get_visible() for panel in panels] == [True] * 4 + [False] * 2
    assert [panel.get_title() for panel in panels[:4]] == ["$z_{1}$", "$z_{2}$", "$z_{3}$", "$z_{2}$"]
    for panel, l in zip(panels, [0, 1, 2, 1]):
        for line, value, colour in zip(panel.lines, (-2, 0, 2), matplotlib.colormaps["viridis"]([0, 0.5, 1.0]), strict=True):
            np.testing.assert_array_equal(line.get_ydata(), value * np.eye(6)[l])
            np.testing.assert_allclose(line.get_color(), colour)
    assert bar.get_ylabel() == "value of $z$"
    assert bar.get_ylim() == (-2, 2)


def test_traversals_of_points_are_points(tmp_path):
    figure = latent_pictures.traversals(lambda z: z + 1, np.array([0.0, 5]), [0], None, [-2.0, 0, 2])
    drawn(figure, tmp_path)
    np.testing.assert_array_equal(figure.axes[0].collections[0].get_offsets(), [[-1, 6], [1, 6], [3, 6]])
    assert (figure.axes[0].get_xlabel(), figure.axes[0].get_ylabel()) == ("$x_1$", "$x_2$")


def test_interpolations_go_both_ways_between_the_points_of_each_pair(tmp_path):
    pairs = RNG.normal(size=(2, 2, 3))
    figure = latent_pictures.interpolations(first_pixels, pairs, (2, 3), n=5)
    drawn(figure, tmp_path)
    canvas = canvas_of(figure)
    assert tick_labels(figure.axes[0].yaxis) == ["linear", "spherical"] * 2
    assert tick_labels(figure.axes[0].xaxis) == ["0", "0.25", "0.5", "0.75", "1"]
    for k, (start, end) in enumerate(pairs):
        for row, path in enumerate([latent_pictures.linear_path, latent_pictures.spherical_path]):
            shown = canvas[3 * (2 * k + row)].reshape(-1)
            shown = np.stack([shown[4 * i : 4 * i + 3] for i in range(5)])
            np.testing.assert_allclose(shown, path(start, end, 5))


def test_interpolations_of_curves(tmp_path):
    pair = RNG.normal(size=(1, 2, 3))
    figure = latent_pictures.interpolations(first_pixels, pair, in_own_units=lambda x: 2 * x, n=4)
    drawn(figure, tmp_path)
    lines = np.stack([line.get_ydata() for line in figure.axes[1].lines])
    np.testing.assert_allclose(lines, 2 * first_pixels(latent_pictures.spherical_path(*pair[0], 4)))
    assert [axes.get_title() for axes in figure.axes[:2]] == ["linear", "spherical"]
    assert figure.axes[2].get_ylabel() == "share of the way"


# ---- use of the dimensions


@pytest.mark.parametrize("n_latent", [1, 3, 90])
def test_bars_stand_in_falling_order(n_latent, tmp_path):
    kl = RNG.random(n_latent)
    figure = latent_pictures.usage_bars(kl)
    drawn(figure, tmp_path)
    axes, order = figure.axes[0], np.argsort(-kl)
    np.testing.assert_allclose([bar.get_height() for bar in axes.patches], kl[order])
    np.testing.assert_allclose([bar.get_x() + bar.get_width() / 2 for bar in axes.patches], range(n_latent), atol=1e-9)
    ticks = axes.get_xticks()
    assert tick_labels(axes.xaxis) == [f"$z_{{{order[int(tick)] + 1}}}$" for tick in ticks]
    assert len(ticks) == {1: 1, 3: 3, 90: 30}[n_latent]
    assert axes.get_ylabel() == "mean KL, nats"
    assert axes.get_title() == f"{kl.sum():.3g} in all"
    assert matplotlib.colors.to_hex(axes.patches[0].get_facecolor()) == TRAIN


# ---- the pictures of a model


def dataset_of(x, image_shape, **fields):
    return Dataset("rows", x, x, None, "label", image_shape, **fields)


def test_the_pictures_of_a_vae(tmp_path):
    model, x = npvae.VAE(6, 12, (4,), likelihood="gaussian", seed=1), RNG.normal(size=(7, 6))
    model.theta[:] *= 3
    made = {name: figure() for name, _, figure in latent_pictures.pictures(model, (x,), dataset_of(x, (2, 3)))}
    assert list(made) == ["traversals", "interpolations", "usage"]
    kl = npvae.evaluate.kl_per_dimension(model, x)
    most = np.argsort(-kl)[:10]
    assert tick_labels(made["traversals"].axes[0].yaxis) == [f"$z_{{{l + 1}}}$" for l in most]
    z = model.encode(x)[0][:1].copy()
    z[0, most[3]] = -3
    np.testing.assert_allclose(canvas_of(made["traversals"])[9:11, :3], model.decode(z).reshape(2, 3), rtol=1e-5)
    canvas, rebuilt = canvas_of(made["interpolations"]), model.reconstruct(x).reshape(-1, 2, 3)
    assert canvas.shape == (6 * 3 - 1, 9 * 4 - 1)  # three pairs of seven rows
    for pair in range(3):
        for row in (6 * pair, 6 * pair + 3):
            np.testing.assert_allclose(canvas[row : row + 2, :3], rebuilt[2 * pair], rtol=1e-5, atol=1e-6)
            np.testing.assert_allclose(canvas[row : row + 2, -3:], rebuilt[2 * pair + 1], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose([bar.get_height() for bar in made["usage"].axes[0].patches], np.sort(kl)[::-1], rtol=1e-6)
    assert [name for name, *_ in latent_pictures.pictures(model, (x[:1],), dataset_of(x, (2, 3)))] == ["traversals", "usage"]


def test_a_model_without_a_prior_is_shown_where_its_codes_are():
    model, x = models.Autoencoder(6, 2, (), seed=1), RNG.normal(size=(9, 6))
    made = {name: figure() for name, _, figure in latent_pictures.pictures(model, (x,), dataset_of(x, (2, 3)))}
    codes = model.encode(x)
    variance = codes.var(axis=0)
    most = np.argsort(-variance)
    z = codes[:1].copy()
    z[0, most[0]] = codes[:, most[0]].max()
    np.testing.assert_allclose(canvas_of(made["traversals"])[:2, -3:], model.decode(z).reshape(2, 3), rtol=1e-5)
    z = codes[:1].copy()
    z[0, most[1]] = codes[:, most[1]].min()
    np.testing.assert_allclose(canvas_of(made["traversals"])[3:, :3], model.decode(z).reshape(2, 3), rtol=1e-5)
    assert made["usage"].axes[0].get_ylabel() == "variance of the code"
    np.testing.assert_allclose([bar.get_height() for bar in made["usage"].axes[0].patches], variance[most], rtol=1e-6)


def test_a_conditional_model_is_decoded_under_the_condition_of_the_first_row():
    model = models.ConditionalVAE(6, 3, 2, (7,), likelihood="gaussian", seed=5)
    x, upper, scaling = RNG.normal(size=(40, 6)), RNG.normal(size=(40, 3)), Scaling(5.0, 2.0)
    dataset = dataset_of(x, (2, 3), condition_train=upper, condition_val=upper, condition_name="upper half", n_condition=3,
                         scaling=scaling, whole=Whole((3, 3), scaling))  # fmt: skip
    made = {name: figure() for name, _, figure in latent_pictures.pictures(model, (x, upper), dataset)}
    canvas = canvas_of(made["interpolations"])
    np.testing.assert_allclose(canvas[:3, :3], 5 + 2 * np.vstack([upper[:1], model.reconstruct(x, upper)[0].reshape(2, 3)]),
                               rtol=1e-5)  # fmt: skip
    last = model.decode(model.encode(x, upper)[0][1:2], upper[:1])
    np.testing.assert_allclose(canvas[:3, -3:], 5 + 2 * np.vstack([upper[:1], last.reshape(2, 3)]), rtol=1e-5)
