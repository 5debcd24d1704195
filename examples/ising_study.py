"""What a VAE learns of the Ising model, every claim beside an exact result: from simulation to table and pictures.

    python examples/ising_study.py [--out runs/ising_study] [--seed 0] [--quick]

1. **The latent variable.** 40 × 40 lattices at T = 0.25 ... 4.00, independent Markov chains to train, validate and test. VAEs
   1600-256-L-256-1600 with L = 2 and 1 see the spins alone. Their posterior mean is compared with the magnetisation m.
2. **What the bound loses.** The entropy S(T) of the finite lattice is known exactly (Kaufman), and for lattices at T no model
   can have a mean −ELBO below it: −ELBO ≥ −⟨log p(x)⟩ = S + KL(lattices at T ‖ model) ≥ S.
3. **The transition without labels**: finite-size scaling of the latent variable on four sizes (`ising_scaling.py`).
4. **What the model cannot do.** Given z the spins of the decoder are independent. So spins i and j are correlated only through
   z: ⟨s_i s_j⟩ = E_z[μ_i(z) μ_j(z)], with μ = 2 E[x|z] − 1, at every distance. Where μ is the same all over the lattice this is
   ⟨m²⟩ at all distances, and the energy per spin is −2 ⟨m²⟩. A lattice at T_c has clusters of all sizes instead: its G(r) falls
   from 0.71 at r = 1 as r^(−1/4), and one or two numbers z have no room for where all the clusters are.

Trained models and what they measured are kept in the folder --out; whoever is interrupted runs it again. Lattices are not kept:
from their seed they are as soon simulated as read. Simulations give the same lattices everywhere. Trained weights differ in
rounding between processors, so what comes from a VAE differs in its last digits.
"""

import argparse
import time
from pathlib import Path
from typing import NamedTuple

import ising_pictures
import ising_scaling
import numpy as np
from scipy.special import gammaln
from scipy.stats import spearmanr

import npvae
from npvae.data import ising
from npvae.schedules import Cosine, Linear


class Plan(NamedTuple):
    """How much is simulated and trained."""

    size: int = 40
    temperatures: tuple = tuple(0.25 * np.arange(1, 17))
    n_chains: tuple = (8, 2, 4)  # per temperature, to train, validate and test
    n_lattices: tuple = (1250, 250, 250)  # per chain, to train, validate and test
    hidden: tuple = (256,)
    epochs: int = 12
    learning_rate: float = 2e-3  # at first; it falls to 0 along half a cosine
    weight_decay: float = 0.3  # else initial weights remain that add noise to z
    n_critical: tuple = (16, 250)  # chains at T_c, and lattices per chain
    scaling: ising_scaling.Plan = ising_scaling.Plan()


QUICK = Plan(8, (1.5, 2.5, 3.5), (2, 2, 2), (100,) * 3, (16,), 20, 1e-2, 0.1, (4, 50), ising_scaling.Plan(
    (6, 8), 6.0, 7, 4, 50, n_train=(2, 50), hidden=(8,), epochs=20, learning_rate=1e-2, n_bootstrap=10))  # fmt: skip


class Data(NamedTuple):
    """Lattices of independent chains: train, val and test at all temperatures, critical at T_c alone."""

    train: ising.IsingSample
    val: ising.IsingSample
    test: ising.IsingSample
    critical: ising.IsingSample


class Encoded(NamedTuple):
    """What a model says of the test lattices."""

    mu: np.ndarray  # (n, L) posterior means
    kl: np.ndarray  # (L,) mean KL of each dimension, nats
    z: np.ndarray  # (n,) the odd part of the dimension with the largest KL, ½ (mu(x) − mu(−x)); the sign chosen to go with m
    loss: np.ndarray  # (K, C) −ELBO of each chain, nats per lattice


class Critical(NamedTuple):
    """Real lattices at T_c, and draws of the model for z ~ q(z|x) of these."""

    real: np.ndarray  # (n, size²) zeros and ones
    drawn: np.ndarray  # (n, size²)
    mean: np.ndarray  # (n, size²), E[x|z] of the draws
    correlations: np.ndarray  # (3, size//2 + 1), G(r) of the spins of each of these


# ------------------------------------------------------------------------------------------------------ lattices and models


def simulated(plan, seed):
    """The Data of a plan."""
    seeds = np.random.SeedSequence([seed, 0]).generate_state(4).tolist()
    parts = [ising.simulate(plan.temperatures, n_lattices, plan.size, part_seed, n_chains, workers=2)
             for n_lattices, n_chains, part_seed in zip(plan.n_lattices, plan.n_chains, seeds)]  # fmt: skip
    n_chains, n_lattices = plan.n_critical
    return Data(*parts, ising.simulate(ising.T_CRITICAL, n_lattices, plan.size, seeds[3], n_chains, workers=2))


def trained(n_latent, data, plan, seed, folder, say):
    """A VAE of the lattices, with the weights of the epoch that is best for the validation chains. It is kept in the folder."""
    path = ising_scaling.kept_in(folder, f"vae_{n_latent}", plan, seed)
    if path.exists():
        return npvae.VAE.load(path)
    model = npvae.VAE(plan.size**2, n_latent, plan.hidden, seed=seed)
    n_steps = plan.epochs * -(-len(data.train.spins) // 128)
    adam, warm_up = npvae.Adam(Cosine(plan.learning_rate, n_steps)), Linear(max(1, n_steps // 20))
    history = npvae.fit(model, data.train.spins, data.val.spins, epochs=plan.epochs, batch_size=128, optimizer=adam,
                        weight_decay=plan.weight_decay, beta=warm_up, early_stopping=plan.epochs, seed=seed, workers=2,
                        progress=False)  # fmt: skip
    model.save(path)
    say(f"{model.widths}: trained in {history['seconds'][-1]:.0f} s, −ELBO of the validation chains "
        f"{np.add(history['val_nll'], history['val_kl']).min():.2f} nats per lattice")  # fmt: skip
    return model


# ------------------------------------------------------------------------------------------------------------- measurement


def encoded(model, test, plan):
    """Encoded, of the test lattices; m is used only to call one sign of z the positive one."""
    mu, mu_turned = (npvae.evaluate.posterior(model, x)[0] for x in (test.spins, 1 - test.spins))
    kl = npvae.evaluate.kl_per_dimension(model, test.spins)
    z = (mu - mu_turned)[:, np.argmax(kl)] / 2
    z *= np.sign(np.mean(z * test.magnetization)) or 1.0
    chains = test.spins.reshape(-1, plan.n_lattices[2], plan.size**2)
    loss = [-npvae.evaluate.elbo(model, chain, 0, 4).elbo for chain in chains]
    return Encoded(mu, kl, z, np.reshape(loss, (len(plan.temperatures), -1)))


def left_open_by_m(magnetization, n_sites):
    """log of the number of lattices with these magnetisations, (...) in nats: what a model loses at least that describes a
    lattice by its magnetisation alone."""
    n_up = n_sites * (1 + magnetization) / 2
    return gammaln(n_sites + 1) - gammaln(n_up + 1) - gammaln(n_sites - n_up + 1)


def drawn_at_critical(model, data, seed):
    """Critical: x' ~ p(x|z) for z ~ q(z|x), x at T_c. No prior is in it: the z are those that lattices at T_c have."""
    rng = np.random.default_rng(seed)
    real, size = data.critical.spins, round(model.n_features**0.5)
    mu, logvar = npvae.evaluate.posterior(model, real)
    z = mu + np.exp(0.5 * logvar) * rng.standard_normal(mu.shape)
    drawn, mean = model.draw_data(z, rng), model.decode(z)
    return Critical(real, drawn, mean, np.array([correlation(spins(x), size).mean(axis=0) for x in (real, drawn, mean)]))


def correlation(s, size):
    """G(r) = ⟨s_i s_(i+r)⟩ along rows and columns, r = 0 ... size/2: s (n, size²) -> (n, size//2 + 1). Not connected."""
    s = np.asarray(s, float).reshape(-1, size, size)
    found = []
    for axis in (1, 2):
        spectrum = np.abs(np.fft.fft(s, axis=axis)) ** 2
        found.append(np.fft.ifft(spectrum, axis=axis).real.mean(axis=3 - axis) / size)  # (n, size)
    return np.mean(found, axis=0)[:, : size // 2 + 1]


def spins(x):
    """Zeros and ones, or probabilities of a one, as mean spins in [−1, 1]."""
    return 2 * np.asarray(x, float) - 1


# -------------------------------------------------------------------------------------------------------------------- table


class Row(NamedTuple):
    """A line of the table."""

    quantity: str
    exact: str
    measured: str
    error: str


def rows_of_latent(models, test, plan):
    """What the latent variables of the models (n_latent -> Encoded) have to do with the magnetisation, and their bounds."""
    m, found = test.magnetization, []
    exact = ising.kaufman_entropy(np.array(plan.temperatures), plan.size)
    for n_latent, of in models.items():
        name = f"{n_latent} latent" + (f", z_{np.argmax(of.kl) + 1}" if n_latent > 1 else "")
        agree = (np.sign(of.z) == np.sign(m))[m != 0]
        ordered = test.temperature[m != 0] < ising.T_CRITICAL
        loss, error = ising_scaling.mean_and_error(of.loss)
        total, total_error = ising_scaling.mean_and_error(of.loss.mean(axis=0))
        lowest = np.argmin(loss - exact)
        found += [
            Row(f"{name}: rank correlation of abs(z) and abs(m)", "1", f"{spearmanr(np.abs(of.z), np.abs(m))[0]:.4f}", ""),
            Row(f"{name}: sign of m recovered, T < T_c", "1", f"{agree[ordered].mean():.4f}", ""),
            Row(f"{name}: sign of m recovered, all T", "1", f"{agree.mean():.4f}", ""),
            Row(f"{n_latent} latent: KL of each dimension, nats per lattice", "", ", ".join(f"{kl:.2f}" for kl in of.kl), ""),
            Row(f"{n_latent} latent: −ELBO, nats per lattice (entropy, mean over T)", f"≥ {exact.mean():.2f}",
                f"{total:.2f}", f"± {total_error:.2f}"),
            Row(f"{n_latent} latent: −ELBO, nats per spin", f"≥ {exact.mean() / plan.size**2:.4f}",
                f"{total / plan.size**2:.4f}", f"± {total_error / plan.size**2:.4f}"),
            Row(f"{n_latent} latent: −ELBO where it is nearest to S(T), T = {plan.temperatures[lowest]:g}",
                f"≥ {exact[lowest]:.3f}", f"{loss[lowest]:.3f}", f"± {error[lowest]:.3f}"),
        ]  # fmt: skip
    return found


def rows_of_bounds(models, plan):
    """−ELBO beside the exact entropy at each temperature."""
    exact, found = ising.kaufman_entropy(np.array(plan.temperatures), plan.size), []
    for n_latent, of in models.items():
        for T, entropy, loss, error in zip(plan.temperatures, exact, *ising_scaling.mean_and_error(of.loss)):
            quantity = f"{n_latent} latent: −ELBO at T = {T:.2f}, nats per lattice"
            found.append(Row(quantity, f"≥ {entropy:.2f}", f"{loss:.2f}", f"± {error:.2f}"))
    return found


def rows_of_scaling(errors):
    """The transition from each variable; errors: name of a variable -> name of a quantity -> (estimate, standard error)."""
    found = []
    for variable, estimates in errors.items():
        for quantity, (value, error) in estimates.items():
            if variable != "z" or quantity not in ising_scaling.NOT_OF_Z:
                exact = f"{ising_scaling.EXACT[quantity]:.4f}"
                found.append(Row(f"{variable}: {quantity}", exact, f"{value:.4f}", f"± {error:.4f}"))
    return found


def rows_of_critical(critical, plan):
    """Real lattices at T_c, the model's draws, and what independent spins given z must have."""
    (real, drawn, mean), far = critical.correlations, plan.size // 2
    chains = len(critical.real) // plan.n_critical[1], -1
    energies, squares = ([ising_scaling.mean_and_error(compute(x).reshape(chains).mean(axis=1)) for x in critical[:2]]
                         for compute in (lambda x: ising.energy_per_spin(x, plan.size),
                                         lambda x: ising.magnetization_per_spin(x) ** 2))  # fmt: skip
    exact = f"{ising.kaufman_energy(ising.T_CRITICAL, plan.size):.4f}"
    (of_real, error_of_real), (of_drawn, error_of_drawn) = energies
    return [
        Row("energy per spin at T_c, simulated", exact, f"{of_real:.4f}", f"± {error_of_real:.4f}"),
        Row("energy per spin at T_c, drawn from the model", exact, f"{of_drawn:.4f}", f"± {error_of_drawn:.4f}"),
        Row("the same beside −2 E[μ_i μ_j] of neighbours", f"{-2 * mean[1]:.4f}", f"{of_drawn:.4f}", f"± {error_of_drawn:.4f}"),
        Row("⟨m²⟩ at T_c, drawn from the model", f"sim. {squares[0][0]:.4f}", f"{squares[1][0]:.4f}", f"± {squares[1][1]:.4f}"),
        Row("G(1) at T_c, drawn from the model", f"sim. {real[1]:.4f}", f"{drawn[1]:.4f}", ""),
        Row(f"G({far}) at T_c, drawn from the model", f"sim. {real[far]:.4f}", f"{drawn[far]:.4f}", ""),
    ]  # fmt: skip


def print_table(rows):
    width = max(len(row.quantity) for row in rows)
    print(f"\n{'quantity':{width}}{'exact':>12}{'measured':>12}  error")
    for row in rows:
        print(f"{row.quantity:{width}}{row.exact:>12}{row.measured:>12}  {row.error}")


# --------------------------------------------------------------------------------------------------------------------- main


def first_guess(of, plan):
    """Where |z| of the test lattices is spread most: the temperature of the plan of the largest variance of |z|."""
    spread = np.abs(of.z).reshape(len(plan.temperatures), -1).std(axis=1)
    return plan.temperatures[int(np.argmax(spread))]


def study(plan, seed, folder, say):
    """Everything: the rows of two tables, and the pictures by name."""
    data = simulated(plan, seed)
    say(f"{sum(len(part.spins) for part in data):,} lattices {plan.size} × {plan.size} simulated")
    vaes = {n_latent: trained(n_latent, data, plan, seed, folder, say) for n_latent in (2, 1)}
    models = {n_latent: encoded(vae, data.test, plan) for n_latent, vae in vaes.items()}
    critical = drawn_at_critical(vaes[2], data, seed)
    centre = first_guess(models[1], plan)
    say(f"|z| of one latent is spread most at T = {centre:g}: the centre of the windows of the scaling")
    measured = [ising_scaling.measure(size, centre, plan.scaling, seed, folder, say)
                for size in plan.scaling.sizes]  # fmt: skip
    summaries = {name: [ising_scaling.summarized(of, name) for of in measured] for name in ising_scaling.VARIABLES}
    errors = {name: ising_scaling.with_errors(of, plan.scaling.n_bootstrap, seed) for name, of in summaries.items()}
    say("estimates and their errors done")
    rows = [*rows_of_latent(models, data.test, plan), *rows_of_scaling(errors), *rows_of_critical(critical, plan)]
    return rows, rows_of_bounds(models, plan), {
        "latent": ising_pictures.latent(models, data.test, plan),
        "entropy": ising_pictures.entropy(models, left_open_by_m(data.test.magnetization, plan.size**2), plan),
        "scaling": ising_pictures.scaling(summaries, errors),
        "critical": ising_pictures.critical(critical, plan),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--out", default="runs/ising_study", metavar="DIR", help="folder of results (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of lattices, weights and noise (default: %(default)s)")
    parser.add_argument("--quick", action="store_true", help="tiny lattices, in seconds, to see that it runs")
    args = parser.parse_args()
    started, folder = time.perf_counter(), Path(args.out)
    folder.mkdir(parents=True, exist_ok=True)

    def say(line):
        print(f"{time.perf_counter() - started:6.0f} s  {line}", flush=True)

    *tables, pictures = study(QUICK if args.quick else Plan(), args.seed, folder, say)
    for rows in tables:
        print_table(rows)
    for name, figure in pictures.items():
        figure.savefig(folder / f"ising_{name}.png", dpi=110)
    print(f"\npictures: {folder}/ising_*.png")


if __name__ == "__main__":
    main()
