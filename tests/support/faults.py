"""What can happen to a run, tried out: who loses something, and who ends at other bits than without the fault?

Every fault is done to real runs of a small model, most of them in a process of its own, which are then resumed to their end
and compared with a run that nothing happened to: all parameters, the history, metrics.jsonl.

    python tests/support/faults.py     tries every fault as often as tests/README.md says, and prints its table
"""

import contextlib
import errno
import functools
import io
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import numpy as np

import npvae
from npvae.app import cli, commands
from npvae.app.run_folder import exclusive
from npvae.core import files
from npvae.training import checkpoint
from npvae.training.schedules import Linear

EPOCHS, BATCH_SIZE = 4, 16


def data():
    rng = np.random.default_rng(0)
    p = np.where(rng.random((100, 1)) < 0.5, 0.9, 0.1)
    return (rng.random((100, 12)) < p).astype(np.float32)


def train(folder=None, epochs=EPOCHS, resume=False, on_step=None, workers=1, **options):
    """Train the small model, saving to `folder` after every epoch; the model and its state. Seven steps are an epoch."""
    model, state = npvae.VAE(12, 2, (6,), "tanh", backend="numpy", seed=3), None
    if resume:
        model, state = checkpoint.load_progress(folder)
    states = [state]

    def save(state):
        states.append(state)
        if folder is not None and checkpoint.is_sound(state):  # as `npvae train` does
            checkpoint.save_progress(folder, model, state)

    def step(state):
        states.append(state)
        return on_step is not None and on_step(model, state)

    x = data()
    npvae.fit(model, x, x[:30], epochs=epochs, batch_size=BATCH_SIZE, optimizer=npvae.Adam(Linear(20, 1e-2, 1e-3)),
              beta=Linear(20), seed=5, workers=workers, progress=False, on_epoch=save, on_step=step, resume=state,
              **options)  # fmt: skip
    return model, states[-1]


def result(folder, model, state):
    """Everything that has to be the same: parameters, optimiser, history and the metrics on disk (but for the clock)."""
    lines = [json.loads(line) for line in (Path(folder) / "metrics.jsonl").read_text().splitlines()]
    rows = [{**row, "seconds": 0} for row in state.history.rows]
    assert [{**line, "seconds": 0} for line in lines] == rows
    return [model.theta.tobytes(), *(np.asarray(value).tobytes() for value in state.optimizer.values()), json.dumps(rows)]


@functools.cache
def undisturbed(workers=1, epochs=EPOCHS):
    """The result of a run that nothing happens to."""
    with tempfile.TemporaryDirectory() as folder:
        return result(folder, *train(folder, workers=workers, epochs=epochs))


def goes_on(folder, workers=1, epochs=EPOCHS):
    """Whether the run in `folder`, resumed, ends at the bits of one that was left in peace."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", npvae.checks.NpvaeWarning)
        return result(folder, *train(folder, resume=True, workers=workers, epochs=epochs)) == undisturbed(workers, epochs)


def stopped_at(folder, n_steps, workers=1):
    """A run that was stopped after so many steps, and saved there."""
    model, state = train(folder, on_step=lambda _, state: state.step == n_steps, workers=workers)
    checkpoint.save_progress(folder, model, state)


class Outcome(NamedTuple):
    """Of one fault: how often tried, how many runs could not be loaded any more, how many ended at the same bits."""

    tried: int
    lost: int
    same_bits: int


def outcome(trials):
    """The Outcome of (loadable, same bits) pairs."""
    trials = list(trials)
    return Outcome(len(trials), sum(not loadable for loadable, _ in trials), sum(same for _, same in trials))


def trial(folder, **options):
    """(loadable, same bits) of a run folder after a fault."""
    try:
        return True, goes_on(folder, **options)
    except (ValueError, OSError):
        return False, False


# ----------------------------------------------------------------------------------------------------------- the faults

SAVER = """
import sys; sys.path.insert(0, {here!r})
import faults
from npvae.training import checkpoint
folder = {folder!r}
def keep_saving(model, state):
    checkpoint.save_progress(folder, model, state)
    print(state.step, flush=True)
faults.train(folder, epochs=10**6, on_step=keep_saving)
"""


def child(code, **names):
    names = {"here": str(Path(__file__).parent), **names}
    return subprocess.Popen([sys.executable, "-c", code.format(**names)], stdout=subprocess.PIPE, text=True)


def killed_while_saving(n):
    """SIGKILL at a random moment of a process that does little else than save."""
    rng = np.random.default_rng(0)
    for _ in range(n):
        with tempfile.TemporaryDirectory() as folder:
            process = child(SAVER, folder=folder)
            process.stdout.readline()  # the first save is done
            time.sleep(rng.uniform(0, 0.2))
            process.send_signal(signal.SIGKILL)
            process.communicate()
            epochs = 2 + checkpoint.load_progress(folder)[1].epoch
            yield trial(folder, epochs=epochs)


def stopped_at_any_step(n):
    """Stopped by on_step within an epoch, at its end, at the last step of all; with one worker and two."""
    for k in range(n):
        with tempfile.TemporaryDirectory() as folder:
            steps, workers = 1 + k % (7 * EPOCHS), 1 + k // (7 * EPOCHS) % 2
            stopped_at(folder, steps, workers)
            yield trial(folder, workers=workers)


COMMAND = ["train", "--data", "x.npy", "--latent", "2", "--hidden", "6", "--batch-size", "4", "--epochs", "120", "--out", "run"]


def command(*argv):
    """The command in this process, without the pictures, which come when all is saved and take longer than the training."""
    with mock.patch.object(commands, "draw_pictures", return_value={}), contextlib.redirect_stdout(io.StringIO()):
        status = cli.main([*argv])
    assert status == 0, argv


def parameters_of(folder):
    return npvae.VAE.load(Path(folder) / "checkpoint.npz").theta


@functools.cache
def uninterrupted(workers):
    """The parameters that the command ends with where no signal comes."""
    with tempfile.TemporaryDirectory() as home, contextlib.chdir(home):
        np.save("x.npy", data())
        command(*COMMAND, "--workers", workers)
        return parameters_of("run")


def interrupted(n, number):
    """The command, stopped by a signal at a random moment of its training: exit status 128 + number, and resumed in another
    process, this one; by turns with one worker and two."""
    rng = np.random.default_rng(number)
    assert not np.array_equal(uninterrupted("1"), uninterrupted("2"))
    for k in range(n):
        with tempfile.TemporaryDirectory() as home, contextlib.chdir(home):
            np.save("x.npy", data())
            workers, quiet = str(1 + k % 2), {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
            process = subprocess.Popen([sys.executable, "-m", "npvae", *COMMAND, "--workers", workers], **quiet)
            while not Path("run/checkpoint.npz").exists() and process.poll() is None:
                time.sleep(0.01)
            time.sleep(rng.uniform(0, 0.2))
            process.send_signal(number)
            started = time.monotonic()
            status = process.wait()
            stopped = status == 128 + number and time.monotonic() < started + 10  # the process' end included
            command("train", "--resume", "--out", "run")
            yield stopped, np.array_equal(parameters_of("run"), uninterrupted(workers))


@contextlib.contextmanager
def disk_full_after(n_bytes):
    """Within the block the disk takes so many bytes more, whoever writes them."""
    left = n_bytes

    class Full:
        def __init__(self, file):
            self.file = file

        def write(self, content):
            nonlocal left
            left -= len(content)
            if left < 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return self.file.write(content)

        def __getattr__(self, name):
            return getattr(self.file, name)

    replace = files.replace_file

    def on_full_disk(path, write_to, keep=None):
        replace(path, lambda file: write_to(Full(file)), keep)

    with mock.patch.object(files, "replace_file", on_full_disk):
        yield


def disk_full(n):
    """No space left at any byte of a save; then there is space again."""
    rng = np.random.default_rng(2)
    for _ in range(n):
        with tempfile.TemporaryDirectory() as folder:
            stopped_at(folder, 9)
            before = {path.name for path in Path(folder).iterdir()}
            with disk_full_after(int(rng.integers(0, 12_000))):
                try:
                    train(folder, resume=True)
                    raised = False
                except OSError as error:
                    raised = error.errno == errno.ENOSPC and "intact" in str(error)
            litter = {path.name for path in Path(folder).iterdir()} - before - {checkpoint.BEST, checkpoint.PREVIOUS}
            loadable, same = trial(folder)
            yield loadable and raised and not litter, same


def read_only(n):
    """A folder that cannot be written any more (the system's refusal, injected: root may write anywhere)."""
    for _ in range(n):
        with tempfile.TemporaryDirectory() as folder:
            stopped_at(folder, 9)
            refusal = PermissionError(errno.EROFS, os.strerror(errno.EROFS))
            try:
                with mock.patch.object(Path, "open", side_effect=refusal), exclusive(folder):
                    refused = False
            except OSError:
                refused = True
            loadable, same = trial(folder)
            yield loadable and refused, same


def damaged(n, spoil):
    """The newest checkpoint is damaged; the one before is used, and a warning names the newest."""
    rng = np.random.default_rng(4)
    for _ in range(n):
        with tempfile.TemporaryDirectory() as folder:
            stopped_at(folder, int(rng.integers(8, 28)))
            path = Path(folder) / checkpoint.NEWEST
            path.write_bytes(spoil(path.read_bytes(), rng))
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                try:
                    checkpoint.load_progress(folder)
                except (ValueError, OSError):
                    yield False, False
                    continue
            named = [str(path) in str(warning.message) for warning in caught]
            loadable, same = trial(folder)
            yield loadable and all(named), same


def truncated(content, rng):
    return content[: rng.integers(1, len(content))]


def bit_flipped(content, rng):
    flipped = bytearray(content)
    flipped[rng.integers(len(content))] ^= 1 << rng.integers(8)
    return bytes(flipped)


def empty(content, rng):
    return b""


def foreign(content, rng):
    return [b"PK\x03\x04", b"\x93NUMPY\x01\x00", b"\x1f\x8b\x08", b"hello, world\n"][rng.integers(4)] + rng.bytes(500)


HOLDER = """
from npvae.app.run_folder import exclusive
with exclusive({folder!r}):
    print("holding", flush=True)
    input()
"""


def two_processes(n):
    """A second process trains in the same folder: it is refused, the first one goes on; then the folder is free again."""
    for _ in range(n):
        with tempfile.TemporaryDirectory() as folder:
            stopped_at(folder, 9)
            code = HOLDER.format(folder=folder)
            holder = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            holder.stdout.readline()
            try:
                with exclusive(folder):
                    refused = False
            except BlockingIOError as error:
                refused = "in use" in str(error)
            holder.kill()
            holder.communicate()
            with exclusive(folder):
                loadable, same = trial(folder)
            yield loadable and refused, same


def torn_metrics(n):
    """The last line of metrics.jsonl is torn in the middle."""
    rng = np.random.default_rng(6)
    for _ in range(n):
        with tempfile.TemporaryDirectory() as folder:
            stopped_at(folder, int(rng.integers(14, 28)))
            path = Path(folder) / checkpoint.METRICS
            content = path.read_bytes()
            path.write_bytes(content[: -int(rng.integers(1, 60))])
            yield trial(folder)


def diverged(n):
    """Loss or gradient not finite three times in a row: training ends with an error, the last checkpoint is good."""
    for k in range(n):
        with tempfile.TemporaryDirectory() as folder:
            stopped_at(folder, 8 + k)

            def poison(model, state):
                model.parameters["likelihood.W"][:] = 3e38  # finite, but no product with it is
                return False

            try:
                train(folder, resume=True, on_step=poison)
                ended = False
            except FloatingPointError as error:
                ended = "gradient of encoder.0.W" in str(error)
            intact = np.abs(checkpoint.load_progress(folder)[0].theta).max() < 100
            loadable, same = trial(folder)
            yield loadable and ended and intact, same


class Fault(NamedTuple):
    name: str
    times: int  # for tests/README.md
    trials: Callable


FAULTS = [
    Fault("stopped after any step, one worker and two", 2 * 7 * EPOCHS, stopped_at_any_step),
    Fault("SIGKILL at a random moment of saving", 50, killed_while_saving),
    Fault("Ctrl-C (SIGINT) during `npvae train`", 10, lambda n: interrupted(n, signal.SIGINT)),
    Fault("SIGTERM during `npvae train`", 10, lambda n: interrupted(n, signal.SIGTERM)),
    Fault("disk full at any byte of a save", 50, disk_full),
    Fault("run folder read-only", 5, read_only),
    Fault("checkpoint truncated", 50, lambda n: damaged(n, truncated)),
    Fault("checkpoint with one bit flipped", 200, lambda n: damaged(n, bit_flipped)),
    Fault("checkpoint empty", 5, lambda n: damaged(n, empty)),
    Fault("checkpoint of another program", 50, lambda n: damaged(n, foreign)),
    Fault("a second process on the run folder", 5, two_processes),
    Fault("metrics.jsonl with a torn last line", 20, torn_metrics),
    Fault("loss or gradient not finite, three times in a row", 10, diverged),
]


def table():
    """The lines of the table in tests/README.md."""
    lines = ["| fault | times tried | runs lost | resumed to identical bits |", "|---|---:|---:|---:|"]
    for fault in FAULTS:
        tried, lost, same = outcome(fault.trials(fault.times))
        lines.append(f"| {fault.name} | {tried} | {lost} | {same} |")
    return lines


if __name__ == "__main__":
    print("\n".join(table()))
