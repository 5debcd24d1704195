"""The pictures: that they show the numbers they were given, and can be written without a warning."""

import numpy as np
import pytest
from matplotlib.image import imread

import npvae
from npvae import plots
from npvae.train import History


def history(n, val=True):
    rows = []
    for epoch in range(1, n + 1):
        row = {"epoch": epoch, "step": epoch, "seconds": 1.0}
        for part in ("train", "val"):
            for i, name in enumerate(("loss", "nll", "kl")):
                row[f"{part}_{name}"] = 100.0 / epoch + i if val or part == "train" else None
        rows.append(row)
    return History(rows)


def drawn(figure, tmp_path):
    """The picture as pixels, written and read."""
    plots.save(figure, tmp_path / "a.png", dpi=80)
    pixels = imread(tmp_path / "a.png")
    assert pixels[..., :3].std() > 0.01
    return pixels


@pytest.mark.parametrize("n", [1, 5, 40])
@pytest.mark.parametrize("val", [True, False])
def test_loss_curves_show_each_term_of_both_parts(tmp_path, n, val):
    figure = plots.loss_curves(history(n, val))
    drawn(figure, tmp_path)
    for axes, name in zip(figure.axes, ("loss", "nll", "kl")):
        assert axes.get_xlabel() == "epoch"
        assert "nats" in axes.get_ylabel()
        assert name in axes.get_title()
        lines = {line.get_label(): line.get_ydata() for line in axes.lines}
        assert list(lines) == ["training", "validation"][: 1 + val]
        np.testing.assert_array_equal(lines["training"], history(n)[f"train_{name}"])


@pytest.mark.parametrize("labels", [None, np.array([0.5, 1.25, 3])])
def test_reconstructions_stand_under_their_inputs(tmp_path, labels):
    x = np.random.default_rng(0).random((3, 12))
    figure = plots.reconstructions(x, 1 - x, (3, 4), labels, "temperature")
    drawn(figure, tmp_path)
    images = [axes.images[0].get_array() for axes in figure.axes]
    for i in range(3):
        np.testing.assert_array_equal(images[i], x[i].reshape(3, 4))
        np.testing.assert_array_equal(images[3 + i], 1 - x[i].reshape(3, 4))
    assert [axes.get_title() for axes in figure.axes[:3]] == (["", "", ""] if labels is None else ["0.5", "1.25", "3"])


@pytest.mark.parametrize("n", [1, 4, 6])
def test_rows_that_are_not_images_are_curves(tmp_path, n):
    x = np.random.default_rng(0).random((n, 12))
    figure = plots.reconstructions(x, 1 - x)
    drawn(figure, tmp_path)
    for i in range(n):
        np.testing.assert_array_equal(figure.axes[i].lines[0].get_ydata(), x[i])
        np.testing.assert_array_equal(figure.axes[i].lines[1].get_ydata(), 1 - x[i])
    drawn(plots.samples(x), tmp_path)


@pytest.mark.parametrize("n", [1, 5, 16])
def test_samples_are_tiles(tmp_path, n):
    x = np.random.default_rng(0).random((n, 12))
    figure = plots.samples(x, (3, 4))
    drawn(figure, tmp_path)
    canvas = np.asarray(figure.axes[0].images[0].get_array())
    np.testing.assert_array_equal(canvas[:3, :4], x[0].reshape(3, 4))
    columns = int(np.ceil(np.sqrt(n)))
    top, left = (n - 1) // columns * 4, (n - 1) % columns * 5
    np.testing.assert_array_equal(canvas[top : top + 3, left : left + 4], x[-1].reshape(3, 4))


def test_the_decoded_grid_takes_equal_steps_of_the_prior_s_probability(tmp_path):
    model = npvae.VAE(4, 2, (), likelihood="gaussian", dtype="float64", backend="numpy")
    model.theta[:] = 0
    model.parameters["likelihood.W"][:, :2] = np.eye(2)  # the first two of four pixels are z itself
    figure = plots.decoded_grid(model, (2, 2), n=5)
    drawn(figure, tmp_path)
    canvas = np.asarray(figure.axes[0].images[0].get_array())
    quantiles = [-1.2815515655, -0.5244005127, 0, 0.5244005127, 1.2815515655]  # of N(0, 1) at 0.1, 0.3, ..., 0.9
    np.testing.assert_allclose(canvas[0, ::2], quantiles, atol=1e-9)  # z1 grows to the right
    np.testing.assert_allclose(canvas[::2, 1], quantiles[::-1], atol=1e-9)  # z2 grows upwards
    assert [tick.get_text() for tick in figure.axes[0].get_yticklabels()] == ["-1.28", "0.00", "1.28"]
    assert figure.axes[0].get_yticks()[0] > figure.axes[0].get_yticks()[-1]


@pytest.mark.parametrize("labels", [None, np.arange(40) % 10, np.linspace(1, 4, 40), np.arange(40)])
@pytest.mark.parametrize("n_latent", [1, 2, 5])
def test_latent_plane_for_every_kind_of_label_and_latent(tmp_path, labels, n_latent):
    mu = np.random.default_rng(0).standard_normal((40, n_latent))
    figure = plots.latent_plane(mu, labels, "temperature (J/k)")
    drawn(figure, tmp_path)
    assert figure.axes[0].get_xlabel().startswith("posterior mean of $z_")


def test_latent_plane_shows_the_dimensions_with_the_largest_kl():
    mu = np.random.default_rng(0).standard_normal((40, 4))
    figure = plots.latent_plane(mu, kl=np.array([0.1, 3, 0, 2]))
    assert "z_{2}" in figure.axes[0].get_xlabel()
    assert "z_{4}" in figure.axes[0].get_ylabel()
    points = np.asarray(figure.axes[0].collections[0].get_offsets())
    np.testing.assert_array_equal(points[np.argsort(points[:, 0])], mu[np.argsort(mu[:, 1])][:, [1, 3]])


def test_a_colour_is_one_label():
    labels = np.array([3, 7, 3, 7])
    figure = plots.latent_plane(np.array([[0, 0], [1, 1], [2, 2], [3, 3]]), labels, "digit")
    groups = {tuple(sorted(np.asarray(c.get_offsets())[:, 0])) for c in figure.axes[0].collections}
    assert groups == {(0, 2), (1, 3)}
    assert [text.get_text() for text in figure.axes[0].get_legend().get_texts()] == ["3", "7"]


def test_grey_range_is_0_to_1_for_probabilities_else_the_extremes():
    assert plots.grey_range(np.array([0.2, 0.4])) == (0, 1)
    assert plots.grey_range(np.array([-2.0, 3])) == (-2, 3)
