"""The exercises: for each its file, its functions, the arguments that it is judged with, and what has to come out.

Widths differ wherever a mistake could hide behind equal ones: B = 5 rows, S = 7 samples.
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from npvae.ops import bounds, coupling, latent, layers, likelihood, updates

FOLDER = Path(__file__).resolve().parents[1] / "exercises"
B, S = 5, 7


class Exercise(NamedTuple):
    file: str  # without .py
    op: str  # the pair is op_forward, op_backward
    right: Callable  # arguments -> the values that the forward has to give, one or a tuple
    arguments: dict  # of the forward, name -> value
    outputs: tuple  # names of what the forward gives
    gradients: tuple  # arguments whose gradients the backward returns; none where the forward itself is the exercise
    intermediates: dict = {}  # where the forward is the exercise: name -> the expression that gives it, in this order
    entrywise: bool = False  # each entry is compared relative to itself, not to the largest

    @property
    def number(self):
        return int(self.file[:2])

    @property
    def name(self):
        return self.file[3:]

    @property
    def function(self):
        """The name of the function that the learner writes."""
        return f"{self.op}_backward" if self.gradients else self.op


def normal(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape)


def bits(seed, *shape):
    return np.random.default_rng(seed).integers(0, 2, shape).astype(float)


def output_of(forward):
    return lambda *arguments: forward(*arguments)[0]


def one_neuron(x, w, b, target):
    return 0.5 * (layers.sigmoid_forward(np.float64(w * x + b))[0] - target) ** 2


def two_layers(x, W1, b1, W2, b2):
    return np.tanh(x @ W1 + b1) @ W2 + b2


def adam(theta, grad, m, v, *settings):
    theta, m, v = theta.copy(), m.copy(), v.copy()
    updates.adam_step(theta, grad, m, v, *settings)
    return theta, m, v


def with_a_kink(pre):
    pre[1, 2] = 0.0  # where the two slopes of relu meet
    return pre


EXERCISES = [
    Exercise("01_one_neuron", "neuron", one_neuron, dict(x=0.8, w=-1.3, b=0.4, target=0.9), ("loss",), ("x", "w", "b")),
    Exercise("02_affine_map", "affine", output_of(layers.affine_forward),
             dict(x=normal(1, B, 4), W=normal(2, 4, 3), b=normal(3, 3)), ("pre",), ("x", "W", "b")),
    Exercise("03_relu", "relu", output_of(layers.relu_forward), dict(pre=with_a_kink(normal(4, B, 4))), ("h",), ("pre",)),
    Exercise("04_tanh", "tanh", output_of(layers.tanh_forward), dict(pre=normal(5, B, 4)), ("h",), ("pre",)),
    Exercise("05_silu", "silu", output_of(layers.silu_forward), dict(pre=normal(6, B, 4)), ("h",), ("pre",)),
    Exercise("06_stable_softplus", "softplus_forward", output_of(layers.softplus_forward),
             dict(pre=np.array([-800.0, -40, -2, -0.5, 0, 1, 3, 40, 800])), ("h",), (), entrywise=True),
    Exercise("07_two_layers", "two_layers", two_layers,
             dict(x=normal(7, B, 4), W1=normal(8, 4, 3) / 2, b1=normal(9, 3), W2=normal(10, 3, 3), b2=normal(11, 3)),
             ("out",), ("W1", "b1", "W2", "b2")),
    Exercise("08_reparameterize", "reparameterize", output_of(latent.reparameterize_forward),
             dict(mu=normal(12, B, 3), logvar=normal(13, B, 3), eps=normal(14, S, B, 3)), ("z",), ("mu", "logvar")),
    Exercise("09_gaussian_kl_value", "gaussian_kl_forward", output_of(latent.gaussian_kl_forward),
             dict(mu=normal(15, B, 3), logvar=normal(16, B, 3)), ("kl",), (), {"variance": "np.exp(logvar)"}),
    Exercise("10_gaussian_kl", "gaussian_kl", output_of(latent.gaussian_kl_forward),
             dict(mu=normal(17, B, 3), logvar=normal(18, B, 3)), ("kl",), ("mu", "logvar")),
    Exercise("11_latent", "latent", output_of(latent.latent_forward),
             dict(posterior=normal(19, B, 6), eps=normal(20, B, 3)), ("z", "kl"), ("posterior",)),
    Exercise("12_bernoulli_in_atoms", "bernoulli_nll", output_of(likelihood.bernoulli_nll_forward),
             dict(logits=normal(21, B, 4), x=bits(22, B, 4)), ("nll",), ("logits",)),
    Exercise("13_bernoulli_fused", "bernoulli_nll", output_of(likelihood.bernoulli_nll_forward),
             dict(logits=normal(23, B, 4), x=bits(24, B, 4)), ("nll",), ("logits",)),
    Exercise("14_gaussian_nll", "gaussian_nll", output_of(likelihood.gaussian_nll_forward),
             dict(mean=normal(25, B, 4), x=normal(26, B, 4), variance=0.3), ("nll",), ("mean",)),
    Exercise("15_elbo", "elbo", output_of(bounds.elbo_forward),
             dict(nll=normal(27, S, B), kl=normal(28, B, 3), beta=0.7), ("loss",), ("nll", "kl")),
    Exercise("16_importance_weights", "iwae", output_of(bounds.iwae_forward),
             dict(nll=normal(29, S, B), kl=normal(30, S, B, 3), beta=0.7), ("loss",), ("nll", "kl")),
    Exercise("17_coupling", "scale_and_shift", output_of(coupling.scale_and_shift_forward),
             dict(x=normal(31, B, 4), log_scale=normal(32, B, 4), shift=normal(33, B, 4)), ("y", "log_det"),
             ("x", "log_scale", "shift")),
    Exercise("18_adam_step", "adam_step", adam,
             dict(theta=normal(34, 6), grad=normal(35, 6), m=normal(36, 6), v=normal(37, 6) ** 2, t=3, learning_rate=0.01,
                  beta1=0.9, beta2=0.99, epsilon=1e-3), ("theta", "m", "v"), (),
             {"new_m": "beta1 * m + (1 - beta1) * grad", "new_v": "beta2 * v + (1 - beta2) * grad**2",
              "m_hat": "new_m / (1 - beta1**t)", "v_hat": "new_v / (1 - beta2**t)",
              "step": "learning_rate * m_hat / (np.sqrt(v_hat) + epsilon)"}),
]  # fmt: skip


def found(asked):
    """The exercises that a number, a name or a part of a name means."""
    if asked.isdigit():
        return [exercise for exercise in EXERCISES if exercise.number == int(asked)]
    asked = asked.removesuffix(".py")
    exact = [exercise for exercise in EXERCISES if asked in (exercise.file, exercise.name)]
    return exact or [exercise for exercise in EXERCISES if asked.lower() in exercise.file]
