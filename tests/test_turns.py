"""Players who take turns: whose step it is, what it moves, what is saved, and that steps that are left out lose no turn."""

import dataclasses

import numpy as np
import pytest

import npvae
from npvae.models import GAN
from npvae.models.protocol import Player
from npvae.schedules import Turns
from npvae.training import checkpoint, optim, turns
from npvae.training.turns import InTurn

PARTS = {"critic": slice(3, 5), "generator": slice(3)}


def two(critic=None, generator=None, **options):
    """An InTurn of five parameters: two steps of the critic, one of the generator."""
    optimizers = {"critic": critic or npvae.SGD(1.0), "generator": generator or npvae.SGD(1.0)}
    return InTurn(Turns({"critic": 2, "generator": 1}), optimizers, PARTS, **options)


def rows(n=60):
    return np.random.default_rng(2).standard_normal((n, 2)).astype("float32")


def small(**options):
    return GAN(2, 2, (5,), **{"n_critic": 2, "backend": "numpy", **options})


class Halving:
    """Somebody's own optimiser: halves every parameter, and makes its state in the first step."""

    def step(self, theta, grad, state):
        state["t"] += 1
        state["seen"] = state.get("seen", 0) + grad
        theta *= 0.5


def test_turns_go_round():
    schedule = Turns({"critic": 2, "generator": 1})
    assert [schedule(step) for step in range(7)] == ["critic", "critic", "generator"] * 2 + ["critic"]
    for wrong in ({}, {"critic": 0}, {"critic": 1.5}):
        with pytest.raises(ValueError, match="steps"):
            Turns(wrong)


def test_a_step_moves_the_part_of_one_player():
    optimizer, theta = two(), np.zeros(5)
    state = optim.initial_state(optimizer, theta)
    seen = []
    for _ in range(3):
        optimizer.step(theta, np.ones(5), state)
        seen.append(theta.tolist())
    assert seen == [[0, 0, 0, -1, -1], [0, 0, 0, -2, -2], [-1, -1, -1, -2, -2]]
    assert state == {"t": 3, "critic.t": 2, "generator.t": 1}


def test_each_player_has_moments_and_a_rate_of_its_own():
    """The same as two optimisers apart; a schedule counts all steps."""
    rate = npvae.schedules.StepDecay(0.1, 2, 0.5)
    optimizer, theta = two(npvae.Adam(rate), npvae.Momentum(0.3)), np.arange(5.0)
    state, grads = optim.initial_state(optimizer, theta), np.random.default_rng(0).standard_normal((9, 5))
    for grad in grads:
        optimizer.step(theta, grad, state)
    for name, alone in optimizer.optimizers.items():
        part = np.arange(5.0)[PARTS[name]]
        own = optim.initial_state(alone, part)
        for step, grad in enumerate(grads):
            if optimizer.turns(step) == name:
                now = dataclasses.replace(alone, learning_rate=rate(step) if name == "critic" else 0.3)
                now.step(part, grad[PARTS[name]], own)
        np.testing.assert_array_equal(theta[PARTS[name]], part)
        for key, value in own.items():
            np.testing.assert_array_equal(state[f"{name}.{key}"], value)


def test_an_optimizer_of_one_s_own_keeps_what_it_puts_into_its_state():
    optimizer, theta = two(Halving()), np.full(5, 8.0)
    state = optim.initial_state(optimizer, theta)
    for grad in np.arange(15.0).reshape(3, 5):
        optimizer.step(theta, grad, state)
    assert theta[3:].tolist() == [2, 2]
    assert state["critic.seen"].tolist() == [3 + 8, 4 + 9]
    assert set(state) == {"t", "critic.t", "critic.seen", "generator.t"}


def test_limits_clip_the_part_after_its_step():
    optimizer, theta = two(limits={"critic": 0.25}), np.zeros(5)
    state = optim.initial_state(optimizer, theta)
    for _ in range(3):
        optimizer.step(theta, np.array([1, 1, 1, 0.1, -2.0]), state)
    np.testing.assert_allclose(theta, [-1, -1, -1, -0.2, 0.25], rtol=1e-12)


def test_a_gradient_is_shortened_to_the_norm_of_what_moves():
    """What a step does not move has no gradient: it would take away from what is left of the norm."""
    model = small(dtype="float64")
    with npvae.core.workers.Workers(1) as pool:
        data = npvae.data.rows.Rows.of(model, rows(), "x")
        optimizer, _ = turns.arranged(model, npvae.SGD(1.0), {})
        step = npvae.training.step.Step(model, data, 20, optimizer, pool, max_gradient_norm=1e-3)
        part, before = model.players()["critic"].part, model.theta.copy()
        step.update(np.ones((1, model.theta.size)))
    moved = before - model.theta
    assert np.linalg.norm(moved[part]) == pytest.approx(1e-3, rel=1e-9)
    assert not moved[: part.start].any()


def test_the_setting_and_the_optimizer_agree():
    model, told = small(), []
    forward = model.forward
    model.forward = lambda *args, **settings: told.append(settings["player"]) or forward(*args, **settings)
    states = []
    npvae.fit(model, rows(), epochs=3, batch_size=20, progress=False, on_epoch=states.append)
    assert told == (["critic"] * 2 + ["generator"]) * 3
    assert (states[0].optimizer["critic.t"], states[0].optimizer["generator.t"]) == (6, 3)
    assert set(states[0].optimizer) == {"t", *(f"{name}.{key}" for name in PARTS for key in ("t", "m", "v"))}


def test_a_step_that_is_left_out_loses_no_turn():
    """A row of the largest numbers spoils the critic's loss whenever it is drawn; the generator's does not depend on it."""
    x = rows()
    x[7] = 3e38
    model, states, told = small(), [], []
    forward = model.forward
    model.forward = lambda *args, **settings: told.append(settings["player"]) or forward(*args, **settings)
    with pytest.warns(npvae.checks.NpvaeWarning, match="skipped"):
        npvae.fit(model, x, epochs=6, batch_size=20, progress=False, on_epoch=states.append)
    state = states[0]
    assert state.skipped >= 2
    assert state.optimizer["t"] == state.step == 18
    assert told[:18] == (["critic"] * 2 + ["generator"]) * 6
    assert (state.optimizer["critic.t"], state.optimizer["generator.t"]) == (12 - state.skipped, 6)


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("optimizer", [None, {"critic": npvae.RMSProp(1e-3), "generator": Halving()}])
def test_training_resumes_bit_for_bit_in_the_middle_of_a_round(optimizer, workers, tmp_path):
    x = rows()
    options = {"epochs": 4, "batch_size": 20, "workers": workers, "seed": 3, "progress": False, "optimizer": optimizer}
    whole, model = small(), small()
    history = npvae.fit(whole, x, x[:20], **options)

    def on_step(state):
        checkpoint.save_progress(tmp_path, model, state)
        return state.step == 7

    npvae.fit(model, x, x[:20], on_step=on_step, **options)
    assert not np.array_equal(model.theta, whole.theta)
    model, state = checkpoint.load_progress(tmp_path)
    resumed = npvae.fit(model, x, x[:20], resume=state, **options)
    np.testing.assert_array_equal(model.theta, whole.theta)
    for name in ("train_loss", "val_critic"):
        np.testing.assert_array_equal(resumed[name], history[name])


def test_the_optimizers_get_the_model_s_back_end():
    model = small(backend="numba")
    optimizer, settings = turns.arranged(model, npvae.Adam(1e-3), {"objective": "wasserstein"})
    assert {one.backend for one in optim.on_backend(optimizer, model).optimizers.values()} == {"numba"}
    assert optimizer.limits == {"critic": model.weight_limit}
    assert settings["player"] is optimizer.turns
    assert turns.arranged(model, npvae.Adam(1e-3), {})[0].limits == {}


def test_a_model_without_players_keeps_its_optimizer():
    optimizer, settings = npvae.Adam(1e-3), {"beta": 0.5}
    assert turns.arranged(npvae.VAE(4), optimizer, settings) == (optimizer, settings)


def test_the_first_of_several_players_begins():
    players = {"a": Player(slice(2), 1), "b": Player(slice(2, 5), 3, 0.5)}
    optimizer = turns.in_turn(players, npvae.SGD())
    assert [optimizer.turns(step) for step in range(5)] == ["a", "b", "b", "b", "a"]
    assert optimizer.limits == {"b": 0.5}


def test_what_cannot_be_is_refused():
    model, x = small(), rows()
    for wrong, says in [({"optimizer": {"critic": npvae.SGD()}}, "optimizers are for critic, and parts for critic, generator"),
                        ({"player": "critic"}, "player is what the optimizer's turns say"),
                        ({"weight_decay": 0.1}, "weight_decay needs an optimizer with a learning_rate")]:  # fmt: skip
        with pytest.raises(ValueError, match=says):
            npvae.fit(model, x, epochs=1, progress=False, **wrong)
    with pytest.raises(ValueError, match="L-BFGS minimises one function, and the players of a game have several"):
        npvae.fit_lbfgs(model, x, progress=False)
    with pytest.raises(ValueError, match="turns must be a callable"):
        InTurn("critic", {}, {})
    with pytest.raises(ValueError, match="limit of critic must be"):
        two(limits={"critic": 0.0})
    with pytest.raises(ValueError, match="limits must be"):
        two(limits={"judge": 1.0})
    with pytest.raises(ValueError, match="turns must be"):
        InTurn(lambda step: "judge", {}, {}).step(np.zeros(5), np.zeros(5), {"t": 0})


def test_a_state_of_another_optimizer_is_refused():
    optimizer, theta = two(npvae.Adam()), np.zeros(5)
    right = optim.initial_state(optimizer, theta)
    optim.check_state(optimizer, theta, right)
    with pytest.raises(ValueError, match="nothing of the optimizer of critic"):
        optim.check_state(optimizer, theta, optim.initial_state(npvae.Adam(), theta))
    with pytest.raises(ValueError, match="m must be float64"):
        optim.check_state(optimizer, theta, {**right, "critic.m": np.zeros(5)})
