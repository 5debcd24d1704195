"""The adversarial network: gradients, what belongs to whom, the best critic of two Gaussians, training, runs of the command."""

import json
import math
from types import SimpleNamespace

import naive
import numpy as np
import pytest
from scipy.special import ndtri

import npvae
from npvae.app import cli, commands, plots
from npvae.models import GAN, transport

EXAMPLES = list(GAN.examples("numpy"))
OBJECTIVES = ("wasserstein_penalty", "wasserstein", "non_saturating", "minimax")


def flat(grads):
    return np.concatenate([value.ravel() for value in grads.values()])


def small(D=2, hidden=(6,), **options):
    """A small model with generic parameters."""
    model = GAN(D, 2, hidden, **{"backend": "numpy", "dtype": "float64", **options})
    model.theta += 0.3 * np.random.default_rng(1).standard_normal(model.theta.size)
    return model


def rows(n=5, D=2):
    return np.random.default_rng(0).standard_normal((n, D))


def step_of(model, player, x=None, **settings):
    """Terms and gradients of a player's step."""
    x = rows() if x is None else x
    noise = model.draw(np.random.default_rng(2), x, player=player)
    terms, cache = model.forward(x, noise, player=player, **settings)
    return terms, model.backward(cache), noise


# ---- gradients ----


@pytest.mark.parametrize("example", EXAMPLES, ids=[example.name for example in EXAMPLES])
def test_the_gradient_by_the_complex_step(example):
    """With respect to both networks, whosever step it is."""
    naive.assert_is_the_complex_step(example)


def test_the_critic_s_step_gives_the_generator_no_gradient():
    """Its samples are noise; the generator's step reaches both networks."""
    for objective in OBJECTIVES:
        of_critic, of_generator = (step_of(small(), player, objective=objective)[1] for player in ("critic", "generator"))
        for name in of_critic:
            constant = name == "critic.b" and "wasserstein" in objective  # adds to f of data and of samples alike
            assert of_critic[name].any() == (name.startswith("critic.") and not constant), name
            assert of_generator[name].any(), name


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_the_terms_are_what_they_are_called(objective):
    model, x = small(), rows()
    for player in ("critic", "generator"):
        terms, _, noise = step_of(model, player, x, objective=objective, penalty=3.0)
        samples = noise[0] if player == "critic" else model.generate(noise)
        a, b = model.criticise(x), model.criticise(samples)
        critic, generator = {
            "wasserstein": (b - a, -b),
            "minimax": (np.log1p(np.exp(-a)) + np.log1p(np.exp(b)), -np.log1p(np.exp(b))),
            "non_saturating": (np.log1p(np.exp(-a)) + np.log1p(np.exp(b)), np.log1p(np.exp(-b))),
        }[objective.removesuffix("_penalty")]
        np.testing.assert_allclose(terms[1:3], [critic.mean(), generator.mean()], rtol=1e-12)
        pays = player == "critic" and objective == "wasserstein_penalty"
        assert (terms.penalty > 0) == pays
        loss = terms.generator if player == "generator" else terms.critic + terms.penalty
        assert terms.loss == pytest.approx(loss, rel=1e-12)


def test_the_penalty_is_proportional_to_its_weight_and_goes_with_zero():
    terms = [step_of(small(), "critic", penalty=weight)[0] for weight in (0.0, 1.0, 3.0)]
    assert [term.critic for term in terms] == [terms[0].critic] * 3
    assert terms[0].penalty == 0
    assert terms[2].penalty == pytest.approx(3 * terms[1].penalty, rel=1e-12)


def test_where_the_critic_knows_nothing_its_loss_is_log_4():
    model = small()
    model.parameters["critic.W"], model.parameters["critic.b"] = 0, 0
    terms, _, _ = step_of(model, "critic", objective="minimax")
    np.testing.assert_allclose(terms, [math.log(4), math.log(4), -math.log(2), 0], rtol=1e-14)
    assert step_of(model, "generator", objective="non_saturating")[0].loss == pytest.approx(math.log(2), rel=1e-14)
    assert step_of(model, "critic", objective="wasserstein")[0].loss == 0


# ---- noise ----


def test_the_noise_of_each_player_is_what_it_is_called():
    model, x = small(D=3), rows(20_000, 3)
    z = model.draw(np.random.default_rng(2), x, player="generator")
    assert z.shape == (20_000, 2)
    np.testing.assert_allclose([z.mean(axis=0), z.std(axis=0)], [[0, 0], [1, 1]], atol=0.03)
    samples, u = model.draw(np.random.default_rng(2), x)
    np.testing.assert_array_equal(samples, model.generate(z))
    assert 0 <= u.min() < 1e-3 < 0.999 < u.max() < 1
    assert abs(u.mean() - 0.5) < 0.01
    np.testing.assert_array_equal(model.sample(7, np.random.default_rng(2)), samples[:7])


def test_noise_that_does_not_fit_is_refused():
    model, x = small(), rows()
    z, (samples, u) = (model.draw(np.random.default_rng(2), x, player=player) for player in ("generator", "critic"))
    for noise, settings, says in [
        (z, {}, "must be .samples, u."),
        ((samples, u[:, None]), {}, "u must be a real array"),
        ((samples[:3], u), {}, "samples must have a row for each of x, 5"),
        ((samples[:, :1], u), {}, "samples must be"),
        (z[:, :1], {"player": "generator"}, "noise must be"),
        (z[:2], {"player": "generator"}, "noise must have a row for each of x"),
        (z, {"player": "judge"}, "player must be"),
        (z, {"objective": "hinge"}, "objective must be"),
        (z, {"penalty": -1.0}, "penalty must be"),
    ]:
        with pytest.raises(ValueError, match=says):
            model.forward(x, noise, **settings)


# ---- the players ----


def test_the_parts_of_the_players_are_their_parameters():
    model = small()
    names = np.concatenate([np.full(value.size, name.split(".")[0]) for name, value in model.parameters.items()])
    players = model.players()
    assert list(players) == ["critic", "generator"]
    for name, player in players.items():
        assert set(names[player.part]) == {name}
    assert sum(len(names[player.part]) for player in players.values()) == model.theta.size
    assert [player.n_steps for player in players.values()] == [5, 1]


def test_weights_are_clipped_for_the_objective_that_asks_for_it():
    x = rows(80).astype("float32")
    for objective, clipped in [("wasserstein", True), ("wasserstein_penalty", False)]:
        model = GAN(2, 2, (6,), weight_limit=0.05, n_critic=2, backend="numpy")
        part = model.players()["critic"].part
        npvae.fit(model, x, epochs=1, batch_size=20, progress=False, objective=objective)
        assert (np.abs(model.theta[part]).max() <= np.float32(0.05)) == clipped
        assert np.abs(model.theta[: part.start]).max() > 0.05  # the generator's are never


def test_validation_is_by_the_critic_s_loss():
    settings = {"player": "generator", "objective": "minimax", "penalty": 2.0}
    assert GAN.validation_settings(**settings) == {"objective": "minimax", "penalty": 2.0}


# ---- probability ----


def gaussian_rows(n=4000):
    """Rows (n, 1) whose mean over a smooth function is that over N(0, 1), to 1e-3."""
    return ndtri((np.arange(n) + 0.5) / n)[:, None]


def test_the_best_critic_of_two_gaussians_is_the_log_ratio():
    """Data N(1, 1), a generator that makes N(−1, 1): log p/q = 2 x. The critic x w + b gets there by its own steps, and its
    loss is log 4 − 2 JSD by quadrature."""
    model, z = GAN(1, 1, (), backend="numpy", dtype="float64"), gaussian_rows()
    model.parameters["generator.W"], model.parameters["generator.b"] = 1, -1
    x, noise = z + 1, (model.generate(z), np.zeros(len(z)))
    part = model.players()["critic"].part
    for _ in range(400):
        terms, cache = model.forward(x, noise, objective="non_saturating")
        model.theta[part] -= 2 * flat(model.backward(cache))[part]
    np.testing.assert_allclose(model.theta[part], [2, 0], atol=5e-3)
    grid = np.linspace(-10, 10, 2001)
    p, q = (np.exp(-0.5 * (grid - m) ** 2) / math.sqrt(2 * math.pi) for m in (1, -1))
    divergence = 0.5 * sum((d * np.log(d / ((p + q) / 2))).sum() for d in (p, q)) * (grid[1] - grid[0])
    assert terms.loss == pytest.approx(math.log(4) - 2 * divergence, abs=1e-3)


def test_a_clipped_critic_s_estimate_stays_below_the_distance():
    """Its slope is at most the product of the matrices' norms (tanh has slopes up to 1)."""
    model, rng = small(activation="tanh", hidden=(9, 8)), np.random.default_rng(3)
    x = rng.standard_normal((300, 2)) + np.array([1.5, 0])
    samples = model.generate(rng.standard_normal((300, 2)))
    part, optimizer = model.players()["critic"].part, npvae.Adam(1e-2)
    theta = model.theta[part]
    state = npvae.optim.initial_state(optimizer, theta)
    for _ in range(150):
        grads = model.backward(model.forward(x, (samples, np.zeros(300)), objective="wasserstein")[1])
        optimizer.step(theta, flat(grads)[part], state)
        np.clip(theta, -0.2, 0.2, out=theta)
    slope = math.prod(np.linalg.norm(W, 2) for W, _, _ in model.critic_layers)
    estimate = (model.criticise(x) - model.criticise(samples)).mean() / slope
    distance = transport.distance(x, samples)
    assert 0.3 * distance < estimate <= distance


def test_the_penalised_critic_finds_the_distance_of_a_shift():
    """Data are the samples moved by v: the best critic has slope 1 along v, and estimates |v|."""
    v, rng = np.array([1.2, -0.5]), np.random.default_rng(3)
    model = GAN(2, 2, (), backend="numpy", dtype="float64")
    samples = rng.standard_normal((200, 2))
    part = model.players()["critic"].part
    for _ in range(1000):
        terms, cache = model.forward(samples + v, (samples, rng.random(200)), penalty=50.0)
        model.theta[part] -= 0.009 * flat(model.backward(cache))[part]
    w = model.parameters["critic.W"][:, 0]
    np.testing.assert_allclose(w / np.linalg.norm(w), v / np.linalg.norm(v), atol=1e-3)
    assert np.linalg.norm(w) == pytest.approx(1 + np.linalg.norm(v) / (2 * 50), rel=1e-6)  # where v·w − λ (‖w‖ − 1)² is largest
    assert -terms.critic == pytest.approx(np.linalg.norm(v) * np.linalg.norm(w), rel=1e-6)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_training_brings_samples_to_the_data(objective):
    """A Gaussian away from where the generator begins."""
    rng = np.random.default_rng(0)
    x = (0.5 * rng.standard_normal((2000, 2)) + [2, -1]).astype("float32")
    model = GAN(2, 2, (16,), n_critic=2, backend="numpy")

    def distance():
        return transport.distance(model.sample(300, 1), x[:300])

    before = distance()
    npvae.fit(model, x, epochs=12, batch_size=50, optimizer=npvae.Adam(5e-3, 0.5, 0.9), progress=False, workers=1,
              objective=objective)  # fmt: skip
    assert before > 1.5
    assert distance() < 0.6


# ---- as a model and as a run ----


def test_measures_and_pictures_are_there():
    model = small()
    assert {measure.name for measure in model.measure(rows(40))} == {
        "transport_distance", "transport_distance_of_data", "coverage", "coverage_of_data"}  # fmt: skip
    (name, _, figure), = model.pictures(plots, rows(40), SimpleNamespace(in_own_units=np.asarray, image_shape=None))
    assert name == "samples.png"
    assert len(figure().axes[0].collections[0].get_offsets()) == plots.N_SAMPLES
    assert repr(model) == "GAN(2, noise 2, 6, silu, float64, numpy: 57 parameters)"
    assert "linear" in repr(small(hidden=()))
    for wrong in ({"n_noise": 0}, {"activation": "relu"}, {"n_critic": 0}, {"weight_limit": 0.0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            GAN(2, **wrong)


def test_a_run_is_trained_resumed_evaluated_and_sampled(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(commands, "draw_pictures", lambda *_: {})
    np.save("x.npy", rows(200).astype("float32"))
    options = ["--data", "x.npy", "--model", "gan", "--hidden", "6", "--critic-steps", "2", "--batch-size", "20"]
    for out, epochs in [("whole", "3"), ("parts", "2")]:
        assert cli.main(["train", *options, "--out", out, "--epochs", epochs, "--objective", "wasserstein"]) == 0
    assert cli.main(["train", "--resume", "--out", "parts", "--epochs", "3"]) == 0
    whole, parts = (GAN.load(f"{out}/checkpoint.npz") for out in ("whole", "parts"))
    np.testing.assert_array_equal(whole.theta, parts.theta)
    assert np.abs(whole.theta[whole.players()["critic"].part]).max() <= np.float32(0.1)
    capsys.readouterr()
    assert cli.main(["evaluate", "whole", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["transport_distance"] > found["transport_distance_of_data"] > 0
    assert cli.main(["sample", "whole", "--count", "9", "--out", "draws.png"]) == 0
    assert (tmp_path / "draws.png").stat().st_size > 1000
