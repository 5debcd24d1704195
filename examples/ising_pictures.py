"""The four pictures of `ising_study.py`."""

import ising_scaling
import numpy as np
from matplotlib.figure import Figure

from npvae.app import plots
from npvae.data import ising

SIZE_STYLES = (("#4477aa", "o"), ("#ccbb44", "s"), ("#228833", "^"), ("#ee6677", "D"))  # colour and marker, small to large
REAL, DRAWN, EXACT = "#4477aa", "#ee6677", "black"
MAX_POINTS = 4000
TICKS = (0.5, 1, 2, 5)


def mark_critical(axes):
    """A thin line at T_c."""
    axes.axvline(ising.T_CRITICAL, color="0.6", lw=0.8, ls=":", zorder=0)


def latent(models, test, plan):
    """The plane of two latent variables by T; the latent mean against m; |z| against T beside m and Yang's result."""
    figure = Figure(figsize=(14, 4.6), layout="constrained")
    left, middle, right = figure.subplots(1, 3, width_ratios=(1, 1, 1.15))
    shown = np.random.default_rng(0).permutation(len(test.spins))[:MAX_POINTS]
    T, m = test.temperature, test.magnetization
    style = {"c": T[shown], "cmap": "cividis", "s": 5, "lw": 0}
    left.scatter(*models[2].mu[shown].T, **style)
    left.set(xlabel="posterior mean of $z_1$", ylabel="posterior mean of $z_2$",
             title="The plane of two latent variables")  # fmt: skip
    points = middle.scatter(m[shown], models[1].z[shown], **style)
    middle.set(xlabel="magnetisation m, which the VAE is not told", ylabel="posterior mean of z, its odd part",
               title="One latent variable is the magnetisation, bent")  # fmt: skip
    figure.colorbar(points, ax=[left, middle], label="T (J/k), which it is not told either")

    temperatures, K = np.array(plan.temperatures), len(plan.temperatures)
    fine = np.linspace(temperatures[0], temperatures[-1], 800)
    right.plot(fine, ising.onsager_magnetization(fine), color=EXACT, lw=1, label="|m|, L = ∞, exact (Yang)")
    for name, v, colour, marker in [(f"|m|, L = {plan.size}, simulated", m, REAL, "o"),
                                    (f"|z|, L = {plan.size}", models[1].z, DRAWN, "^")]:  # fmt: skip
        chains = np.abs(v).reshape(K, -1, plan.n_lattices[2]).mean(axis=2)
        mean, error = ising_scaling.mean_and_error(chains / chains[0].mean())
        right.errorbar(temperatures, mean, error, color=colour, marker=marker, ms=5, lw=0, elinewidth=1, label=name)
    mark_critical(right)
    right.set(xlabel="T (J/k)", ylabel=f"mean, in units of that at T = {temperatures[0]:g}", title="|z| as order parameter")
    right.legend(frameon=False, fontsize=9, loc="lower left", bbox_to_anchor=(0, 0.2))
    return figure


def entropy(models, left_open_by_m, plan):
    """−ELBO per spin with the exact entropy below it, and the nats per lattice between them, for each T.

    left_open_by_m (n,): nats of each test lattice.
    """
    figure = Figure(figsize=(11, 4.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    T, n_sites = np.array(plan.temperatures), plan.size**2
    exact = ising.kaufman_entropy(T, plan.size)
    fine = np.linspace(T[0], T[-1], 400)
    left.plot(fine, ising.kaufman_entropy(fine, plan.size) / n_sites, color=EXACT, lw=1,
              label="entropy, exact (Kaufman)")  # fmt: skip
    left_open = left_open_by_m.reshape(len(T), -1).mean(axis=1)
    left.plot(T, left_open / n_sites, color="0.55", ls="--", lw=1, label="what m leaves open")
    for (n_latent, of), colour, marker in zip(models.items(), (DRAWN, REAL), "^o"):
        loss, error = ising_scaling.mean_and_error(of.loss)
        name = f"{n_latent} latent variable{'s' * (n_latent > 1)}"
        left.plot(T, loss / n_sites, color=colour, marker=marker, ms=5, lw=0, label=f"−ELBO, {name}")
        right.errorbar(T, loss - exact, error, color=colour, marker=marker, ms=5, lw=0.6, elinewidth=1, label=name)
    left.set(xlabel="T (J/k)", ylabel="nats per spin", title=f"The bound at each temperature, {plan.size} × {plan.size}")
    right.set(xlabel="T (J/k)", ylabel="−ELBO − S(T), nats per lattice", yscale="log", title="What the VAE loses")
    for axes, place in ((left, "lower right"), (right, "upper left")):
        mark_critical(axes)
        axes.legend(frameon=False, fontsize=9, loc=place)
    return figure


def scaling(summaries, errors):
    """For z: telling temperatures apart, Binder's cumulant and the susceptibility over T for all sizes; below, the peaks over
    1/L with their extrapolation, and the slopes and heights over L that give the exponents."""
    figure = Figure(figsize=(14, 8), layout="constrained")
    (apart, binder, chi), (places, exponents, collapse) = figure.subplots(2, 3)
    every = [np.broadcast_to(np.arange(s.moments.shape[1]), s.moments.shape[:2]) for s in summaries["z"]]
    curves = ising_scaling.curves_of(summaries["z"], every)
    for i, (s, chains, (colour, marker)) in enumerate(zip(summaries["z"], every, SIZE_STYLES)):
        means, told = s.drawn(chains)
        fine = np.linspace(s.T[0], s.T[-1], 300)
        inner = fine[(fine >= s.T[1]) & (fine <= s.T[-2])]
        style = {"color": colour, "marker": marker, "ms": 4, "lw": 0}
        told = (told - 0.5) / (s.T[2] - s.T[0])
        for axes, T, y, curve, x in [(apart, s.T[1:-1], told, curves.told_apart[i], inner),
                                     (binder, s.T, ising_scaling.binder(means), curves.binder[i], fine),
                                     (chi, s.T, ising_scaling.susceptibility(means, s.size),
                                      lambda x, i=i: np.exp(curves.log_susceptibility[i](x)), fine)]:  # fmt: skip
            axes.plot(T, y, label=f"L = {s.size}", **style)
            axes.plot(x, curve(x), color=colour, lw=0.8)
        collapse.plot((s.T - ising.T_CRITICAL) * s.size, ising_scaling.binder(means), **style)
    apart.set(ylabel="(P(|z| lower T > |z| higher T) − ½)/ΔT", title="How well temperatures are told apart")
    binder.set(ylabel="U = 1 − ⟨z⁴⟩/(3⟨z²⟩²)", title="Binder's cumulant of z")
    chi.set(ylabel="χ = L² (⟨z²⟩ − ⟨|z|⟩²)", yscale="log", title="Susceptibility of z")
    for axes in (apart, binder, chi):
        mark_critical(axes)
        axes.set(xlabel="T (J/k); dotted: exact $T_c$")
    apart.legend(frameon=False)
    draw_places(places, summaries, errors)
    draw_exponents(exponents, summaries["z"], every, curves, errors)
    collapse.set(xlabel="(T − $T_c$) L, which is ν = 1", ylabel="U of z", title="Nearly the same curve for all sizes")
    return figure


def draw_places(axes, summaries, errors):
    """Where the peaks of χ are, over 1/L, for each variable, with the line to L = ∞."""
    for (name, of), colour, marker in zip(summaries.items(), ("#ee6677", "#4477aa", "0.4"), "^os"):
        every = [np.broadcast_to(np.arange(s.moments.shape[1]), s.moments.shape[:2]) for s in of]
        curves = ising_scaling.curves_of(of, every)
        x = 1 / np.array([s.size for s in of])
        T = [ising_scaling.peak(c, s.T[1], s.T[-2])[0] for c, s in zip(curves.log_susceptibility, of)]
        value, error = errors[name]["T_c, susceptibility"]
        slope, start = np.polyfit(x, T, 1)
        axes.plot(x, T, color=colour, marker=marker, lw=0, label=f"peak of χ of {name.replace('psi', 'ψ')}")
        axes.plot([0, x[0]], [start, start + slope * x[0]], color=colour, lw=0.8)
        axes.errorbar(0, value, error, color=colour, marker=marker, ms=4, mfc="white", capsize=3)
    axes.axhline(ising.T_CRITICAL, color="0.6", lw=0.8, ls=":")
    axes.set(xlabel="1/L", ylabel="T (J/k); dotted: exact $T_c$", title="The peaks, extrapolated to L = ∞")
    axes.legend(frameon=False)


def draw_exponents(axes, summaries, every, curves, errors):
    """The slope of U at T_c and the height of `told_apart` over L: both grow as L^(1/ν)."""
    L, (T_c, _) = np.array([s.size for s in summaries]), errors["z"]["T_c, Binder"]
    slopes = np.maximum([-curve.deriv()(T_c) for curve in curves.binder], ising_scaling.TINY)
    heights = [ising_scaling.peak(c, s.T[2], s.T[-3])[1] for c, s in zip(curves.told_apart, summaries)]
    heights = np.maximum(heights, ising_scaling.TINY)
    for y, quantity, name, colour, marker in [(slopes, "nu, Binder", "−dU/dT at $T_c$", REAL, "o"),
                                              (heights, "nu, told apart", "peak of telling apart", DRAWN, "^")]:  # fmt: skip
        value, error = errors["z"][quantity]
        axes.loglog(L, y, color=colour, marker=marker, lw=0, label=f"{name}: ν = {value:.3f} ± {error:.3f}")
        axes.loglog(L, np.exp(np.mean(np.log(y) - np.log(L))) * L, color=colour, lw=0.8)
    axes.set_xticks(L, L)
    axes.set_yticks(TICKS, TICKS)
    axes.minorticks_off()
    axes.set(xlabel="L", ylabel="per unit of T", title="The exponent ν (lines: ν = 1, exact)")
    axes.legend(frameon=False)


def critical(critical, plan):
    """Lattices at T_c beside what the decoder makes of their z: the images, m, the energy and G(r)."""
    figure = Figure(figsize=(14, 8), layout="constrained")
    top, bottom = figure.subfigures(2, 1, height_ratios=(1.05, 1))
    columns = top.subplots(1, 3)
    n = len(critical.real)
    shown = np.linspace(0, n - 1, 9).astype(int)
    for axes, x, title in zip(columns, (critical.real, critical.mean, critical.drawn),
                              ("lattices at $T_c$", "E[x|z] of their z", "drawn from p(x|z): independent spins")):  # fmt: skip
        plots.show_image(axes, plots.tile(x[shown], (plan.size, plan.size), 3, gap=2), 0, 1)
        axes.set_title(title)
    histogram_m, histogram_e, axes = bottom.subplots(1, 3)
    real, drawn, mean = critical.correlations
    m, e = ([compute(x) for x in (critical.real, critical.drawn)] for compute in (
        ising.magnetization_per_spin, lambda x: ising.energy_per_spin(x, plan.size)))  # fmt: skip
    for target, values, bins in [(histogram_m, m, np.linspace(-1, 1, 41)), (histogram_e, e, np.linspace(-2, 0.2, 56))]:
        for v, colour, name, style in zip(values, (REAL, DRAWN), ("simulated", "drawn"), ("stepfilled", "step")):
            target.hist(v, bins, color=colour, density=True, histtype=style, alpha=0.8, lw=1.6, label=name)
    exact = ising.kaufman_energy(ising.T_CRITICAL, plan.size)
    histogram_e.axvline(exact, color=EXACT, lw=1, ls="--", label="mean, exact (Kaufman)")
    histogram_m.set(xlabel="magnetisation", ylabel="density", title="The order parameter is nearly right")
    histogram_e.set(xlabel="energy per spin (J)", ylabel="density", title="The energy is not")
    r = np.arange(plan.size // 2 + 1)
    axes.plot(r[1:], real[1:], color=REAL, marker="o", ms=4, lw=0.8, label="simulated")
    axes.plot(r[1:], drawn[1:], color=DRAWN, marker="^", ms=4, lw=0, label="drawn")
    axes.plot(r[1:], mean[1:], color=EXACT, lw=0.8, ls="--", label="$E_z[\\mu_i\\,\\mu_{i+r}]$: independent given z")
    axes.set(xlabel="distance r", ylabel="$G(r) = \\langle s_i s_{i+r}\\rangle$", ylim=(0, 1),
             title="Nor are the correlations at short distances")  # fmt: skip
    for target in (histogram_m, histogram_e, axes):
        target.legend(frameon=False)
    return figure
