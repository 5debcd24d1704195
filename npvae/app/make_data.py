"""What `npvae data` does: simulate data, write them to a file that `npvae train` reads, and compare them with exact results."""

import argparse
import math
import time
from pathlib import Path

import numpy as np

from npvae.app.parser import argument_type
from npvae.core import options

TEMPERATURES = "0.25:4.0:0.25"
MAX_TEMPERATURES = 10_000
ISING_DESCRIPTION = """\
Draw lattices of the Ising model, zeros and ones (1 = spin up), on a periodic square
of --size × --size spins with Wolff's cluster algorithm, and write them to an .npz file:

  x              uint8 (n, size²), row by row: what a model is trained on
  temperature    (n,), in J / k_B; the same again as labels, which pictures show
  magnetization  (n,), mean spin from -1 to 1
  energy         (n,), per spin, from -2 to 2 J
  chain          (n,), which chain of its temperature a lattice is from

At each temperature a pilot run measures the autocorrelation time tau of energy and
|magnetization|. Stored lattices are two tau apart, about independent. Chains are
independent of each other: take rows to train, validate and test on from different
ones. The same --seed, --size and --temperatures give the same lattices, bit for bit,
whatever --workers; more --samples or --chains add to them.

What is printed: tau, and the clusters from one stored lattice to the next; the mean
energy <e>, the exact one of the finite lattice (Kaufman), and how many standard errors
lie between; the mean |magnetization|, and that of the infinite lattice (Onsager and
Yang), which finite ones exceed near the transition at T = 2.269."""
ISING_EXAMPLES = """\
examples:
  npvae data ising --size 40 --temperatures 0.25:4.0:0.25 --samples 10000 --out ising.npz
  npvae train --data ising.npz --latent 2
  npvae data ising --size 16 --temperatures 2.0 2.2:2.35:0.01 2.5 --chains 4 --samples 500"""


def add_parser(subparsers):
    """Add `npvae data` and what it can make to the command's parsers."""
    parser = subparsers.add_parser(
        "data",
        help="simulate data to train on",
        description="Simulate data to train on. Start with: npvae data ising --help",
    )
    kinds = parser.add_subparsers(title="data", required=True, metavar="KIND")
    ising = kinds.add_parser(
        "ising",
        help="lattices of the Ising model at given temperatures",
        description=ISING_DESCRIPTION,
        epilog=ISING_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    ising.add_argument("--size", type=argument_type(options.integer(2)), default=40, metavar="L",
                       help="spins along a side (default: 40)")  # fmt: skip
    ising.add_argument("--temperatures", type=argument_type(temperatures), nargs="+", metavar="T",
                       default=[temperatures(TEMPERATURES)], help="numbers, and ranges start:stop:step with both ends, in "
                       f"J / k_B (default: {TEMPERATURES})")  # fmt: skip
    ising.add_argument("--samples", type=argument_type(options.integer(1)), default=1000, metavar="N",
                       help="lattices from each chain at each temperature (default: 1000)")  # fmt: skip
    ising.add_argument("--chains", type=argument_type(options.integer(1)), default=1, metavar="C",
                       help="independent chains at each temperature (default: 1)")  # fmt: skip
    ising.add_argument("--seed", type=argument_type(options.integer(0)), default=0, metavar="S",
                       help="of the random numbers (default: 0)")  # fmt: skip
    ising.add_argument("--workers", type=argument_type(options.integer(1)), metavar="N",
                       help="threads that simulate side by side (default: the cores available)")  # fmt: skip
    ising.add_argument("--out", metavar="NPZ", type=options.path, help="the new file to write (default: the first free of "
                       "ising.npz, ising-2.npz, ...)")  # fmt: skip
    ising.set_defaults(run=make_ising)


def temperatures(text):
    """The list of floats that "2.5" or "0.25:4.0:0.25", start:stop:step with both ends, stands for; ValueError for others."""
    parts = text.split(":")
    if len(parts) not in (1, 3):
        raise ValueError(f"must be a number or a range start:stop:step; got {text!r}")
    try:
        start, *rest = [options.positive(part) for part in parts]
    except ValueError:
        raise ValueError(f"must be made of numbers above 0, such as 2.5 or 0.25:4.0:0.25; got {text!r}") from None
    if not rest:
        return [start]
    stop, step = rest
    steps = (stop - start) / step
    if not 0 <= steps < MAX_TEMPERATURES:
        raise ValueError(f"must go up from start to stop in fewer than {MAX_TEMPERATURES} steps; got {text!r}")
    # The end counts where rounding has put it a little outside, and 1.1 + 2 · 0.1 is to be 1.3.
    return [float(f"{start + k * step:.12g}") for k in range(math.floor(steps + 1e-9) + 1)]


def make_ising(args):
    """`npvae data ising`."""
    from npvae.app import run_folder
    from npvae.data import ising

    values = [value for part in args.temperatures for value in part]
    run_folder.check_free(args.out, ".npz")
    began = time.perf_counter()
    sample = ising.simulate(values, args.samples, args.size, args.seed, args.chains, args.workers, progress=True)
    seconds = time.perf_counter() - began
    arrays = {"x": sample.spins, "labels": sample.temperature, "temperature": sample.temperature, "chain": sample.chain,
              "magnetization": sample.magnetization, "energy": sample.energy}  # fmt: skip
    path = run_folder.write_new(args.out, Path("ising.npz"), lambda file: np.savez(file, **arrays))
    print("\n".join(comparison(sample, args.size, values, args.chains)))
    print(f"\n{path}: {len(sample.spins):,} lattices of {args.size} × {args.size} spins, {path.stat().st_size / 1e6:.1f} MB, "
          f"simulated in {seconds:.1f} s\nnext: npvae train --data {path}")  # fmt: skip
    return 0


def comparison(sample, size, values, n_chains):
    """The lines of a table that sets an IsingSample against the exact results, a row for each of the temperatures `values`."""
    from npvae.data.ising_exact import T_CRITICAL, kaufman_energy, onsager_magnetization

    lines = [
        "tau: autocorrelation time in clusters; exact: the energy of this size; infinite: |m| of the infinite lattice\n",
        f"{'T':>8} {'clusters':>8} {'tau of e':>15} {'tau of |m|':>15} {'<e>':>10} {'exact':>9} errors   <|m|> infinite",
    ]
    energies = sample.energy.reshape(len(values), n_chains, -1)
    magnetizations = abs(sample.magnetization).reshape(len(values), -1)
    for i, (n_clusters, *taus) in enumerate(zip(*sample.thinning)):
        T, m, (e, error) = values[i], magnetizations[i].mean(), mean_and_error(energies[i])
        exact = kaufman_energy(T, size)
        errors = f"{(e - exact) / error:+.2f}" if error > 0 else "-"
        infinite = f"{onsager_magnetization(T):8.4f}" if T < T_CRITICAL else f"{'-':>8}"
        lines.append(f"{T:8.6g} {n_clusters:8} {taus[0]:7.1f} ± {taus[1]:5.1f} {taus[2]:7.1f} ± {taus[3]:5.1f} {e:10.5f} "
                     f"{exact:9.5f} {errors:>6} {m:7.4f} {infinite}")  # fmt: skip
    return lines


def mean_and_error(chains):
    """The mean of stationary series (C, n) of one kind, and its standard error, which counts their autocorrelation."""
    from npvae.data.autocorrelation import autocorrelation_time

    n = chains.shape[1]
    tau = np.mean([autocorrelation_time(chain) if n > 1 else 0.5 for chain in chains])
    return chains.mean(), math.sqrt(2 * max(tau, 0.5) * chains.var() / chains.size)
