"""Optimisers over one flat parameter vector θ with gradient g.

Each is a small immutable class that holds the hyperparameters; its arithmetic is an update of `npvae.ops.updates`. The state
(what one step hands to the next) belongs to the caller:

    optimizer = Adam(1e-3)
    state = initial_state(optimizer, theta)
    optimizer.step(theta, grad, state)              # theta and state are updated in place

`learning_rate` is a number or a callable of the step (0 for the first). All arrays are (P,), P the number of parameters; the
gradient may also come as shares that add up, (shards, P). `backend` says whose update is called,
that of `npvae.ops` ("numpy") or of `npvae.kernels` ("numba").

An optimiser of your own is any object with `step(theta, grad, state)`, grad (P,), which may keep arrays and numbers (Python's
finite ones, or NumPy's) in the dict `state`. `elementwise = True` says that it may be called on slices of the parameters at
once, one by each worker; then the arrays of its state are (P,) too. Weight decay reads its `learning_rate`, a number, or a
callable of state["t"], which your `step` advances. What else an optimiser may offer, `npvae.training.turns` uses, an optimiser
made of others.
"""

import numbers
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import ClassVar

import numpy as np

from npvae.core import checks
from npvae.core.parameters import zeros
from npvae.models.backend import BACKENDS, load_ops
from npvae.ops.updates import total


@dataclass(frozen=True)
class SGD:
    """Plain (stochastic) gradient descent, see `sgd_step`."""

    learning_rate: float | Callable = 1e-2
    backend: str = "numpy"
    elementwise: ClassVar = True
    slots: ClassVar = ()

    def __post_init__(self):
        check_hyperparameters(self)

    def step(self, theta, grad, state):
        _, learning_rate = next_step(self, state)
        load_ops(self.backend).sgd_step(theta, grad, learning_rate)


@dataclass(frozen=True)
class Momentum:
    """Gradient descent with momentum γ, see `momentum_step`."""

    learning_rate: float | Callable = 1e-2
    momentum: float = 0.9
    backend: str = "numpy"
    elementwise: ClassVar = True
    slots: ClassVar = ("velocity",)

    def __post_init__(self):
        check_hyperparameters(self)

    def step(self, theta, grad, state):
        _, learning_rate = next_step(self, state)
        load_ops(self.backend).momentum_step(theta, grad, state["velocity"], learning_rate, self.momentum)


@dataclass(frozen=True)
class AdaGrad:
    """Step sizes that shrink with the sum of squared gradients, see `adagrad_step`."""

    learning_rate: float | Callable = 1e-2
    epsilon: float = 1e-8
    backend: str = "numpy"
    elementwise: ClassVar = True
    slots: ClassVar = ("sum_of_squares",)

    def __post_init__(self):
        check_hyperparameters(self)

    def step(self, theta, grad, state):
        _, learning_rate = next_step(self, state)
        load_ops(self.backend).adagrad_step(theta, grad, state["sum_of_squares"], learning_rate, self.epsilon)


@dataclass(frozen=True)
class RMSProp:
    """Step sizes from a running mean (decay ρ) of squared gradients, see `rmsprop_step`."""

    learning_rate: float | Callable = 1e-3
    decay: float = 0.9
    epsilon: float = 1e-8
    backend: str = "numpy"
    elementwise: ClassVar = True
    slots: ClassVar = ("mean_square",)

    def __post_init__(self):
        check_hyperparameters(self)

    def step(self, theta, grad, state):
        _, learning_rate = next_step(self, state)
        load_ops(self.backend).rmsprop_step(theta, grad, state["mean_square"], learning_rate, self.decay, self.epsilon)


@dataclass(frozen=True)
class Adam:
    """Bias-corrected running means of gradient (decay β1) and squared gradient (β2), see `adam_step`."""

    learning_rate: float | Callable = 1e-3
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    backend: str = "numpy"
    elementwise: ClassVar = True
    slots: ClassVar = ("m", "v")

    def __post_init__(self):
        check_hyperparameters(self)

    def step(self, theta, grad, state):
        t, learning_rate = next_step(self, state)
        settings = t, learning_rate, self.beta1, self.beta2, self.epsilon
        load_ops(self.backend).adam_step(theta, grad, state["m"], state["v"], *settings)


OPTIMIZERS = (SGD, Momentum, AdaGrad, RMSProp, Adam)


def adam_for(model, learning_rate=1e-3):
    """Adam with the hyperparameters that a model prefers, its attribute `adam`, where it has one."""
    return Adam(learning_rate, **getattr(model, "adam", {}))


def initial_state(optimizer, theta):
    """The state before the first step: the step count "t" and a zero array like theta for each of the optimiser's slots (an
    optimiser of your own need have none)."""
    if hasattr(optimizer, "initial_state"):
        return optimizer.initial_state(theta)
    slots = getattr(optimizer, "slots", ())
    return {"t": 0, **{slot: zeros(theta.shape, theta.dtype, place) for place, slot in enumerate(slots, 1)}}


def check_state(optimizer, theta, state):
    """Raise ValueError unless `state` is one of this optimiser for parameters like theta (of an optimiser of your own, any)."""
    if hasattr(optimizer, "check_state"):
        optimizer.check_state(theta, state)
    if not isinstance(optimizer, OPTIMIZERS):
        return
    wanted, got = (", ".join(sorted(names)) for names in ({"t", *optimizer.slots}, state))
    if got != wanted:
        raise ValueError(f"the state of {type(optimizer).__name__} must hold {wanted}; got {got}")
    for slot in optimizer.slots:
        value = state[slot]
        if value.shape != theta.shape or value.dtype != theta.dtype:
            raise ValueError(f"{slot} must be {theta.dtype} {theta.shape} like theta; got {value.dtype} {value.shape}")


def on_backend(optimizer, model):
    """One of our optimisers with the updates of the model's back end; others as they are. ValueError for what has no step."""
    if isinstance(optimizer, OPTIMIZERS):
        return replace(optimizer, backend=getattr(model, "backend", "numpy"))
    if hasattr(optimizer, "on_backend"):
        return optimizer.on_backend(model)
    if not callable(getattr(optimizer, "step", None)) or isinstance(optimizer, type):
        names = ", ".join(kind.__name__ for kind in OPTIMIZERS)
        raise ValueError(f"optimizer must be one of {names}, such as npvae.Adam(1e-3), or an object with a method "
                         f"step(theta, grad, state); got {optimizer!r}")  # fmt: skip
    return optimizer


def next_step(optimizer, state):
    """Advance the step count to t = 1, 2, ... and return it with the learning rate of this step, which is that of the step of
    training state["step"] where others take steps between."""
    learning_rate = at_step(optimizer.learning_rate, state.get("step", state["t"]))
    state["t"] += 1
    return state["t"], learning_rate


def numbers_of(optimizer, state):
    """What the update of one of our optimisers takes beside arrays: (t, learning rate, its other hyperparameters in order).
    Advances the step count."""
    others = [getattr(optimizer, field.name) for field in fields(optimizer) if field.name not in ("learning_rate", "backend")]
    return *next_step(optimizer, state), *others


def at_step(schedule, step):
    """The value of a schedule, a number or a callable of the step (0 for the first); ValueError if it cannot be used."""
    value = schedule(step) if callable(schedule) else schedule
    if not 0 <= value < np.inf:
        raise ValueError(f"a schedule must give finite numbers of at least 0; got {value!r} at step {step}")
    return float(value)


def check_hyperparameters(optimizer):
    """Raise ValueError where a hyperparameter of an optimiser cannot work."""
    checks.choice("backend", optimizer.backend, BACKENDS)
    for field in fields(optimizer):
        name, value = field.name, getattr(optimizer, field.name)
        if name == "backend" or (name == "learning_rate" and callable(value)):
            continue
        decays = name in ("momentum", "decay", "beta1", "beta2")
        is_number = isinstance(value, numbers.Real) and not isinstance(value, bool) and np.isfinite(value)
        if not is_number or (not 0 <= value < 1 if decays else value <= 0):
            needs = "a number in [0, 1)" if decays else "a positive number"
            raise ValueError(f"{type(optimizer).__name__}: {name} must be {needs}, got {value!r}")


def clip_gradient_norm(grad, max_norm):
    """Shorten the gradient, (P,) or shares that add up (shards, P), in place to at most this norm; returns the norm it had.

    g ← g min(1, max_norm/‖g‖): its direction stays. Pascanu, Mikolov & Bengio 2013, algorithm 1.
    """
    norm = float(np.linalg.norm(total(grad).astype(np.float64)))
    if norm > max_norm:
        grad *= max_norm / norm
    return norm


def decay_weights(parameters, amount):
    """Multiply every weight W by 1 − amount, in place; biases stay. With amount = η λ the decoupled weight decay of
    Loshchilov & Hutter 2019, algorithm 2, which for plain gradient descent is the penalty ½ λ ‖W‖²."""
    for value in parameters.values():
        if value.ndim >= 2:
            value *= value.dtype.type(1 - amount)
