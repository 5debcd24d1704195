"""The examples run and say what they claim."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import multivariate_normal

import npvae

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture
def one_file(monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES)
    import vae_in_one_file

    return vae_in_one_file


def test_vae_in_one_file_runs_from_the_command_line():
    command = [sys.executable, EXAMPLES / "vae_in_one_file.py", "3"]
    out = subprocess.run(command, capture_output=True, text=True, check=True, encoding="utf-8").stdout
    losses = [float(value) for value in re.findall(r"ELBO +([\d.]+) nats", out)]
    assert len(losses) == 3
    assert losses[-1] < losses[0] < 144 * np.log(2)
    assert float(re.search(r"gradient: (\S+)", out)[1]) < 1e-12
    assert float(re.search(r"correlation (\S+)", out)[1]) > 0.9


def test_vae_in_one_file_imports_numpy_and_sys_only():
    tree = ast.parse((EXAMPLES / "vae_in_one_file.py").read_text(encoding="utf-8"))
    assert not any(isinstance(node, ast.ImportFrom) for node in ast.walk(tree))
    imports = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    assert sorted(imports) == ["numpy", "sys"]


def test_vae_in_one_file_simulates_the_ising_model(one_file):
    """The mean energy at each temperature is Kaufman's exact one of the finite lattice, within 5 standard errors."""
    temperatures, n, size = [1.5, 2.27, 4.0], 4000, 4
    spins = one_file.ising(temperatures, n, size, sweeps=60, rng=np.random.default_rng(1))
    assert spins.shape == (3 * n, size**2)
    assert set(np.unique(spins)) == {-1, 1}
    energy = npvae.data.ising.energy_per_spin(spins, size).reshape(3, n)
    expected = [npvae.data.ising.kaufman_energy(T, size) for T in temperatures]
    standard_error = energy.std(axis=1) / np.sqrt(n)
    assert np.all(np.abs(energy.mean(axis=1) - expected) < 5 * standard_error)
    assert abs(spins.mean()) < 0.05  # without a field, up is as likely as down


def test_vae_in_one_file_is_the_package_s_model(one_file):
    rng = np.random.default_rng(0)
    model = npvae.VAE(9, 2, (5,), "tanh", dtype="float64", backend="numpy")
    model.theta = rng.standard_normal(model.theta.size)
    p = dict(zip(["W1", "b1", "W2", "b2", "W3", "b3", "W4", "b4"], model.parameters.values()))
    x, eps = rng.integers(0, 2, (4, 9)).astype(float), rng.standard_normal((4, 2))
    loss, cache = one_file.forward(p, x, eps)
    terms, model_cache = model.forward(x, eps)
    assert loss == pytest.approx(terms.loss, rel=1e-13)
    grads = one_file.backward(p, cache)
    for name, expected in zip(p, model.backward(model_cache).values()):
        np.testing.assert_allclose(grads[name], expected, rtol=0, atol=1e-13 * np.abs(expected).max())


@pytest.fixture
def digits(monkeypatch):
    """In place of MNIST: 28 × 28 images of one bar each, grey."""
    monkeypatch.syspath_prepend(EXAMPLES)
    rng = np.random.default_rng(0)
    images = np.zeros((300, 28, 28), np.uint8)
    for image, row, column in zip(images, rng.integers(2, 24, 300), rng.integers(2, 24, 300)):
        image[row : row + 3, 4:24] = 200
        image[4:24, column : column + 2] = 100
    images = images.reshape(300, 784)
    labels = np.zeros(300, np.uint8)
    monkeypatch.setattr(npvae.data.mnist, "load", lambda *_: npvae.data.mnist.MNIST(images, labels, images, labels))


@pytest.mark.usefixtures("digits")
def test_probabilistic_pca_prints_both_likelihoods_and_draws(monkeypatch, tmp_path, capsys):
    import probabilistic_pca

    monkeypatch.setattr(probabilistic_pca, "EPOCHS", 3)
    monkeypatch.setattr(sys, "argv", ["probabilistic_pca.py", "--out", str(tmp_path / "a.png")])
    probabilistic_pca.main()
    out = capsys.readouterr().out
    exact, reached, less = map(float, re.search(r"closed form (\S+), the trained VAE (\S+) \((\S+) less\)", out).groups())
    assert exact - reached == pytest.approx(less, abs=2e-4)
    assert less > 0
    assert (tmp_path / "a.png").stat().st_size > 10_000


@pytest.mark.usefixtures("digits")
def test_posterior_collapse_prints_a_row_for_every_remedy_and_draws(monkeypatch, tmp_path, capsys):
    import posterior_collapse

    monkeypatch.setattr(posterior_collapse, "EPOCHS", 2)
    monkeypatch.setattr(sys, "argv", ["posterior_collapse.py", "--out", str(tmp_path / "a.png")])
    posterior_collapse.main()
    rows = re.findall(r"^(\w.*?) {2,}(\d+) of 20 +(\S+) +(\S+) +(\S+) ", capsys.readouterr().out, re.MULTILINE)
    assert [name for name, *_ in rows] == list(posterior_collapse.remedies(10))
    for _, active, *values in rows:
        loss, nll, kl = map(float, values)
        assert loss == pytest.approx(nll + kl, abs=0.02)
        assert 0 <= int(active) <= 20
    assert (tmp_path / "a.png").stat().st_size > 10_000


@pytest.mark.usefixtures("digits")
def test_three_planes_prints_error_codes_and_density_of_each(monkeypatch, tmp_path, capsys):
    """PCA's row is known in closed form (Tipping & Bishop 1999, at the maximum), those of the others follow from the models."""
    import three_planes

    images, labels, *_ = (array[:60] for array in npvae.data.mnist.load(None))
    monkeypatch.setattr(npvae.data.mnist, "load", lambda *_: npvae.data.mnist.MNIST(images, labels, images, labels))
    monkeypatch.setattr(three_planes, "HIDDEN", (16, 8))  # as little as possible, for kernels that are not compiled
    monkeypatch.setattr(three_planes, "BATCH_SIZE", 10)
    drawn, draw = [], three_planes.draw
    monkeypatch.setattr(three_planes, "draw", lambda planes, *rest: drawn.append(planes) or draw(planes, *rest))
    monkeypatch.setattr(sys, "argv", ["three_planes.py", "--epochs", "2", "--out", str(tmp_path / "a.png")])
    three_planes.main()
    out = capsys.readouterr().out
    rows = re.findall(r"^(\w+) +([\d.]+) +(\S+), (\S+) +(\S+), (\S+) {3}(\S.*)$", out, re.MULTILINE)
    assert [name for name, *_ in rows] == ["PCA", "autoencoder", "VAE"]
    error, *_ = zip(*[map(float, numbers) for _, *numbers, _ in rows])
    densities = [float(found[1]) if (found := re.search(r"(-?[\d.]+) nats", said)) else None for *_, said in rows]

    x = images / 255
    variances = np.linalg.svd(x - x.mean(axis=0), compute_uv=False) ** 2 / len(x)
    sigma2 = variances[2:].sum() / 782  # of the D − L dimensions beside the plane
    assert error[0] == pytest.approx(variances[2:].sum(), abs=0.006)
    log_p = -0.5 * (784 * (np.log(2 * np.pi) + 1) + np.log(variances[:2]).sum() + 782 * np.log(sigma2))
    assert densities[0] == pytest.approx(log_p, abs=0.06)

    _, autoencoder, vae = (plane.model for plane in drawn[0].values())
    mu, _ = vae.encode(x)
    for i, z, model in [(1, autoencoder.encode(x), autoencoder), (2, mu, vae)]:
        assert error[i] == pytest.approx(((x - model.decode(z)) ** 2).sum(axis=1).mean(), abs=0.006)
        np.testing.assert_allclose(np.float64(rows[i][2:6]), [*z.mean(axis=0), *z.std(axis=0)], atol=0.006)
    assert densities[1] is None
    assert [*drawn[0]["VAE"].centre, *drawn[0]["VAE"].spread] == [0, 0, 1, 1]  # of the prior, and not of its codes
    eps = np.random.default_rng(0).standard_normal((10, *mu.shape))  # the same draws
    assert densities[2] == pytest.approx(-np.mean([vae.forward(x, one)[0].loss for one in eps]), abs=0.06)
    assert vae.theta.size == autoencoder.theta.size + 2 * 9  # the same layers, and two log-variances
    assert (tmp_path / "a.png").stat().st_size > 10_000


def test_three_planes_decodes_what_lies_under_the_dashed_rectangle(monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES)
    import three_planes

    rng = np.random.default_rng(0)
    x, labels = rng.random((40, 784)), np.repeat(np.arange(10), 4)
    model = three_planes.PCA(rng.random(784), rng.random((2, 784)))
    planes = {name: three_planes.plane_of(model, x, 2.5) for name in ("PCA", "autoencoder", "VAE")}
    figure = three_planes.draw(planes, x, labels)
    scatter, grid, pairs, words = np.reshape(figure.axes, (4, 3))[:, 2]
    (left, bottom), (right, top) = scatter.patches[0].get_bbox().get_points()
    assert (left, bottom) == pytest.approx(planes["VAE"].z.mean(axis=0) - 1.6448536 * planes["VAE"].z.std(axis=0))  # Φ⁻¹(0.95)
    for tile, z in [(np.s_[:28, :28], (left, top)), (np.s_[-28:, :28], (left, bottom)), (np.s_[:28, -28:], (right, top))]:
        np.testing.assert_allclose(grid.images[0].get_array()[tile].ravel(), model.decode(np.array([z]))[0], rtol=1e-6)
    shown = pairs.images[0].get_array()
    np.testing.assert_array_equal(shown[:28, 29:57].ravel(), x[4])  # the first image of a one
    np.testing.assert_allclose(shown[29:, 29:57].ravel(), model.reconstruct(x[4:5])[0])
    assert scatter.get_title().endswith(f"squared error {planes['VAE'].error:.1f}; log p(x) ≥ 2.5 nats (ELBO)")
    assert " ".join(words.texts[0].get_text().split()) == three_planes.LACKS["VAE"]


def test_full_posterior_prints_what_each_posterior_reaches_next_to_the_exact_numbers(monkeypatch, tmp_path, capsys):
    """log p(x) is that of SciPy, the ELBO also that of random ε, and the gap of lesson 08 is log(5/3)."""
    monkeypatch.syspath_prepend(EXAMPLES)
    import full_posterior

    drawn, draw = [], full_posterior.draw
    monkeypatch.setattr(full_posterior, "draw", lambda trained, *rest: drawn.append(trained) or draw(trained, *rest))
    monkeypatch.setattr(sys, "argv", ["full_posterior.py", "--out", str(tmp_path / "a.png")])
    full_posterior.main()
    rows = re.findall(r"^(\S.*\)) +(\S+) +(\S+) +(\S+) +(\S+), (\S+) +(\S+)$", capsys.readouterr().out, re.MULTILINE)
    assert [name for name, *_ in rows] == ["log p(x) and p(z|x)", "ELBO, full q(z|x)", "ELBO, diagonal q(z|x)"]
    W, b = np.array([[2.0, 2.0, 1.0], [2.0, 1.0, 2.0]]), np.array([0.5, 0.0, -0.5])
    many = full_posterior.draw_data(100_000, np.random.default_rng(1))
    np.testing.assert_allclose(np.cov(many.T), W.T @ W + np.eye(3), atol=0.2)  # 5 standard errors of 9 ± 0.04
    np.testing.assert_allclose(many.mean(axis=0), b, atol=0.05)
    x = full_posterior.draw_data(full_posterior.N_ROWS, np.random.default_rng(0))
    log_p, gap = multivariate_normal(b, W.T @ W + np.eye(3)).logpdf(x).mean(), np.log(5 / 3)
    exact = [log_p, 0, 0, np.sqrt(10 / 36), np.sqrt(10 / 36), -0.8]  # the covariance is (10, −8; −8, 10)/36
    best_diagonal = [log_p - gap, gap, gap, np.sqrt(1 / 10), np.sqrt(1 / 10), 0]
    np.testing.assert_allclose([np.float64(row[1:]) for row in rows], [exact, exact, best_diagonal], rtol=0, atol=1e-4)
    for (model, elbos), short in zip(drawn[0].values(), (0, gap)):
        assert log_p - elbos[-1] == pytest.approx(short, abs=1e-5)
        sampled = npvae.evaluate.elbo(model, x, 0, 100)
        assert abs(sampled.elbo - elbos[-1]) < 5 * sampled.standard_error < 0.05
        np.testing.assert_array_equal(model.parameters["likelihood.W"], W)  # the decoder is given
        np.testing.assert_array_equal(model.parameters["likelihood.b"], b)
    assert (tmp_path / "a.png").stat().st_size > 10_000


def test_full_posterior_draws_both_posteriors_and_the_bounds(monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES)
    import full_posterior

    x = full_posterior.draw_data(50, np.random.default_rng(1))
    trained = {name: full_posterior.train(name, x) for name in ("full", "diagonal")}
    *panels, right = full_posterior.draw(trained, x[:1], -6.0).axes
    mean = np.linalg.solve([[10, 8], [8, 10]], [[2, 2, 1], [2, 1, 2]] @ (x[0] - [0.5, 0, -0.5]))
    posterior, best_diagonal = np.array([[10, -8], [-8, 10]]) / 36, np.eye(2) / 10
    for axes, covariance in zip(panels, (posterior, best_diagonal)):
        drawn = [line.get_xydata() for line in axes.lines] + [patch.get_xy() for patch in axes.patches]
        expected = [(np.zeros(2), np.eye(2)), (mean, covariance), (mean, posterior)]  # prior, q(z|x), p(z|x)
        for points, (i, radius) in zip(drawn, [(i, radius) for i in range(3) for radius in (2, 1)], strict=True):
            centre, spread = expected[i]
            distance = np.sqrt(np.einsum("nl,lk,nk->n", points - centre, np.linalg.inv(spread), points - centre))
            np.testing.assert_allclose(distance, radius, atol=0.02)
            assert np.ptp(points[:, 0]) == pytest.approx(2 * radius * np.sqrt(spread[0, 0]), rel=0.02)
    full, diagonal, log_p, log_p_less_gap = (line.get_ydata() for line in right.lines)
    assert [*full] == [*trained["full"][1]]
    assert [*diagonal] == [*trained["diagonal"][1]]
    assert (log_p[0], log_p_less_gap[0]) == pytest.approx((-6, -6 - np.log(5 / 3)))
    assert min(np.diff(full).min(), np.diff(diagonal).min()) > -1e-9  # a minimiser of the loss makes no step upwards


@pytest.fixture
def faces(tmp_path, monkeypatch):
    """In place of the Frey faces: flat rows of 6 × 4 bytes, of which the first row of pixels never varies."""
    monkeypatch.syspath_prepend(EXAMPLES)
    rng = np.random.default_rng(0)
    images = (rng.integers(40, 200, (250, 1, 4)) + rng.integers(-20, 20, (250, 6, 4))).astype(np.uint8)
    images[:, 0] = 7
    np.save(tmp_path / "faces.npy", images.reshape(250, 24))
    return tmp_path


def test_grey_images_prints_all_likelihoods_in_the_same_bits_and_draws(faces, monkeypatch, capsys):
    import grey_images

    drawn, draw = [], grey_images.draw
    monkeypatch.setattr(grey_images, "draw", lambda models, *rest: drawn.append(models) or draw(models, *rest))
    monkeypatch.setattr(grey_images, "BATCH_SIZE", 50)
    options = ["--image-shape", "6", "4", "--steps", "30", "--out", str(faces / "a.png")]
    monkeypatch.setattr(sys, "argv", ["grey_images.py", "--data", "faces.npy", "--data-dir", str(faces), *options])
    grey_images.main()
    rows = re.findall(r"^(\w+) +(-?[\d.]+) +(-?[\d.]+) +(\S+) +(\S+) +(\d+) ", capsys.readouterr().out, re.MULTILINE)
    assert [name for name, *_ in rows] == list(drawn[0]) == list(grey_images.COMPARED)
    loss, bits, sigma, at_floor, _ = ([float(cell.strip("%")) if cell != "–" else None for cell in column]
                                      for column in list(zip(*rows))[1:])  # fmt: skip

    x = npvae.data.load(str(faces / "faces.npy")).x_val / 255
    eps = np.random.default_rng(1).standard_normal((200, len(x), grey_images.N_LATENT))
    for model, printed in zip(drawn[0].values(), loss):
        losses = [model.forward(x, one)[0].loss for one in eps]
        assert printed == pytest.approx(np.mean(losses), abs=0.06 + 6 * np.std(losses) / np.sqrt(10))
    more = np.where([name == "beta_binomial" for name in grey_images.COMPARED], 0, np.log2(255))  # of a density
    np.testing.assert_allclose(bits, np.array(loss) / (24 * np.log(2)) + more, atol=0.004)

    gaussian, learned_once, learned, beta_binomial = drawn[0].values()
    assert sigma[0] == 25.5 == gaussian.sigma * 255
    drawn_sigma = learned_once.draw_data(np.zeros((500, 10)), 0).std(axis=0).mean()
    assert sigma[1] == pytest.approx(255 * drawn_sigma, rel=0.02)
    logvar = learned.decoder_output(learned.encode(x)[0])[:, 24:]
    lowest = 2 * np.log(1 / 255)
    assert at_floor == [None, 0, pytest.approx(100 * (logvar <= lowest).mean(), abs=0.06), None]
    assert sigma[2] == pytest.approx(255 * np.exp(0.5 * np.maximum(logvar, lowest).mean()), rel=0.03)
    assert sigma[3] is None
    assert beta_binomial.data_kind == "levels"
    assert (faces / "a.png").stat().st_size > 10_000


def test_grey_images_keeps_the_weights_of_the_best_epoch(faces, monkeypatch):
    import grey_images

    thetas, fit = [], npvae.fit
    monkeypatch.setattr(npvae, "fit", lambda model, *rows, **options: fit(
        model, *rows, on_epoch=lambda _: thetas.append(model.theta.copy()), **options))  # fmt: skip
    monkeypatch.setattr(grey_images, "BATCH_SIZE", 41)
    monkeypatch.setattr(grey_images, "Cosine", lambda start, n_steps: lambda step: start if step < n_steps - 1 else 1.0)
    dataset = npvae.data.load(str(faces / "faces.npy"))
    made = grey_images.fitted("gaussian", dataset.x_train, dataset.x_val, 30)
    assert len(thetas) == 6  # a tenth of 225 rows is not trained on: five steps of 41 rows in each epoch
    assert made.epoch < 6  # the last step spoils it
    np.testing.assert_array_equal(made.model.theta, thetas[made.epoch - 1])


def test_grey_images_draws_what_each_likelihood_makes_of_an_image(monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES)
    import grey_images

    x = np.random.default_rng(0).integers(0, 256, (3, 24), np.uint8)
    models = {}
    for name in grey_images.COMPARED:
        models[name] = model = npvae.VAE(24, 10, (5,), likelihood=name)
        model.parameters["likelihood.W"] *= 4  # so that the noise depends on z
        model.buffers = {"uint8_scale": np.array(1 / 255)}
    figure = grey_images.draw(models, x, (6, 4))
    panels = np.reshape(figure.axes[:16], (4, 4))
    for row, (name, model) in zip(panels, models.items()):
        mu, _ = model.encode(x)
        given, mean, drawn, noise = (axes.images[0].get_array() for axes in row)
        np.testing.assert_allclose(given[:, 10:].ravel(), x[2] / 255)
        np.testing.assert_allclose(mean[:, 5:9].ravel(), model.decode(mu)[1], rtol=1e-5)
        np.testing.assert_allclose(drawn[:, :4].ravel(), model.draw_data(mu, 0)[0], rtol=1e-5)
        output = model.decoder_output(mu[2:])[0].astype(float)
        exact = {"gaussian": np.full(24, 0.1), "gaussian_global": np.ones(24), "gaussian_learned": np.exp(0.5 * output[24:]),
                 "beta_binomial": np.sqrt(npvae.ops.discrete.beta_binomial_variance(output)) / 255}[name]  # fmt: skip
        np.testing.assert_allclose(noise.ravel(), 255 * exact, rtol=6 / np.sqrt(2000))  # 6 standard errors of a deviation
        assert row[0].get_ylabel().startswith(f"{name}\n")


def test_grey_images_needs_images_of_bytes(faces, monkeypatch, capsys):
    import grey_images

    np.save(faces / "floats.npy", np.random.default_rng(0).random((10, 6, 4)))
    for name, got in [("floats.npy", "float64, of the image shape (6, 4)"), ("faces.npy", "uint8, of the image shape None")]:
        monkeypatch.setattr(sys, "argv", ["grey_images.py", "--data", str(faces / name)])
        with pytest.raises(SystemExit):
            grey_images.main()
        assert got in capsys.readouterr().err


@pytest.fixture
def labelled_digits(digits, monkeypatch):
    """The bars of `digits`, ten classes of them by the height of the upper one."""
    images, _, _, _ = npvae.data.mnist.load(None)
    labels = images.reshape(-1, 28, 28)[:, :, 4].argmax(axis=1).astype(np.uint8) // 3 % 10
    labels[:10] = np.arange(10)
    monkeypatch.setattr(npvae.data.mnist, "load", lambda *_: npvae.data.mnist.MNIST(images, labels, images, labels))


@pytest.mark.usefixtures("labelled_digits")
def test_conditional_prints_what_each_condition_is_worth_and_draws(monkeypatch, tmp_path, capsys):
    import conditional

    compared, compare, trained_on, fit = [], conditional.compare, [], npvae.fit
    monkeypatch.setattr(npvae, "fit", lambda model, batch, **options: (
        trained_on.append([array.shape for array in batch]) or fit(model, batch, **options)))  # fmt: skip
    monkeypatch.setattr(conditional, "compare", lambda *given: compared.append((given[0], compare(*given))) or compared[-1][1])
    monkeypatch.setattr(conditional, "N_TEST", 100)
    monkeypatch.setattr(conditional, "N_SAMPLES", 5)
    monkeypatch.setattr(sys, "argv", ["conditional.py", "--epochs", "2", "--out", str(tmp_path / "a.png")])
    conditional.main()
    by_class, by_half = [[(300, 784)], [(300, 784), (300,)]], [[(300, 392)], [(300, 392), (300, 392)]]
    assert trained_on == 2 * by_class + by_half
    rows = re.findall(r"^(\w.*?) {2,}(-?[\d.]+) +(-?[\d.]+)", capsys.readouterr().out, re.MULTILINE)
    images, halves = "images, z of {} dimensions", "lower halves, z of {} dimensions"
    expected = [images, f"{images}, given the digit", "what y is worth", halves, f"{halves}, given the upper half",
                "what y is worth"]  # fmt: skip
    assert [re.sub(r"\d+", "{}", name) for name, *_ in rows] == expected[:3] + expected
    printed = np.array([numbers for _, *numbers in rows], float).reshape(3, 3, 2)
    cases = [(784, 10, "standard", 8), (784, 10, "standard", 20), (392, 392, "learned", 8)]
    for (dataset, (with_y, without, _)), (plain, given, worth), (n, C, prior, L) in zip(compared, printed, cases):
        assert (with_y.n_features, with_y.n_condition, with_y.prior, with_y.n_latent) == (n, C, prior, L)
        assert (without.n_features, without.n_latent) == (n, L)
        np.testing.assert_allclose(worth, [plain[0] - given[0], given[1] - plain[1]], atol=0.011)
        x, y = npvae.model_input(without, dataset.x_val[:100], 0), dataset.condition_val[:100]
        eps = np.random.default_rng(1).standard_normal((20, 100, L))
        for model, batch, (loss, log_p) in [(without, (x,), plain), (with_y, (x, y), given)]:
            losses = [model.forward(*batch, one)[0].loss for one in eps]
            assert loss == pytest.approx(np.mean(losses), abs=0.006 + 6 * np.std(losses) / np.sqrt(10))
            assert log_p == pytest.approx(model.log_likelihood(*batch, 5, 0).mean(), abs=0.006)
    assert (tmp_path / "a.png").stat().st_size > 10_000


@pytest.mark.usefixtures("labelled_digits")
def test_conditional_draws_one_hand_in_all_classes_and_completes_halves():
    import conditional

    model = npvae.models.ConditionalVAE(784, 10, 3, (6,))
    digits = conditional.class_by_class(model, 4, 5)
    z = np.random.default_rng(5).standard_normal((4, 3))
    np.testing.assert_allclose(digits[7, 2], model.decode(z[2:3], np.array([7]))[0], rtol=1e-5)

    dataset = npvae.data.load("mnist", condition="half")
    model = npvae.models.ConditionalVAE(392, 392, 3, (6,), prior="learned")
    halves = conditional.completed(model, dataset, np.array([3, 8]), 5, 0)
    whole = npvae.data.mnist.load(None).x_test[[3, 8]] / 255
    np.testing.assert_allclose(halves[:, 1], whole, rtol=1e-6)
    np.testing.assert_allclose(halves[:, :, :392], np.repeat(whole[:, None, :392], 7, axis=1), rtol=1e-6)
    assert np.isnan(halves[:, 0, 392:]).all()
    rng = np.random.default_rng(0)
    for row, y in zip(halves, dataset.condition_val[[3, 8]]):
        np.testing.assert_allclose(row[2:, 392:], model.sample(np.repeat(y[None], 5, axis=0), rng), rtol=1e-5)

    left, right = conditional.draw(digits, halves, (28, 28)).axes
    for axes, images, i, j in [(left, digits, 7, 2), (right, halves, 1, 4)]:
        shown = axes.images[0].get_array()[29 * i : 29 * i + 28, 29 * j : 29 * j + 28]
        np.testing.assert_allclose(shown.ravel(), images[i, j])
    assert [label.get_text() for label in left.get_yticklabels()] == list("0123456789")
    assert [label.get_text() for label in right.get_xticklabels()] == ["given", "true", "5 completions"]


@pytest.fixture
def digits_of_scikit_learn(monkeypatch):
    """The example digits.py with few images, small models and one process; x, y, and the fitted pipelines as they come."""
    pytest.importorskip("sklearn")
    monkeypatch.syspath_prepend(EXAMPLES)
    import digits as example

    x, y = (array[:300] for array in example.load_digits(return_X_y=True))
    pipelines, validate = [], example.cross_validate

    def validated(*given, **options):
        scores = validate(*given, **{**options, "n_jobs": None}, return_estimator=True)
        pipelines.append(scores.pop("estimator"))
        return scores

    for name, value in {"DIMENSIONS": (2, 3), "HIDDEN": (6,), "EPOCHS": 3, "FOLDS": 2, "cross_validate": validated,
                        "load_digits": lambda return_X_y: (x, y)}.items():  # fmt: skip
        monkeypatch.setattr(example, name, value)
    return example, (x / 16).astype(np.float32), y, pipelines


def test_digits_prints_what_both_recognise_and_their_densities_of_unseen_images(
    digits_of_scikit_learn, monkeypatch, tmp_path, capsys
):
    example, x, y, pipelines = digits_of_scikit_learn
    monkeypatch.setattr(sys, "argv", ["digits.py", "--out", str(tmp_path / "a.png")])
    example.main()
    cells = re.findall(r"^(\d+) +(\S+) ± (\S+) +(\S+) ± (\S+) +(\S+) ± (\S+) +(\S+) ± (\S+)$", capsys.readouterr().out, re.M)
    printed = np.array(cells, float)  # dimensions, then mean and deviation: accuracy of PCA and VAE, log p of PCA and VAE
    assert printed[:, 0].tolist() == [2, 3]
    folds = list(example.StratifiedKFold(2, shuffle=True, random_state=0).split(x, y))
    for row, of_pca, of_vae in zip(printed, pipelines[::2], pipelines[1::2], strict=True):
        expected = []
        for fitted in (of_pca, of_vae):
            assert len(fitted[0][0].transform(x).T) == row[0]
            expected.append([(pipeline.predict(x[test]) == y[test]).mean() for pipeline, (_, test) in zip(fitted, folds)])
        exact = [npvae.ppca.maximum_likelihood(x[train].astype(float), int(row[0])) for train, _ in folds]
        of_pca = [multivariate_normal(p.mean, p.covariance * len(train) / (len(train) - 1))  # scikit-learn divides by n − 1
                  for p, (train, _) in zip(exact, folds)]  # fmt: skip
        expected.append([density.logpdf(x[test]).mean() for density, (_, test) in zip(of_pca, folds)])
        expected.append([fitted[0].model_.log_likelihood(x[test], 100, 1).mean() for fitted, (_, test) in zip(of_vae, folds)])
        moments = [(np.mean(fold), np.std(fold)) for fold in expected]
        np.testing.assert_allclose(row[1:5], np.ravel(moments[:2]), atol=6e-4)
        np.testing.assert_allclose(row[5:7], moments[2], atol=6e-3)
        np.testing.assert_allclose(row[7:], moments[3], atol=0.1)  # the noise of 100 samples
    assert (tmp_path / "a.png").stat().st_size > 10_000


def test_digits_draws_both_planes_and_the_accuracies(digits_of_scikit_learn):
    example, x, y, _ = digits_of_scikit_learn
    results = {"PCA": np.arange(8.0).reshape(2, 2, 2), "VAE": np.arange(8.0, 16).reshape(2, 2, 2)}
    left, middle, right = example.draw(results, x, y).axes
    for axes, reducer in zip((left, middle), example.reducers(2).values()):
        z = reducer.fit_transform(x)
        shown = np.concatenate([points.get_offsets() for points in axes.collections])
        np.testing.assert_allclose(shown, np.concatenate([z[y == digit] for digit in range(10)]), rtol=1e-5)
    for bars, values in zip(right.containers, results.values(), strict=True):
        (line, _, (deviations,)) = bars
        np.testing.assert_allclose(line.get_xydata(), np.column_stack([(2, 3), values[:, 0].mean(axis=1)]))
        lengths = [np.ptp(segment[:, 1]) for segment in deviations.get_segments()]
        np.testing.assert_allclose(lengths, 2 * values[:, 0].std(axis=1))
    assert [text.get_text() for text in right.get_legend().get_texts()] == ["PCA", "VAE"]
