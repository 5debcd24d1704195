"""The tables and the figure of `scaling_mpi.py`."""

from matplotlib.figure import Figure

COLOURS = ("#cc3311", "#ee7733", "#228833", "#4477aa")
RULES_IN_WORDS = {"constant": "as it is", "square root": "√(batch/128)", "linear": "batch/128"}


def markdown(found):
    """The tables of the parts that were measured."""
    return "\n\n".join("\n".join(TABLES[part](found[part])) for part in TABLES if part in found)


def weak_table(result):
    lines = ["| rows each | one process | two threads | two processes | efficiency of threads | of processes | their ratio |",
             "|---:|---:|---:|---:|---:|---:|---:|"]  # fmt: skip
    for b in result["milliseconds"]["one process"]:
        one, threads, processes = (points[b]["median"] for points in result["milliseconds"].values())
        lines.append(f"| {b} | {one:.2f} ms | {threads:.2f} ms | {processes:.2f} ms | {one / threads:.0%} | "
                     f"{one / processes:.0%} | {threads / processes:.0%} |")  # fmt: skip
    return lines


def overlap_table(seconds):
    cells = [f"{1e3 * value:.2f} ms" for value in seconds.values()]
    return ["| " + " | ".join(seconds) + " |", "|" + "---:|" * len(cells), "| " + " | ".join(cells) + " |"]


def model_table(result):
    rows = list(result["efficiency"]["1"])
    lines = ["| machines | " + " | ".join(f"b = {b}" for b in rows) + " | b for 90 % |", "|---:|" + "---:|" * (len(rows) + 1)]
    for N, values in result["efficiency"].items():
        needed = result["rows_for_90_percent"][N]
        cells = [f"{values[b]:.0%}" for b in rows]
        lines.append(f"| {N} | " + " | ".join([*cells, "none" if needed is None else f"{needed:,}"]) + " |")
    return lines


def memory_table(points):
    lines = ["| rows | file | peak memory | of it for the rows | bytes a row |", "|---:|---:|---:|---:|---:|"]
    for point in points:
        more = point["peak_mb"] - point["start_mb"]
        lines.append(f"| {point['rows']:,} | {point['rows'] * 784 / 1e6:,.0f} MB | {point['peak_mb']:.0f} MB | {more:.0f} MB | "
                     f"{more * 2**20 / point['rows']:.1f} |")  # fmt: skip
    return lines


def batches_table(result):
    batches = sorted({row["batch"] for row in result["rows"]})
    losses = {(row["batch"], row["rule"]): row["loss"][-1] for row in result["rows"]}
    lines = ["| learning rate 1e-3 times | " + " | ".join(map(str, batches)) + " |", "|---|" + "---:|" * len(batches)]
    for rule, words in RULES_IN_WORDS.items():
        cells = [losses.get((b, rule), losses[batches[0], "constant"]) for b in batches]
        cells = ["diverged" if loss is None or loss != loss else f"{loss:.2f}" for loss in cells]
        lines.append("| " + " | ".join([words, *cells]) + " |")
    return lines


TABLES = {"weak": weak_table, "overlap": overlap_table, "model": model_table, "memory": memory_table, "batches": batches_table}


def draw(found):
    """The Figure of the parts that were measured."""
    figure = Figure(figsize=(11, 8), layout="constrained")
    for axes, (part, panel) in zip(figure.subplots(2, 2).flat, PANELS.items()):
        axes.grid(alpha=0.3)
        if part in found:
            panel(axes, found[part])
    return figure


def ticks(axes, values):
    axes.set_xscale("log")
    axes.set_xticks(values, map(str, values))
    axes.minorticks_off()


def draw_weak(axes, result):
    times = {kind: [point["median"] for point in points.values()] for kind, points in result["milliseconds"].items()}
    rows, one = [int(b) for b in result["milliseconds"]["one process"]], times.pop("one process")
    for (kind, values), colour in zip(times.items(), COLOURS[2:]):
        axes.plot(rows, [100 * a / b for a, b in zip(one, values)], "o-", label=kind, color=colour)
    ticks(axes, rows)
    axes.set(xlabel="rows of each", ylabel="weak scaling efficiency, %", ylim=(0, 105), title="one machine of two cores")
    axes.legend()


def draw_model(axes, result):
    machines = [int(N) for N in result["efficiency"]]
    for b, colour in zip(("128", "512", "2048", "8192"), COLOURS):
        values = [100 * of_machine[b] for of_machine in result["efficiency"].values()]
        axes.plot(machines, values, "o-", color=colour, label=f"{b} rows of each")
    ticks(axes, machines)
    axes.set(xlabel="machines", ylabel="weak scaling efficiency, %", ylim=(0, 105),
             title="the cost model, with a network of 2 µs and 10 GB/s")  # fmt: skip
    axes.legend()


def draw_memory(axes, points):
    rows, above = [point["rows"] for point in points], [point["peak_mb"] - point["start_mb"] for point in points]
    axes.loglog(rows, [784 * n / 2**20 for n in rows], "o--", color="#888888", label="the file")
    axes.loglog(rows, [point["peak_mb"] for point in points], "o-", color=COLOURS[2], label="peak of the process")
    axes.loglog(rows, above, "o-", color=COLOURS[3], label="of it for the rows")
    axes.set(xlabel="rows of 784 zeros and ones", ylabel="MB", title="training on a mapped file")
    axes.legend()


def draw_batches(axes, result):
    batches = sorted({row["batch"] for row in result["rows"]})
    for (rule, words), colour in zip(RULES_IN_WORDS.items(), (COLOURS[0], *COLOURS[2:])):
        rows = [row for row in result["rows"] if row["rule"] == rule or row["batch"] == batches[0]]
        losses = [row["loss"][-1] or float("nan") for row in rows]
        axes.plot([row["batch"] for row in rows], losses, "o-", color=colour, label=words)
    ticks(axes, batches)
    shown = [row["loss"][-1] for row in result["rows"] if row["rule"] == "constant"]  # others may diverge
    axes.set(xlabel="batch", ylabel="−ELBO of the test images, nats", ylim=(0.95 * min(shown), 1.05 * max(shown)),
             title=f"MNIST after {result['epochs']} epochs, the learning rate times")  # fmt: skip
    axes.legend()


PANELS = {"weak": draw_weak, "model": draw_model, "memory": draw_memory, "batches": draw_batches}
