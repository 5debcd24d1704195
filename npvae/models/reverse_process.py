"""What is done with a trained diffusion: draws by the chain backwards or by the probability flow, densities, the ELBO.

These functions are methods of `npvae.models.Diffusion`. The probability flow is a differential equation without noise, dx/du of
`npvae.ops.diffusion.flow_velocity`, under which a sample of any level becomes one of any other: a flow in the sense of
`npvae.Flow`, continuous in time, with

    log p(x) = log N(x(1); 0, I) + ∫ ∇·(dx/du) du + D log a_1,        from x(0) = a_1 x at the level γ_1 to u = 1

(Chen et al. 2018; Song et al. 2021, section 4.3). The divergence is the trace of a Jacobian matrix, exact, one backward pass
for each of the D columns. Shapes: n data, D data and each latent, T steps.
"""

import math

import numpy as np

from npvae.core import checks
from npvae.models import evaluate
from npvae.models.protocol import Measure
from npvae.ops import diffusion, noise_schedule
from npvae.ops.coupling import standard_normal_nll_forward

ROWS_PER_PASS = 4096  # where nothing is trained: keeps memory flat
FLOW_STEPS = 60  # of the fourth order, of the probability flow
MOST_COLUMNS = 64  # of data whose density is computed: each costs a backward pass


def level(model, u, n):
    """γ at time u for n rows, (n,)."""
    return model.levels(np.full(n, u))[0]


def chain(model, n, rng=None, method="ancestral"):
    """Draws of every latent, from x_T ~ N(0, I) to x_1 and x_0: (T + 1, n, D), the data last, in their own units.

    method "ancestral": each x_t-1 ~ p(x_t-1|x_t), which is the model of the ELBO (Ho et al. 2020, algorithm 2);
    "deterministic": x_t-1 a function of x_t, without fresh noise (DDIM). Of x_0 it is E[x_0|x_1] under a flat prior, x_1/a_1.
    """
    checks.choice("method", method, ("ancestral", "deterministic"))
    rng, n = np.random.default_rng(rng), checks.integer("n", n, 1)
    x = rng.standard_normal((n, model.n_features))
    states, transitions = [x], model.n_steps - 1
    for i in reversed(range(transitions)):  # from time (i + 1)/(T − 1) to i/(T − 1)
        u = (i + 1) / transitions
        gamma_s, gamma_t = level(model, i / transitions, n), level(model, u, n)
        eps_hat, _ = model.denoise(model.own(x), np.full(n, u), gamma_t, np.full(n, i))
        if method == "ancestral":
            mean, variance, _ = diffusion.backward_step(x, eps_hat, gamma_s, gamma_t)
            x = mean + np.sqrt(variance) * rng.standard_normal(x.shape)
        else:
            x = diffusion.deterministic_step(x, eps_hat, gamma_s, gamma_t)
        states.append(x)
    a, _ = diffusion.signal_and_noise(level(model, 0.0, 1))
    return np.stack([*states, x / a])


def sample(model, n, rng=None, method="ancestral"):
    """n draws of x, (n, D); rng is a Generator or a seed; method as in `chain`, or "flow": the probability flow."""
    rng, n = np.random.default_rng(rng), checks.integer("n", n, 1)
    parts = [min(ROWS_PER_PASS, n - start) for start in range(0, n, ROWS_PER_PASS)]
    if method == "flow":
        return np.concatenate([from_noise(model, rng.standard_normal((m, model.n_features))) for m in parts])
    return model.own(model.in_data_units(np.concatenate([chain(model, m, rng, method)[-1] for m in parts])))


# ---- the probability flow ----


def velocity_and_divergence(model, x, u, with_divergence=True):
    """dx/du of the probability flow at x (n, D), time u, and its divergence Σ_d ∂(dx_d/du)/∂x_d: (n, D), (n,)."""
    gamma, slope = model.levels(np.full(len(x), u))
    x, times, zero = model.own(x), np.full(len(x), u), np.zeros(len(x))
    if model.predicts == "mixture":
        if with_divergence:
            raise ValueError('predicts "mixture" has no divergence of its flow: grey levels have no density')
        return slope[:, None] * diffusion.flow_of_noise(x, model.denoise(x, times, gamma)[0], gamma), zero
    read, _ = noise_schedule.fourier_input_forward(x, times, model.n_frequencies)
    output, mlp_cache = model.ops.mlp_forward(read, model.layers)
    rate, factor = diffusion.flow_velocity(output, gamma, model.predicts)
    if not with_divergence:
        return slope[:, None] * rate, zero
    trace = zero
    for d in range(model.n_features):
        doutput = np.zeros_like(output)
        doutput[:, d] = 1
        dread, _ = model.ops.mlp_backward(doutput, mlp_cache)
        trace = trace + dread[:, d]
    return slope[:, None] * rate, slope * factor[:, 0] * trace


def integrate_flow(model, x, start, end, n_steps=FLOW_STEPS, with_divergence=True):
    """The probability flow from time `start` to `end` by the Runge–Kutta scheme of fourth order: x (n, D) -> (n, D), and
    log |det ∂x(end)/∂x(start)| = ∫ ∇·(dx/du) du (n,)."""
    if model.time == "steps":
        raise ValueError('the probability flow needs a network for all times: time "fourier", not "steps"')
    h, log_det = (end - start) / n_steps, np.zeros(len(x))
    for i in range(n_steps):
        u = start + i * h
        k_1, d_1 = velocity_and_divergence(model, x, u, with_divergence)
        k_2, d_2 = velocity_and_divergence(model, x + 0.5 * h * k_1, u + 0.5 * h, with_divergence)
        k_3, d_3 = velocity_and_divergence(model, x + 0.5 * h * k_2, u + 0.5 * h, with_divergence)
        k_4, d_4 = velocity_and_divergence(model, x + h * k_3, u + h, with_divergence)
        x = x + h / 6 * (k_1 + 2 * k_2 + 2 * k_3 + k_4)
        log_det = log_det + h / 6 * (d_1 + 2 * d_2 + 2 * d_3 + d_4)
    return x, log_det


def to_noise(model, x, n_steps=FLOW_STEPS):
    """z = x(1) of the probability flow, (n, D), of data x (n, D)."""
    a, _ = diffusion.signal_and_noise(level(model, 0.0, 1))
    x = model.centred(model.check(x)[0])
    return np.concatenate([integrate_flow(model, a * part, 0.0, 1.0, n_steps, False)[0] for part in in_passes(x)])


def from_noise(model, z, n_steps=FLOW_STEPS):
    """The x of which `to_noise` makes z, up to the error of the integration: (n, D) -> (n, D)."""
    a, _ = diffusion.signal_and_noise(level(model, 0.0, 1))
    z = checks.real_array("z", z, n_columns=model.n_features)
    x = [integrate_flow(model, part, 1.0, 0.0, n_steps, False)[0] for part in in_passes(z)]
    return model.own(model.in_data_units(np.concatenate(x) / a))


def log_likelihood(model, x, n_steps=FLOW_STEPS):
    """log p(x) of each datum under the probability flow, x (n, D) -> (n,) in nats: exact up to the error of the integration.

    The flow's p(x) is not the chain's, of which the ELBO is a bound; they agree where the network is exact, and γ_1 → −∞.
    ValueError for grey levels, which have no density, and for more than 64 columns.
    """
    if model.likelihood == "levels" or model.n_features > MOST_COLUMNS:
        needs = f'the likelihood "gaussian" and at most {MOST_COLUMNS} columns'
        raise ValueError(f"log_likelihood needs {needs}; `elbo` bounds it for all data")
    a, _ = diffusion.signal_and_noise(level(model, 0.0, 1))
    log_p = []
    for part in in_passes(model.check(x)[0]):
        z, log_det = integrate_flow(model, a * part, 0.0, 1.0, n_steps)
        log_p.append(log_det - standard_normal_nll_forward(z)[0] + model.n_features * math.log(a.item()))
    return np.concatenate(log_p)


# ---- the bound ----


def elbo(model, x, n_samples=100, rng=None, objective="matching"):
    """Estimates of −ELBO and its parts from n_samples draws of step and noise for each datum, in nats: x (n, D) -> Terms, means
    over the data, and the losses of each draw (n_samples,), whose spread over √n_samples is the error of their mean.

    What the length of the noise says beside its direction is known on average and left out (`length_of_noise`).
    """
    (x,), rng, terms = model.check(x), np.random.default_rng(rng), []
    for _ in range(checks.integer("n_samples", n_samples, 1)):
        total = np.zeros(4)
        for part in in_passes(x):
            noise = model.draw(rng, part)
            found = np.array(model.forward(part, noise, objective, check=False)[0])
            known = 0 if objective == "consistency" else length_of_noise(model, noise, objective)
            total += len(part) / len(x) * (found - known * np.array([1, 0, 0, 1]))
        terms.append(total)
    return model.Terms(*np.mean(terms, axis=0).tolist()), np.array(terms)[:, 0]


def length_of_noise(model, noise, objective):
    """What ‖ε‖² − D, of mean 0, adds to the loss at the draws `noise`, if the data are of N(0, I): a control variate, in nats.

    There ε − ε̂ = a² ε − a s x, so that a denoising term ½ w ‖ε − ε̂‖² has the part ½ w a⁴ ‖ε‖². Where most pixels are black, a
    prior of each pixel misses far less than that, and nothing is taken off.
    """
    if model.predicts == "mixture":
        return 0.0
    t, eps = noise
    at = model.times_of(t, objective)
    gamma, slope = model.levels(at.u)
    weight = slope if at.step is None else diffusion.weight_forward(model.levels(at.below)[0], gamma)[0]
    a, _ = diffusion.signal_and_noise(gamma)
    excess = (eps[0].astype(np.float64) ** 2).sum(axis=1) - model.n_features  # (B, D) -> (B,)
    return at.n * (0.5 * weight * a[:, 0] ** 4 * excess).mean()


def measure(model, x, n_samples=100, seed=0, progress=False):
    """ELBO and its parts, bits per dimension, and log p(x) of the probability flow of rows x (n, D), as Measures."""
    terms, losses = elbo(model, x, n_samples, seed)
    error = float(losses.std() / math.sqrt(len(losses)))
    found = [
        Measure("elbo", -terms.loss, "nats", f"± {error:.3f}, steps and noise; {n_samples} draws of them per datum"),
        Measure("elbo_standard_error", error),
        Measure("reconstruction", terms.reconstruction, "nats", "−ELBO = reconstruction + prior + steps"),
        Measure("prior", terms.prior, "nats", model.terms_help["prior"]),
        Measure("steps", terms.steps, "nats", f"the denoising of {model.n_steps - 1} steps"),
    ]
    bits = {"elbo": -terms.loss}
    if model.likelihood == "gaussian" and model.n_features <= MOST_COLUMNS and model.time == "fourier":
        bits["flow"] = float(log_likelihood(model, x).mean())
        found.append(Measure("log_likelihood", bits["flow"], "nats", "log p(x) of the probability flow"))
    return found + evaluate.bits_measures(model, bits)


def pictures(model, plots, x, dataset):
    """The pictures of a run: (file name, what it shows, function that makes the Figure) each."""

    def draws():
        drawn = dataset.in_own_units(sample(model, plots.N_SAMPLES, 0))
        return plots.samples(drawn, dataset.image_shape, plots.samples_title(model))

    yield "samples.png", "draws of the model", draws
    if model.n_features == 2 and model.likelihood == "gaussian" and model.time == "fourier":
        yield "density.png", "validation rows, density of the probability flow, and draws", lambda: plots.density(model, x)


def in_passes(x):
    """Views of at most ROWS_PER_PASS rows each."""
    return [x[start : start + ROWS_PER_PASS] for start in range(0, len(x), ROWS_PER_PASS)]
