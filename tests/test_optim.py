"""The optimisers: each update against its scalar twin, and every optimiser on functions with a known minimum."""

import dataclasses
import math

import naive
import numpy as np
import pytest
from small_models import Well, problem, small_model

from npvae.kernels.updates import BLOCK
from npvae.models.backend import load_ops
from npvae.training import optim
from npvae.training.optim import SGD, AdaGrad, Adam, Momentum, RMSProp

# each optimiser, its hyperparameters away from their defaults, and its scalar twin
TWINS = [
    (SGD, {"learning_rate": 0.03}, naive.sgd),
    (Momentum, {"learning_rate": 0.03, "momentum": 0.8}, naive.momentum),
    (AdaGrad, {"learning_rate": 0.03, "epsilon": 1e-3}, naive.adagrad),
    (RMSProp, {"learning_rate": 0.03, "decay": 0.7, "epsilon": 1e-3}, naive.rmsprop),
    (Adam, {"learning_rate": 0.03, "beta1": 0.8, "beta2": 0.95, "epsilon": 1e-3}, naive.adam),
]
OPTIMIZERS = [optimizer for optimizer, _, _ in TWINS]

dtypes = pytest.mark.parametrize("dtype", ["float64", "float32"])
optimizers = pytest.mark.parametrize("optimizer", OPTIMIZERS)
backends = pytest.mark.parametrize("backend", ["numpy", "numba"])


def run(optimizer, theta, grads):
    state = optim.initial_state(optimizer, theta)
    for grad in grads:
        optimizer.step(theta, grad, state)
    return state


# ---- each update against its scalar twin ----


@backends
@dtypes
@pytest.mark.parametrize("size", [2, 7, 33])
@pytest.mark.parametrize(("optimizer", "settings", "twin"), TWINS)
def test_step_equals_its_twin(optimizer, settings, twin, size, dtype, backend):
    """With the update of either back end, as training calls it."""
    theta, grads = problem(size, dtype)
    expected = twin(theta.tolist(), grads.tolist(), **settings)
    run(optimizer(**settings, backend=backend), theta, grads)
    naive.assert_close(theta, expected, dtype)


@dtypes
@pytest.mark.parametrize(("optimizer", "settings", "twin"), TWINS)
def test_displacement_equals_its_twin(optimizer, settings, twin, dtype):
    """From theta = 0 each entry's own digits count, those of the tiny gradient too."""
    _, grads = problem(7, dtype)
    theta = np.zeros(7, dtype)
    run(optimizer(**settings), theta, grads)
    expected = twin([0.0] * 7, grads.tolist(), **settings)
    np.testing.assert_allclose(theta, expected, rtol=20 * naive.TOLERANCE[dtype])  # the sum of 7 steps cancels a little


def test_first_adam_step_has_the_size_of_the_learning_rate():
    """The point of the bias correction: without it the first step would be (1 − β1)/√(1 − β2) = 3.2 times as long."""
    theta = np.zeros(3)
    run(Adam(1e-3), theta, np.array([[5.0, -0.01, 300.0]]))
    np.testing.assert_allclose(theta, [-1e-3, 1e-3, -1e-3], rtol=1e-5)


@optimizers
def test_step_leaves_the_gradient_alone_and_works_in_place(optimizer):
    theta, grads = problem(5)
    grads.flags.writeable = False  # a write would raise
    before, optimizer = theta.copy(), optimizer()
    state = optim.initial_state(optimizer, theta)
    slots = {name: state[name] for name in optimizer.slots}
    assert optimizer.step(theta, grads[0], state) is None
    assert (theta[1:] != before[1:]).all()
    assert theta[0] == before[0]  # a zero gradient from the start moves nothing
    assert all(state[name] is slots[name] for name in slots)


@dtypes
@optimizers
def test_initial_state_is_zero_and_like_theta(optimizer, dtype):
    optimizer = optimizer()
    state = optim.initial_state(optimizer, np.ones(3, dtype))
    assert set(state) == {"t", *optimizer.slots}
    assert state.pop("t") == 0
    for slot in state.values():
        assert slot.dtype == dtype
        assert slot.tolist() == [0, 0, 0]
    assert not any(np.shares_memory(a, b) for a in state.values() for b in state.values() if a is not b)


@pytest.mark.parametrize(
    ("optimizer", "expected"),
    [
        (Momentum(0.1), {"velocity": 0.2}),
        (AdaGrad(0.1), {"sum_of_squares": 4.0}),
        (RMSProp(0.1, decay=0.75), {"mean_square": 1.0}),
        (Adam(0.1, beta1=0.75, beta2=0.5), {"m": 0.5, "v": 2.0}),
    ],
)
def test_slots_hold_what_their_names_say(optimizer, expected):
    """After one step with gradient 2: a checkpoint stores the slots by name."""
    state = run(optimizer, np.ones(1), np.full((1, 1), 2.0))
    assert {name: state[name].item() for name in optimizer.slots} == pytest.approx(expected, rel=1e-15)


@optimizers
def test_one_optimizer_serves_two_states(optimizer):
    """All memory is in the state: alternating between two problems changes neither result."""
    optimizer = optimizer()
    alone, grads = problem(5)
    first, second = alone.copy(), alone.copy()
    run(optimizer, alone, grads)
    states = [optim.initial_state(optimizer, theta) for theta in (first, second)]
    for grad in grads:
        optimizer.step(first, grad, states[0])
        optimizer.step(second, -3 * grad, states[1])
    np.testing.assert_array_equal(first, alone)


@backends
@dtypes
@optimizers
@pytest.mark.parametrize("size", [3, 5000])
def test_a_gradient_may_come_in_shares_that_add_up(optimizer, size, dtype, backend):
    """(shards, P) is the same as their sum (P,); as many shards as parameters among them, so that the axes are told apart."""
    optimizer = optimizer(backend=backend)
    theta, shares = problem(size, dtype, steps=3)
    expected = theta.copy()
    optimizer.step(theta, shares, optim.initial_state(optimizer, theta))
    optimizer.step(expected, shares.sum(axis=0), optim.initial_state(optimizer, expected))
    naive.assert_close(theta, expected, dtype)


@optimizers
def test_an_optimizer_is_immutable(optimizer):
    with pytest.raises(dataclasses.FrozenInstanceError):
        optimizer().learning_rate = 1.0


@pytest.mark.parametrize(
    ("optimizer", "published"),
    [
        (SGD, {"learning_rate": 1e-2}),
        (Momentum, {"learning_rate": 1e-2, "momentum": 0.9}),
        (AdaGrad, {"learning_rate": 1e-2, "epsilon": 1e-8}),
        (RMSProp, {"learning_rate": 1e-3, "decay": 0.9, "epsilon": 1e-8}),
        (Adam, {"learning_rate": 1e-3, "beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8}),
    ],
)
def test_the_defaults_are_the_usual_ones(optimizer, published):
    assert dataclasses.asdict(optimizer()) == {**published, "backend": "numpy"}


@backends
@optimizers
def test_an_optimizer_calls_the_update_of_its_back_end(optimizer, backend, monkeypatch):
    called = []
    for name in ("sgd_step", "momentum_step", "adagrad_step", "rmsprop_step", "adam_step"):
        assert callable(getattr(load_ops("numpy"), name))
        monkeypatch.setattr(load_ops(backend), name, lambda *arguments, name=name: called.append(name))
    run(optimizer(backend=backend), *problem(3, steps=1))
    assert called == [f"{optimizer.__name__.lower()}_step"]


@backends
@optimizers
def test_training_takes_the_update_of_the_model_s_back_end(optimizer, backend):
    given = optimizer(learning_rate=0.25)
    taken = optim.on_backend(given, small_model(backend=backend))
    assert taken == dataclasses.replace(given, backend=backend)
    assert optim.on_backend(given, Well()) == given  # a model without a back end


def test_a_back_end_that_is_none_is_refused():
    with pytest.raises(ValueError, match="backend must be one of numba, numpy; got 'jax'"):
        Adam(backend="jax")


# ---- minima ----


@optimizers
def test_reaches_the_minimum_of_a_quadratic(optimizer):
    """½ Σ a (θ − c)², with a learning rate that decays, since RMSProp's steps do not shrink with the gradient."""
    a, c = np.array([1.0, 3.0, 0.5]), np.array([0.3, -0.7, 0.2])
    start = {SGD: 0.3, Momentum: 0.05, AdaGrad: 0.5, RMSProp: 0.05, Adam: 0.05}[optimizer]
    optimizer = optimizer(learning_rate=lambda step: start * 0.995**step)
    theta = np.zeros(3)
    state = optim.initial_state(optimizer, theta)
    for _ in range(2000):
        optimizer.step(theta, a * (theta - c), state)
    np.testing.assert_allclose(theta, c, atol=1e-5)


# ---- schedules ----


@optimizers
def test_schedule_is_called_with_steps_from_zero(optimizer):
    steps = []

    def schedule(step):
        steps.append(step)
        return 0.1

    theta, grads = problem(3)
    state = run(optimizer(learning_rate=schedule), theta, grads)
    assert steps == list(range(len(grads)))
    assert state["t"] == len(grads)


@optimizers
def test_schedule_sets_the_learning_rate_of_its_step(optimizer):
    """The same as a fresh optimiser of that constant rate for every step, on the same state."""
    rates = [0.1, 0.02, 0.3]
    by_schedule, grads = problem(3, steps=3)
    by_hand = by_schedule.copy()
    run(optimizer(learning_rate=lambda step: rates[step]), by_schedule, grads)
    state = optim.initial_state(optimizer(), by_hand)
    for rate, grad in zip(rates, grads):
        optimizer(learning_rate=rate).step(by_hand, grad, state)
    np.testing.assert_array_equal(by_schedule, by_hand)


def test_at_step_takes_a_number_or_a_callable():
    assert optim.at_step(0.5, 3) == 0.5
    assert optim.at_step(lambda step: step / 4, 3) == 0.75
    assert type(optim.at_step(np.float32(0.5), 0)) is float  # a NumPy scalar would decide the dtype of the update


@pytest.mark.parametrize("value", [-0.5, -1e-300, math.inf, math.nan])
def test_a_schedule_that_gives_no_learning_rate_is_refused_at_its_step(value):
    theta, grads = problem(3, steps=2)
    with pytest.raises(ValueError, match=rf"finite numbers of at least 0; got {value!r} at step 1$"):
        run(SGD(lambda step: [0.1, value][step]), theta, grads)


def test_a_schedule_may_give_zero():
    theta, grads = problem(3)
    before = theta.copy()
    run(SGD(lambda step: 0), theta, grads)
    np.testing.assert_array_equal(theta, before)


# ---- refusals ----


NOT_POSITIVE = [0, -1.0, math.nan, math.inf, "fast", None]
NOT_A_DECAY = [-0.1, 1.0, 2, math.nan, "slow", None]
BAD = [
    (optimizer, field.name, value)
    for optimizer in OPTIMIZERS
    for field in dataclasses.fields(optimizer)
    if field.name != "backend"
    for value in (NOT_POSITIVE if field.name in ("learning_rate", "epsilon") else NOT_A_DECAY)
]


@pytest.mark.parametrize(("optimizer", "field", "value"), BAD)
def test_bad_hyperparameter_is_refused_by_name(optimizer, field, value):
    needs = "a positive number" if field in ("learning_rate", "epsilon") else r"a number in \[0, 1\)"
    with pytest.raises(ValueError, match=rf"^{optimizer.__name__}: {field} must be {needs}, got {value!r}$"):
        optimizer(**{field: value})


@pytest.mark.parametrize(
    ("optimizer", "field"),
    [(o, f.name) for o in OPTIMIZERS for f in dataclasses.fields(o) if f.name not in ("learning_rate", "backend")],
)
def test_only_the_learning_rate_may_be_a_schedule(optimizer, field):
    with pytest.raises(ValueError, match=f"{field} must be"):
        optimizer(**{field: lambda step: 0.5})


@pytest.mark.parametrize(("optimizer", "field", "value"), [case for case in BAD if case[1] != "learning_rate"])
def test_bad_hyperparameter_is_refused_beside_a_schedule(optimizer, field, value):
    with pytest.raises(ValueError, match=f"{field} must be"):
        optimizer(**{"learning_rate": lambda step: 0.1, field: value})


@pytest.mark.parametrize(
    ("optimizer", "settings"),
    [
        (SGD, {"learning_rate": 1}),
        (Momentum, {"momentum": 0}),
        (RMSProp, {"decay": 0}),
        (Adam, {"beta1": 0, "beta2": np.float32(0.5)}),
    ],
)
def test_hyperparameters_on_the_edge_are_accepted(optimizer, settings):
    theta, grads = problem(3)
    run(optimizer(**settings), theta, grads)
    assert np.isfinite(theta).all()


@dtypes
@optimizers
@pytest.mark.parametrize("n_shards", [1, 2, 3, 4])
def test_kernels_sum_the_shards_over_several_blocks(optimizer, n_shards, dtype):
    """theta and state, entry by entry, with more parameters than a block has."""
    size = 2 * BLOCK + 3
    rng = np.random.default_rng(0)
    theta, twin = (np.ones(size, dtype) for _ in range(2))
    optimizer, compiled = optimizer(), optimizer(backend="numba")
    state, twin_state = optim.initial_state(optimizer, theta), optim.initial_state(optimizer, theta)
    for _ in range(3):
        grad = rng.standard_normal((n_shards, size)).astype(dtype)
        optimizer.step(theta, grad, state)
        compiled.step(twin, grad, twin_state)
    naive.assert_close(twin, theta, dtype)
    for slot in optimizer.slots:
        naive.assert_close(twin_state[slot], state[slot], dtype)


def test_a_longer_gradient_is_shortened_to_the_norm_and_its_norm_returned():
    grad = np.array([3.0, -4.0, 12.0])
    assert optim.clip_gradient_norm(grad, 6.5) == 13
    np.testing.assert_allclose(grad, [1.5, -2, 6], rtol=1e-15)
    assert optim.clip_gradient_norm(grad, 6.5) == 6.5
    np.testing.assert_allclose(grad, [1.5, -2, 6], rtol=1e-15)
    assert optim.clip_gradient_norm(grad, 100.0) == 6.5  # a shorter one is not lengthened
    np.testing.assert_allclose(grad, [1.5, -2, 6], rtol=1e-15)
    shares = np.array([[1.0, 0, 0], [2, -4, 12]])
    assert optim.clip_gradient_norm(shares, 1.3) == 13
    np.testing.assert_allclose(shares, [[0.1, 0, 0], [0.2, -0.4, 1.2]], rtol=1e-15)


def test_the_norm_of_a_gradient_is_summed_in_float64():
    grad = np.full(2**20, 1e-3, np.float32)
    assert optim.clip_gradient_norm(grad, 10.0) == pytest.approx(1024 * float(np.float32(1e-3)), rel=1e-12)
    large = np.full(4, 1e30, np.float32)  # whose squares float32 cannot hold
    assert optim.clip_gradient_norm(large, 2.0) == pytest.approx(2e30, rel=1e-6)
    np.testing.assert_allclose(large, 1, rtol=1e-6)


@dtypes
def test_weights_decay_and_biases_do_not(dtype):
    parameters = {"W": np.full((2, 3), 4, dtype), "b": np.full(3, 4, dtype)}
    optim.decay_weights(parameters, 0.25)
    np.testing.assert_array_equal(parameters["W"], 3)
    np.testing.assert_array_equal(parameters["b"], 4)
    assert parameters["W"].dtype == dtype


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"t": 0, "m": np.zeros(3)}, "the state of Adam must hold m, t, v; got m, t"),
        ({"t": 0, "m": np.zeros(3), "v": np.zeros(3), "w": 1}, "the state of Adam must hold m, t, v; got m, t, v, w"),
        ({"t": 0, "m": np.zeros(3), "v": np.zeros(2)}, r"v must be float64 \(3,\) like theta; got float64 \(2,\)"),
        ({"t": 0, "m": np.zeros(3), "v": np.zeros(4)}, r"v must be float64 \(3,\) like theta; got float64 \(4,\)"),
        ({"t": 0, "m": np.zeros(3, complex), "v": np.zeros(3)}, r"m must be float64 \(3,\) like theta; got complex128 \(3,\)"),
        ({"t": 0, "m": np.zeros(3, np.float32), "v": np.zeros(3)}, r"m must be float64 \(3,\) like theta; got float32 \(3,\)"),
    ],
)
def test_a_state_of_other_parameters_is_refused(state, message):
    with pytest.raises(ValueError, match=message):
        optim.check_state(optim.Adam(), np.zeros(3), state)
    optim.check_state(optim.Adam(), np.zeros(3), optim.initial_state(optim.Adam(), np.zeros(3)))


@pytest.mark.parametrize("kind", optim.OPTIMIZERS)
def test_every_update_of_ours_is_elementwise_so_that_workers_may_share_it(kind):
    """Half of the parameters, updated alone, end where they end among all."""
    assert kind.elementwise is True
    rng = np.random.default_rng(0)
    theta, grad = rng.standard_normal(10), rng.standard_normal(10)
    half, state, state_of_half = theta[:5].copy(), optim.initial_state(kind(), theta), optim.initial_state(kind(), theta[:5])
    kind().step(theta, grad, state)
    kind().step(half, grad[:5], state_of_half)
    np.testing.assert_array_equal(half, theta[:5])


def test_what_has_no_step_is_no_optimizer():
    class Own:
        def step(self, theta, grad, state):
            pass

    model, own = small_model(backend="numpy"), Own()
    assert optim.on_backend(own, model) is own
    for wrong in (Own, optim.Adam, "adam", 1e-3, lambda theta: theta):
        with pytest.raises(ValueError, match="or an object with a method step"):
            optim.on_backend(wrong, model)
