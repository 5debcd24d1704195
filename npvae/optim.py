"""Optimisers over one flat parameter vector θ with gradient g.

Each is an update, a pure function of arrays that changes θ and its state in place, and a small immutable class that holds
the hyperparameters. The state (what one step hands to the next) belongs to the caller:

    optimizer = Adam(1e-3)
    state = initial_state(optimizer, theta)
    optimizer.step(theta, grad, state)              # theta and state are updated in place

`learning_rate` is a number or a callable of the step (0 for the first). All arrays are (P,), P the number of parameters; the
gradient may also come as shares that add up, (shards, P).
"""

import numbers
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import ClassVar

import numpy as np

from npvae.parameters import zeros


def total(grad):
    """The gradient (P,), summed over its shards if it comes as (shards, P)."""
    return grad.sum(axis=0) if grad.ndim == 2 else grad


def sgd_step(theta, grad, learning_rate):
    """Gradient descent: θ ← θ − η g. Robbins & Monro 1951."""
    theta -= learning_rate * total(grad)


def momentum_step(theta, grad, velocity, learning_rate, momentum):
    """Heavy ball: v ← γ v + η g; θ ← θ − v. Polyak 1964."""
    velocity *= momentum
    velocity += learning_rate * total(grad)
    theta -= velocity


def adagrad_step(theta, grad, sum_of_squares, learning_rate, epsilon):
    """AdaGrad: r ← r + g²; θ ← θ − η g/(√r + ε). Duchi, Hazan & Singer 2011."""
    grad = total(grad)
    sum_of_squares += grad * grad
    theta -= learning_rate * grad / (np.sqrt(sum_of_squares) + epsilon)


def rmsprop_step(theta, grad, mean_square, learning_rate, decay, epsilon):
    """RMSProp: v ← ρ v + (1 − ρ) g²; θ ← θ − η g/(√v + ε). Tieleman & Hinton 2012, lecture 6.5."""
    grad = total(grad)
    mean_square *= decay
    mean_square += (1 - decay) * (grad * grad)
    theta -= learning_rate * grad / (np.sqrt(mean_square) + epsilon)


def adam_step(theta, grad, m, v, t, learning_rate, beta1, beta2, epsilon):
    """Adam. Kingma & Ba 2015, Algorithm 1, at step t = 1, 2, ...:

    m ← β1 m + (1 − β1) g
    v ← β2 v + (1 − β2) g²
    θ ← θ − η m̂/(√v̂ + ε)  with  m̂ = m/(1 − β1ᵗ), v̂ = v/(1 − β2ᵗ)
    """
    grad = total(grad)
    m *= beta1
    m += (1 - beta1) * grad
    v *= beta2
    v += (1 - beta2) * (grad * grad)
    step_size = learning_rate / (1 - beta1**t)
    root_correction = (1 - beta2**t) ** 0.5
    theta -= step_size * m / (np.sqrt(v) / root_correction + epsilon)


@dataclass(frozen=True)
class SGD:
    """Plain (stochastic) gradient descent, see `sgd_step`."""

    learning_rate: float | Callable = 1e-2
    op: ClassVar = "sgd_step"
    slots: ClassVar = ()

    def __post_init__(self):
        check_hyperparameters(self)

    def step(self, theta, grad, state, op=sgd_step):
        _, learning_rate = next_step(self, state)
        op(theta, grad, learning_rate)


@dataclass(frozen=True)
class Momentum:
    """Gradient descent with momentum γ, see `momentum_step`."""

    learning_rate: float | Callable = 1e-2
    momentum: float = 0.9
    op: ClassVar = "momentum_step"
    slots: ClassVar = ("velocity",)

    def __post_init__(self):
        check_hyperparameters(self)

    def step(self, theta, grad, state, op=momentum_step):
        _, learning_rate = next_step(self, state)
        op(theta, grad, state["velocity"], learning_rate, self.momentum)


@dataclass(frozen=True)
class AdaGrad:
    """Step sizes that shrink with the sum of squared gradients, see `adagrad_step`."""

    learning_rate: float | Callable = 1e-2
    epsilon: float = 1e-8
    op: ClassVar = "adagrad_step"
    slots: ClassVar = ("sum_of_squares",)

    def __post_init__(self):
        check_hyperparameters(self)

    def step(self, theta, grad, state, op=adagrad_step):
        _, learning_rate = next_step(self, state)
        op(theta, grad, state["sum_of_squares"], learning_rate, self.epsilon)


@dataclass(frozen=True)
class RMSProp:
    """Step sizes from a running mean (decay ρ) of squared gradients, see `rmsprop_step`."""

    learning_rate: float | Callable = 1e-3
    decay: float = 0.9
    epsilon: float = 1e-8
    op: ClassVar = "rmsprop_step"
    slots: ClassVar = ("mean_square",)

    def __post_init__(self):
        check_hyperparameters(self)

    def step(self, theta, grad, state, op=rmsprop_step):
        _, learning_rate = next_step(self, state)
        op(theta, grad, state["mean_square"], learning_rate, self.decay, self.epsilon)


@dataclass(frozen=True)
class Adam:
    """Bias-corrected running means of gradient (decay β1) and squared gradient (β2), see `adam_step`."""

    learning_rate: float | Callable = 1e-3
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    op: ClassVar = "adam_step"
    slots: ClassVar = ("m", "v")

    def __post_init__(self):
        check_hyperparameters(self)

    def step(self, theta, grad, state, op=adam_step):
        t, learning_rate = next_step(self, state)
        op(theta, grad, state["m"], state["v"], t, learning_rate, self.beta1, self.beta2, self.epsilon)


OPTIMIZERS = (SGD, Momentum, AdaGrad, RMSProp, Adam)


def initial_state(optimizer, theta):
    """The state before the first step: the step count "t" and a zero array like theta for each of the optimiser's slots."""
    return {"t": 0, **{slot: zeros(theta.shape, theta.dtype, place) for place, slot in enumerate(optimizer.slots, 1)}}


def check_state(optimizer, theta, state):
    """Raise ValueError unless `state` is one of this optimiser for parameters like theta."""
    wanted, got = (", ".join(sorted(names)) for names in ({"t", *optimizer.slots}, state))
    if got != wanted:
        raise ValueError(f"the state of {type(optimizer).__name__} must hold {wanted}; got {got}")
    for slot in optimizer.slots:
        value = state[slot]
        if value.shape != theta.shape or value.dtype != theta.dtype:
            raise ValueError(f"{slot} must be {theta.dtype} {theta.shape} like theta; got {value.dtype} {value.shape}")


def next_step(optimizer, state):
    """Advance the step count to t = 1, 2, ... and return it with the learning rate of this step."""
    learning_rate = at_step(optimizer.learning_rate, state["t"])
    state["t"] += 1
    return state["t"], learning_rate


def at_step(schedule, step):
    """The value of a schedule, a number or a callable of the step (0 for the first); ValueError if it cannot be used."""
    value = schedule(step) if callable(schedule) else schedule
    if not 0 <= value < np.inf:
        raise ValueError(f"a schedule must give finite numbers of at least 0; got {value!r} at step {step}")
    return float(value)


def check_hyperparameters(optimizer):
    """Raise ValueError where a hyperparameter of an optimiser cannot work."""
    for field in fields(optimizer):
        name, value = field.name, getattr(optimizer, field.name)
        if name == "learning_rate" and callable(value):
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
        if value.ndim == 2:
            value *= value.dtype.type(1 - amount)


def lbfgs(loss_and_grad, theta, max_iterations=200, memory=10, callback=None):
    """Minimise a deterministic function of θ (P,) by the quasi-Newton method L-BFGS, through scipy.optimize.

    loss_and_grad(theta) -> (number, array (P,)). Each step is θ ← θ − η H g, with the line search's η and with H the inverse
    Hessian rebuilt from the last `memory` pairs s = Δθ, y = Δg by the BFGS update
        H ← (I − ρ s yᵀ) H (I − ρ y sᵀ) + ρ s sᵀ,  ρ = 1/(yᵀ s).
    Nocedal 1980; Liu & Nocedal 1989. `callback(theta)` is called after every iteration. Returns scipy's OptimizeResult, whose
    x is the minimiser, in float64.
    """
    from scipy.optimize import minimize

    return minimize(
        loss_and_grad,
        theta.astype(np.float64),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": max_iterations, "maxcor": memory, "maxfun": 20 * max_iterations},
        callback=callback,
    )
