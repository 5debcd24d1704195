"""The pairs of energies and of critics among the cases: Boltzmann machines, energy-based models, adversarial networks."""

import numpy as np

from npvae.checking.pair import Pair
from npvae.ops import adversarial, boltzmann, energy


def boltzmann_pairs(prefix, ops):
    """The free energies of Boltzmann machines of a module or a table of ops, and the biases of a centred one: generic, a square
    W, and hidden units that are always on or off."""
    rng = np.random.default_rng(9)
    normal, x = rng.standard_normal, (rng.random((5, 4)) < 0.5).astype(float)
    binary = ops.binary_free_energy_forward, ops.binary_free_energy_backward
    gaussian = ops.gaussian_free_energy_forward, ops.gaussian_free_energy_backward
    names = "visible_bias", "hidden_bias", "W", "logvar"
    generic = normal(4), normal(3), normal((4, 3))
    saturated = normal(4), np.array([45.0, -45.0, 0.0]), normal((4, 3))
    pairs = [
        Pair(f"{prefix}binary free energy", *binary, (x, *generic), names[:3]),
        Pair(f"{prefix}binary free energy, square W", *binary, (x, normal(4), normal(4), normal((4, 4))), names[:3]),
        Pair(f"{prefix}binary free energy, saturated", *binary, (x, *saturated), names[:3], True),
        Pair(f"{prefix}Gaussian free energy", *gaussian, (normal((5, 4)), *generic, normal(4)), names),
    ]
    if ops is boltzmann:
        centre = boltzmann.centre_forward, boltzmann.centre_backward
        offsets = normal(4), rng.random(3)
        phases = boltzmann.phases_forward, boltzmann.phases_backward
        pairs += [
            Pair("phases", *phases, (normal(5), normal(3)), ("free_energy", "free_energy_of_chains")),
            Pair("centred biases", *centre, (*generic, None, *offsets), names[:3]),
            Pair("centred biases, Gaussian units", *centre, (*generic, normal(4), *offsets), names),
        ]
    return pairs


def energy_pairs():
    """The two losses of an energy-based model that need no partition function."""
    normal = np.random.default_rng(9).standard_normal
    matching = energy.score_matching_forward, energy.score_matching_backward
    contrastive = energy.contrastive_forward, energy.contrastive_backward
    return [
        Pair("score matching", *matching, (normal((4, 3)), normal((4, 3)), 0.3), ("score",)),
        Pair("contrastive", *contrastive, (normal(4), normal(4), 0.2), ("energy_of_data", "energy_of_samples")),
    ]


def adversarial_pairs():
    """The losses of critic and generator, generic and where the critic is sure or wrong, and the penalty on its slope."""
    normal, pairs = np.random.default_rng(12).standard_normal, []
    sure = np.array([-100.0, -40.0, 0.0, 40.0, 100.0])
    for name, objective in [("logistic", "minimax"), ("Wasserstein", "wasserstein")]:
        critic, wrt = adversarial.CRITICS[objective], ("of_data", "of_samples")
        pairs.append(Pair(f"{name} critic", *critic, (normal(5), normal(5)), wrt))
        pairs.append(Pair(f"{name} critic, sure or wrong", *critic, (sure, sure[[3, 1, 0, 4, 2]]), wrt, True))
    for name, objective in [("minimax", "minimax"), ("non-saturating", "non_saturating"), ("Wasserstein", "wasserstein")]:
        generator = adversarial.GENERATORS[objective]
        pairs.append(Pair(f"{name} generator", *generator, (normal(5),), ("of_samples",)))
        pairs.append(Pair(f"{name} generator, sure or wrong", *generator, (sure,), ("of_samples",), True))
    penalty = adversarial.slope_penalty_forward, adversarial.slope_penalty_backward
    return [*pairs, Pair("slope penalty", *penalty, (normal((4, 3)), 0.7), ("score",))]


def score_pairs(prefix, ops):
    """Energy and score of a network of two layers, whose gradient is backward through the backward pass: each activation, and
    saturated units."""
    normal, pairs = np.random.default_rng(10).standard_normal, []
    for activation in energy.DERIVATIVES:
        for scale in (1.0, 30.0) if activation != "tanh" else (1.0,):  # of saturated tanh, 1 − h² cancels in float32

            def forward(x, W, b, W_out, b_out, activation=activation):
                return ops.score_forward(x, [(W, b, activation), (W_out, b_out, "identity")], 0.7)

            def backward(denergy, dscore, cache):
                dx, grads = ops.score_backward(denergy, dscore, cache)
                return dx, *(grad for layer in grads for grad in layer)

            args = normal((4, 2)), scale * normal((2, 5)), normal(5), normal((5, 1)), normal(1)
            wrt = "x", "W", "b", "W_out", "b_out"
            name = f"{prefix}score {activation}" + (", saturated" if scale > 1 else "")
            pairs.append(Pair(name, forward, backward, args, wrt, scale > 1))
    return pairs
