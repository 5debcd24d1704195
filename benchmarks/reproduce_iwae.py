"""Table 1 of Burda, Grosse & Salakhutdinov 2016, one stochastic layer on MNIST: the published protocol and figures.

    python benchmarks/reproduce_iwae.py --data-dir DIR                                  # VAE k = 1, all eight stages
    python benchmarks/reproduce_iwae.py --data-dir DIR --objective iwae --k 5 --stages 5
    python benchmarks/reproduce_iwae.py --markdown                                      # the table of what was run

784-200-200-50-200-200-784, tanh, Glorot-uniform weights, output bias at the logit of the mean training image clipped to
[0.001, 0.999]; Adam with epsilon 1e-4, batches of 20, a fresh binarisation of every minibatch; stages i = 0 to 7 of 3^i epochs
at the rate 1e-3 · 10^(−i/7). The test images are binarised once. A run can be stopped at any time: the same command goes on at
the last saved epoch, to the same result. Figures are added to benchmarks/results/iwae.json after every stage.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np
from common import RESULTS, machine, print_machine, save
from matplotlib.figure import Figure
from tqdm import tqdm

import npvae
from npvae import evaluate
from npvae.core.progress import progress_bar
from npvae.data import mnist
from npvae.schedules import BurdaStages
from npvae.training import checkpoint

BATCH_SIZE, HIDDEN, N_LATENT = 20, (200, 200), 50
STAGE_SAMPLES = 100  # importance samples per test image after a stage that is not the last one asked for
SECONDS_BETWEEN_SAVES = 60
# Test NLL in nats and active units of table 1, one stochastic layer. VAE with k samples averages the ELBO over them.
PAPER = {
    ("vae", 1): (86.76, 19),
    ("vae", 5): (86.47, 20),
    ("vae", 50): (86.35, 20),
    ("iwae", 5): (85.54, 22),
    ("iwae", 50): (84.78, 25),
}
FILE = RESULTS / "iwae.json"


def initial_model(images, seed):
    """The model of the protocol before its first step; images (n, 784) grey levels 0–255."""
    model = npvae.VAE(784, N_LATENT, HIDDEN, "tanh", seed=seed)
    mean = np.clip(images.mean(axis=0) / 255, 0.001, 0.999)  # (784,)
    model.parameters["likelihood.b"] = np.log(mean / (1 - mean))
    return model


def measure(model, x, n_samples, seed):
    """Figures of the test images x (n, 784) of zeros and ones."""
    started = time.perf_counter()
    nll = -evaluate.log_likelihood(model, x, n_samples, seed, progress=True)
    elbo = evaluate.elbo(model, x, seed)
    return {
        "nll": float(nll.mean()),
        "nll_standard_error": float(nll.std(ddof=1) / np.sqrt(len(nll))),  # from the choice of test images
        "samples": n_samples,
        "minus_elbo": -elbo.elbo,
        "reconstruction": elbo.nll,
        "kl": elbo.kl,
        "active_units": int(evaluate.active_units(model, x).sum()),
        "seconds_measuring": time.perf_counter() - started,
    }


def train(args, dataset, folder, on_stage):
    """Train stage by stage from where the folder's checkpoint stands; on_stage(stage, model, state) after each."""
    steps_per_epoch = len(dataset.x_train) // BATCH_SIZE
    stages = BurdaStages(steps_per_epoch)
    if (folder / "checkpoint.npz").exists():
        model, state = checkpoint.load_progress(folder)
        print(f"going on after epoch {state.epoch}, {state.seconds:.0f} s of training")
    else:
        folder.mkdir(parents=True, exist_ok=True)
        model, state = initial_model(dataset.x_train, args.seed), None
    saved = time.perf_counter()

    def on_epoch(state):
        nonlocal saved
        bar.set_postfix_str(f"stage {stages.stage(state.step - 1)}, train loss {state.history.rows[-1]['train_loss']:.2f} nats")
        bar.update()
        if state.epoch == last or time.perf_counter() > saved + SECONDS_BETWEEN_SAVES:
            checkpoint.save_progress(folder, model, state)
            saved = time.perf_counter()

    done = 0 if state is None else state.epoch
    with progress_bar(True, total=stages.epochs(args.stages), initial=done, unit=" epochs", unit_scale=False) as bar:
        for stage in range(args.stages):
            last = stages.epochs(stage + 1)
            if last < done:
                continue
            npvae.fit(
                model,
                dataset.x_train,
                epochs=last,
                batch_size=BATCH_SIZE,
                optimizer=npvae.Adam(stages, epsilon=1e-4),
                objective="elbo" if args.objective == "vae" else "iwae",
                n_samples=args.k,
                seed=args.seed,
                progress=False,
                on_epoch=on_epoch,
                resume=state,
            )
            _, state = checkpoint.load_progress(folder)
            on_stage(stage, model, state)


def read_results():
    return json.loads(FILE.read_text()) if FILE.exists() else {"runs": {}}


def record(args, stage, model, state, x_test):
    """Measure the test images after a stage, unless that was done, and write the figures to the results file."""
    results = read_results()
    run = results["runs"].setdefault(f"{args.objective} k={args.k}", {"objective": args.objective, "k": args.k})
    n_samples = args.samples if stage == args.stages - 1 else min(STAGE_SAMPLES, args.samples)
    rows = {row["stage"]: row for row in run.get("stages", [])}
    if stage not in rows or rows[stage]["samples"] < n_samples:
        loss = state.history["train_loss"][-1]
        rate = BurdaStages(1)(BurdaStages.epochs(stage))
        rows[stage] = {"stage": stage, "epochs": state.epoch, "learning_rate": rate, "seconds": state.seconds,
                       "train_loss": float(loss), **measure(model, x_test, n_samples, args.seed)}  # fmt: skip
        run |= {"seed": args.seed, "machine": machine(), "stages": [rows[i] for i in sorted(rows)]}
        save("iwae", results, draw(results))
    tqdm.write(stage_line(rows[stage]))


def stage_line(row):
    return (
        f"stage {row['stage']}  {row['epochs']:4} epochs  {row['seconds']:6.0f} s  train loss {row['train_loss']:.2f}  "
        f"test: −ELBO {row['minus_elbo']:.2f}, NLL {row['nll']:.2f} ± {row['nll_standard_error']:.2f} nats "
        f"({row['samples']} samples), {row['active_units']} active"
    )


def draw(results):
    """Test NLL of every run against epochs, with the paper's figures as lines."""
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.subplots()
    for i, (name, run) in enumerate(results["runs"].items()):
        rows = run["stages"]
        axes.plot([r["epochs"] for r in rows], [r["nll"] for r in rows], f"C{i}o-", label=f"npvae, {label(name)}")
        paper, _ = PAPER[run["objective"], run["k"]]
        axes.axhline(paper, color=f"C{i}", linestyle=":", label=f"Burda et al., {label(name)}: {paper} after 3280 epochs")
    axes.set(xscale="log", xlabel="epochs", ylabel="test negative log-likelihood, nats",
             title="MNIST, 784-200-200-50, stages of Burda et al. 2016")  # fmt: skip
    axes.legend()
    return figure


def label(name):
    objective, k = name.split(" k=")
    return f"{objective.upper()} k = {k}"


def markdown(results):
    """The table paper / npvae / difference of the README."""
    lines = [
        "| objective | epochs | test NLL, paper | npvae | difference | active units, paper | npvae | training time |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for (objective, k), (nll, active) in PAPER.items():
        run = results["runs"].get(f"{objective} k={k}")
        start = f"| {objective.upper()} k = {k} "
        if run is None:
            lines.append(f"{start}| not run | {nll:.2f} | | | {active} | | |")
            continue
        row = run["stages"][-1]
        full = row["epochs"] == BurdaStages.epochs(BurdaStages.N_STAGES)
        difference = f"{row['nll'] - nll:+.2f}" if full else "stopped early"
        lines.append(f"{start}| {row['epochs']:,} of 3,280 | {nll:.2f} | {row['nll']:.2f} | {difference} | {active} | "
                     f"{row['active_units']} | {row['seconds'] / 3600:.2f} h |")  # fmt: skip
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], epilog="See the top of the script for the protocol.")
    parser.add_argument("--objective", choices=["vae", "iwae"], default="vae", help="average of k ELBOs, or the IWAE bound")
    parser.add_argument("--k", type=int, default=1, help="samples per image (default: 1)")
    parser.add_argument("--stages", type=int, default=8, choices=range(1, 9), metavar="N",
                        help="stop after N of the eight stages; 6 of them are 364 epochs (default: 8)")  # fmt: skip
    parser.add_argument("--samples", type=int, default=5000, help="importance samples for the final NLL (default: 5000)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data-dir", help="folder of the MNIST files (default: downloaded once)")
    parser.add_argument("--runs", default="runs/iwae", help="where checkpoints are kept (default: runs/iwae)")
    parser.add_argument("--markdown", action="store_true", help="print the table of the results file and stop")
    args = parser.parse_args()
    if args.markdown:
        print(markdown(read_results()))
        return 0
    if (args.objective, args.k) not in PAPER:
        parser.error("the paper has VAE with k = 1, 5, 50 and IWAE with k = 5, 50 (IWAE with k = 1 is the VAE)")
    print_machine(machine())
    dataset = mnist.load(args.data_dir)
    x_test = npvae.model_input(initial_model(dataset.x_train, args.seed), dataset.x_test, args.seed)
    folder = Path(args.runs) / f"{args.objective}-k{args.k}-seed{args.seed}"
    train(args, dataset, folder, lambda *stage: record(args, *stage, x_test))
    print("\n" + markdown(read_results()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
