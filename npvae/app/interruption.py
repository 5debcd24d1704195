"""Ctrl-C and SIGTERM during training: the step is finished and the run saved."""

import contextlib
import os
import signal
import sys
import threading


class Interruption:
    """Within the block the first Ctrl-C (SIGINT) or SIGTERM is noted in `signal`, and a second one ends the program at once.
    tells: whether that is said."""

    def __init__(self, tells=True):
        self.signal, self.handlers, self.tells = 0, {}, tells

    def __enter__(self):
        if threading.current_thread() is threading.main_thread():  # others cannot set handlers
            self.handlers = {number: signal.signal(number, self.note) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *error):
        for number, handler in self.handlers.items():
            signal.signal(number, handler)

    def note(self, number, _):
        if self.signal:
            os._exit(128 + number)
        self.signal = number
        if not self.tells:
            return
        text = "\nfinishing the step, then saving; interrupt again to end at once, without saving"
        # Ctrl-C also ends what reads our output (tee), and may come while stderr is being written to: saving is worth more.
        with contextlib.suppress(OSError, RuntimeError):
            print(text, file=sys.stderr, flush=True)
