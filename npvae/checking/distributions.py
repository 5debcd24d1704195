"""The cases of the ops of distributions: Gaussians with full covariance and with learned variances, chains and paths of
Gaussian steps, whole numbers, and what a path costs in a quantum system."""

import numpy as np

from npvae.checking.pair import LOGITS, Pair
from npvae.ops import chains, cusps, discrete, full_posterior, gaussian_kl, pair_features, potentials, sde
from npvae.ops.sde import Field


def gaussian_pairs():
    """Gaussians with full covariance, the divergences of two Gaussians, and Gaussian steps one after the other: generic, and
    where two Gaussians nearly agree."""
    normal = np.random.default_rng(10).standard_normal
    (mu_q, mu_p), (logvar_q, logvar_p) = normal((2, 4, 3)), normal((2, 4, 3))
    factor_q, factor_p = (full_posterior.factor_forward(logvar, normal((4, 3)))[0] for logvar in (logvar_q, logvar_p))
    factor = full_posterior.factor_forward, full_posterior.factor_backward
    sample = full_posterior.full_sample_forward, full_posterior.full_sample_backward
    kl = full_posterior.full_kl_forward, full_posterior.full_kl_backward
    sampled = full_posterior.full_sampled_kl_forward, full_posterior.full_sampled_kl_backward
    solve = gaussian_kl.solve_forward, gaussian_kl.solve_backward
    pair = gaussian_kl.pair_kl_forward, gaussian_kl.pair_kl_backward
    pair_sampled = gaussian_kl.pair_sampled_kl_forward, gaussian_kl.pair_sampled_kl_backward
    full_pair = gaussian_kl.full_pair_kl_forward, gaussian_kl.full_pair_kl_backward
    z, eps = normal((2, 5, 4, 3))
    of_pair, of_full_pair = ("mu_q", "logvar_q", "mu_p", "logvar_p"), ("mu_q", "factor_q", "mu_p", "factor_p")
    nearly = mu_q + 1e-3 * mu_p, logvar_q + 1e-3 * logvar_p
    return [
        Pair("Cholesky factor", *factor, (logvar_q, normal((4, 3))), ("logvar", "below")),
        Pair("full sampler", *sample, (mu_q, factor_q, normal((4, 3))), ("mu", "factor")),
        Pair("full sampler, 5 samples", *sample, (mu_q, factor_q, eps), ("mu", "factor")),
        Pair("full Gaussian KL", *kl, (mu_q, factor_q), ("mu", "factor")),
        Pair("full sampled KL", *sampled, (z, factor_q, eps), ("z", "factor")),
        Pair("triangular solve", *solve, (factor_p, normal((4, 3, 2))), ("factor", "b")),
        Pair("KL of two Gaussians", *pair, (mu_q, logvar_q, mu_p, logvar_p), of_pair),
        Pair("KL of two Gaussians, nearly equal", *pair, (mu_q, logvar_q, *nearly), of_pair, True),
        Pair("sampled KL of two", *pair_sampled, (z, logvar_q, eps, mu_p, logvar_p), ("z", "logvar_q", "mu_p", "logvar_p")),
        Pair("KL of two full Gaussians", *full_pair, (mu_q, factor_q, mu_p, factor_p), of_full_pair),
        *transition_pairs(), *path_pairs(), *potential_pairs(), *particle_pairs(),
    ]  # fmt: skip


def transition_pairs():
    """A transition of a chain of latents and its divergence: generic, p nearly q, log-variances beyond and on their bounds."""
    normal = np.random.default_rng(13).standard_normal
    transition = chains.transition_forward, chains.transition_backward
    kl = chains.transition_kl_forward, chains.transition_kl_backward
    posterior, eps, prior = normal((4, 6)), normal((2, 4, 3)), normal((8, 6))  # of 2 samples, each with a p of its own
    (z, logvar), _ = chains.transition_forward(posterior, eps)
    clipped, clipped_p = posterior.copy(), prior.copy()
    clipped[:, 3:] = [[-40, -30, 0], [20, 30, 1], [-31, 19, 21], [0.5, 2, -29]]
    clipped_p[:3, 3:] = [[20, 25, 2], [0.5, 20, 21], [1, 18, 30]]
    nearly = np.concatenate([posterior, posterior]) + 1e-3 * prior
    names = "z", "logvar", "prior"
    return [
        Pair("Gaussian transition", *transition, (posterior, eps), ("posterior",)),
        Pair("Gaussian transition, clipped", *transition, (clipped, np.full((1, 4, 3), 1e-4)), ("posterior",), True),
        Pair("row for each sample", chains.per_sample_forward, chains.per_sample_backward, (normal((4, 3)), 2), ("a",)),
        Pair("sampled KL of a transition", *kl, (z, logvar, eps, prior), names),
        Pair("sampled KL of a transition, nearly equal", *kl, (z, logvar, eps, nearly), names, True),
        Pair("sampled KL of a transition, clipped", *kl, (z, logvar, eps, clipped_p), names, True),
    ]


def path_pairs():
    """A field, and a path of both schemes with its integrals, whose sum is log dQ/dP: σ one number, and one at each time."""
    normal = np.random.default_rng(14).standard_normal
    arguments = normal((2, 2)), normal((4, 2, 2)), np.array([0.0, 0.1, 0.3, 0.4, 0.6])  # z, eps, times
    sigmas = np.array(0.8), np.array([[0.8], [0.5], [0.7], [1.1], [0.9]])
    coefficients = np.array([0.3, -1.2, 0.1, -0.4]), np.array([0.5, 0.7, -0.2])  # of drift and control
    names = "z", "sigma", "drift", "control"
    pairs = [Pair("polynomial field", polynomial_forward, polynomial_backward, (normal((4, 3)), coefficients[0]), ("z", "c"))]
    for scheme, sigma in zip(("euler", "heun"), sigmas):
        args = *arguments, sigma, *coefficients, scheme
        pairs.append(Pair(f"{scheme.capitalize()} path", path_forward, path_backward, args, names))
    return pairs


def polynomial_forward(z, c):
    """The field Σ_k c_k z^k: z (B, D), c (n,) -> (B, D)."""
    return sde.polynomial_forward(z, 0.0, c)


def polynomial_backward(dvalue, cache):
    """Backward of `polynomial_forward`: dvalue (B, D) -> dz (B, D), dc (n,)."""
    dz, (dc,) = sde.polynomial_backward(dvalue, cache)
    return dz, dc


def path_forward(z, eps, times, sigma, drift, control, scheme):
    """`sde.integrate_forward` with polynomials as fields, coefficients drift (n,) and control (m,), and two states kept."""
    fields = (Field(sde.polynomial_forward, sde.polynomial_backward, c) for c in (drift, control))
    return sde.integrate_forward(z, eps, times, sigma, *fields, scheme, keep=(3, 4))


def path_backward(dstates, denergy, dmartingale, cache):
    """Backward of `path_forward`: dstates (2, B, D), denergy, dmartingale (B,) -> dz, dsigma, ddrift, dcontrol."""
    dz, dsigma, (ddrift,), (dcontrol,) = sde.integrate_backward(dstates, denergy, dmartingale, cache)
    return dz, dsigma, ddrift, dcontrol


def potential_pairs():
    """Potentials of quantum systems, and the drifts that are known of their ground states: three particles, two nuclei."""
    normal = np.random.default_rng(15).standard_normal
    nuclei = ((0.0, 0.1, -0.7), (0.2, 0.0, 0.8)), (1.0, 2.0)  # positions, charges
    named = {
        "harmonic potential": (potentials, "harmonic", 1.7), "springs": (potentials, "springs", (0.7, 3)),
        "potential of powers": (potentials, "series", (0.3, -0.2, 1.1, 0.4, 0.7)), "hat potential": (potentials, "hat", 1.3),
        "Gaussian contacts": (potentials, "gaussians", (3.0, 0.6)), "attraction of nuclei": (potentials, "attraction", nuclei),
        "repulsion of electrons": (potentials, "repulsion", 3), "linear drift": (cusps, "linear", 1.3),
        "nuclear cusps": (cusps, "nuclear", nuclei), "electronic cusps": (cusps, "electronic", (0.5, 3)),
    }  # fmt: skip
    fields = {name: Field(getattr(ops, f"{op}_forward"), getattr(ops, f"{op}_backward"), parameters)
              for name, (ops, op, parameters) in named.items()}  # fmt: skip
    base = fields["sum of cusps"] = potentials.sum_of(fields["nuclear cusps"], fields["electronic cusps"])
    fields["energy of cusps"] = Field(cusps.cusp_energy_forward, cusps.cusp_energy_backward, (base, 0.6))
    columns = {"Gaussian contacts": 6}  # three particles in a plane, of all others in space
    return [Pair(name, *at_places(field), (normal((2, columns.get(name, 9))),), ("r",)) for name, field in fields.items()]


def particle_pairs():
    """The ops of the network of particles: three of them in space, two centres."""
    normal = np.random.default_rng(16).standard_normal
    x, y, s = normal((2, 3, 2, 3)), normal((2, 3, 2, 3)), normal((2, 3, 2))
    lengths = pair_features.lengths_forward, pair_features.lengths_backward
    features = pair_features.pair_features_forward, pair_features.pair_features_backward
    pushes = pair_features.pushes_forward, pair_features.pushes_backward
    return [
        Pair("lengths", *lengths, (x,), ("x",)),
        Pair("features of pairs", *features, (s, normal((2, 3, 2))), ("s", "s_of_pairs")),
        Pair("damped strengths", pair_features.damped_forward, pair_features.damped_backward, (s, s * s), ("strength", "s")),
        Pair("pushes", *pushes, (s, x, normal((2, 3, 2)), y), ("alpha", "x", "beta", "y")),
    ]


def at_places(field):
    """The forward and the backward of a Field that depends on places r alone."""
    return (lambda r: field.forward(r, 0.0, field.parameters)), (lambda dvalue, cache: field.backward(dvalue, cache)[0])


def full_latent_and_variance_pairs(prefix, ops):
    """Of a back end: the latent with full covariance or with a learned prior, and Gaussian likelihoods with learned variances;
    generic, and clipped."""
    normal = np.random.default_rng(11).standard_normal
    latent_ops = ops.full_latent_forward, ops.full_latent_backward
    sampled_ops = ops.full_latent_sampled_forward, ops.full_latent_sampled_backward
    learned = ops.gaussian_learned_nll_forward, ops.gaussian_learned_nll_backward
    shared = ops.gaussian_global_nll_forward, ops.gaussian_global_nll_backward
    posterior, x = normal((4, 9)), normal((4, 3))
    clipped = posterior.copy()
    clipped[:, 3:6] = [[-40, -30, 0], [20, 30, 1], [-31, 19, 21], [0.5, 2, -29]]
    edges = np.array([[0.1, -0.2, 0.3, -4.5, -4, 20.5]])  # mean, then log-variances below, on and above their bounds
    pairs = [
        Pair("full latent", *latent_ops, (posterior, x), ("posterior",)),
        Pair("full latent, 5 samples", *latent_ops, (posterior, normal((5, 4, 3))), ("posterior",)),
        Pair("full latent, clipped", *latent_ops, (clipped, np.full((4, 3), 1e-4)), ("posterior",), True),
        Pair("full latent sampled", *sampled_ops, (posterior, normal((5, 4, 3))), ("posterior",)),
        Pair("full latent sampled, clipped", *sampled_ops, (clipped, np.full((1, 4, 3), 1e-4)), ("posterior",), True),
        Pair("learned Gaussian nll", *learned, (normal((4, 6)), x), ("output",)),
        Pair("learned Gaussian nll, 5 samples", *learned, (normal((5, 4, 6)), x), ("output",)),
        Pair("learned Gaussian nll, clipped", *learned, (edges, x[:1], -4.0), ("output",), True),
        Pair("global Gaussian nll", *shared, (normal((4, 3)), normal(1), x), ("mean", "logvar")),
        Pair("global Gaussian nll, 5 samples", *shared, (normal((5, 4, 3)), normal(1), x), ("mean", "logvar")),
        Pair("global Gaussian nll, clipped", *shared, (normal((4, 3)), np.array([-5.0]), x, -4.0), ("mean", "logvar"), True),
    ]
    return [pair._replace(name=prefix + pair.name) for pair in pairs + learned_prior_pairs(ops)]


def learned_prior_pairs(ops):
    """The latent with a learned prior: generic, p nearly q, and log-variances of q, of p or of both beyond and on bounds."""
    normal = np.random.default_rng(12).standard_normal
    latent_ops = ops.prior_latent_forward, ops.prior_latent_backward
    sampled_ops = ops.prior_latent_sampled_forward, ops.prior_latent_sampled_backward
    (posterior, prior), eps, samples = normal((2, 4, 6)), normal((4, 3)), normal((5, 4, 3))
    nearly = posterior + 1e-3 * prior
    clipped_q, clipped_p = posterior.copy(), prior.copy()
    clipped_q[:, 3:] = [[-40, -30, 0], [20, 30, 1], [-31, 19, 21], [0.5, 2, -29]]
    clipped_p[:, 3:] = [[0.5, 20, 21], [20, 25, 2], [1, 18, 30], [-1, 0, 3]]
    low = np.array([[1e-7, -2e-7, 0.5, -31, -30, -33]]), np.array([[-1e-7, 1e-7, 0.5 + 1e-7, -30, -31, -35]])  # q and p
    names = "posterior", "prior"
    return [
        Pair("learned prior", *latent_ops, (posterior, prior, eps), names),
        Pair("learned prior, 5 samples", *latent_ops, (posterior, prior, samples), names),
        Pair("learned prior, nearly q", *latent_ops, (posterior, nearly, eps), names, True),
        Pair("learned prior, clipped", *latent_ops, (clipped_q, clipped_p, np.full((4, 3), 1e-4)), names, True),
        Pair("learned prior, clipped below", *latent_ops, (*low, np.full((1, 3), 1e-4)), names, True),
        Pair("learned prior sampled", *sampled_ops, (posterior, prior, samples), names),
        Pair("learned prior sampled, clipped", *sampled_ops, (clipped_q, clipped_p, np.full((1, 4, 3), 1e-4)), names, True),
    ]


def discrete_pairs(prefix, ops):
    """The likelihoods of whole numbers: generic, with samples, saturated logits, parameters at both ends of their range."""
    rng = np.random.default_rng(9)
    normal = rng.standard_normal
    categorical = ops.categorical_nll_forward, ops.categorical_nll_backward
    beta_binomial = ops.beta_binomial_nll_forward, ops.beta_binomial_nll_backward
    levels, x = rng.integers(0, 5, (3, 4)).astype(float), rng.integers(0, 256, (3, 4)).astype(float)
    levels.flat[:2], x.flat[:2] = (0, 4), (0, 255)
    low, high = discrete.LOG_MIN, discrete.LOG_MAX
    edges = np.array([[low - 5, low, low + 1, 0.0, high - 1, high, high + 5, high, 3.0, -3.0, low, low - 1]])
    row = np.array([[255.0, 0.0, 3.0, 200.0, 250.0, 128.0]])
    pairs = [
        Pair(f"{prefix}categorical nll", *categorical, (normal((3, 20)), levels), ("logits",)),
        Pair(f"{prefix}categorical nll, 4 samples", *categorical, (normal((4, 3, 20)), levels), ("logits",)),
        Pair(f"{prefix}beta-binomial nll", *beta_binomial, (normal((3, 8)), x), ("output",)),
        Pair(f"{prefix}beta-binomial nll, 4 samples", *beta_binomial, (2 * normal((4, 3, 8)), x), ("output",)),
        Pair(f"{prefix}beta-binomial nll, n = 4", *beta_binomial, (2 * normal((3, 8)), levels, 4), ("output",)),
        Pair(f"{prefix}beta-binomial nll, beyond, on, inside the bounds", *beta_binomial, (edges, row), ("output",), True),
    ]
    for level in LOGITS:
        for target in (0.0, 1.0):
            args = np.array([[level, 0.0, 0.5]]), np.array([[target]])
            name = f"{prefix}categorical nll, logit {level:g}, x = {target:g}"
            pairs.append(Pair(name, *categorical, args, ("logits",), True))
    for level in (-20.0, -8.0, 8.0, 20.0):
        args = np.array([[level, level, level, -1.0, 0.0, 2.0]]), np.array([[0.0, 128.0, 255.0]])
        pairs.append(Pair(f"{prefix}beta-binomial nll, log α = {level:g}", *beta_binomial, args, ("output",), True))
    return pairs
