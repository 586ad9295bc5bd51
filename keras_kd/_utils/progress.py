"""Progress of long calls: what runs, how many of how many are done, how long the rest will take.

Where a line can be redrawn (a terminal) it is Keras' own bar. Elsewhere, in logs and pipes, that
bar would write twenty lines a second: there it is a line now and then. In a notebook it is one line
that is replaced: programs that run notebooks keep all that a bar writes over itself.
"""

import importlib
import logging
import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import keras
import numpy as np

from keras_kd._utils.validation import invalid

# In logs: rare enough for a night's work, often enough to see that it lives.
SECONDS_BETWEEN_LINES = 30.0
# In a notebook, where each is a message to the page.
SECONDS_BETWEEN_UPDATES = 0.5


def check_verbose(verbose: Any) -> int:
    """`verbose` in Keras' words as 0, 1 or 2.

    Raises:
        ValueError: It is none of them.
    """
    if isinstance(verbose, str) and verbose == "auto":
        return 1
    if isinstance(verbose, (int, np.integer, np.bool_)) and verbose in (0, 1, 2):
        return int(verbose)
    expected = "0 (silent), 1 or 'auto' (a progress bar) or 2 (one line for each stage)"
    raise invalid("verbose", expected, repr(verbose))


def iterate(
    items: Iterable, label: str, total: int | None = None, unit: str = "batch", verbose: int = 1
) -> Iterator:
    """Yields the items, and shows how many of them are done.

    Args:
        items: What is worked on; it is iterated once.
        label: What is done, in words.
        total: How many there are, or `None`.
        unit: What one of them is.
        verbose: 0, 1 or 2.
    """
    bar = Bar(label, total, unit, verbose)
    bar.begin()
    for done, item in enumerate(items, 1):
        yield item
        bar.update(done)
    bar.end()


class Bar:
    """Shows how many of one kind of things are done.

    Args:
        label: What is done, in words.
        total: How many there are, or `None`.
        unit: What one of them is.
        verbose: 0, 1 or 2.
        figures: Names of numbers that are shown beside it, such as a speed.
    """

    def __init__(
        self,
        label: str,
        total: int | None = None,
        unit: str = "batch",
        verbose: int = 1,
        figures: Sequence[str] = (),
    ) -> None:
        self._label, self._total, self._unit, self._verbose = label, total, unit, verbose
        self._start = self._last_line = time.monotonic()
        self._done, self._names, self._figures = 0, tuple(figures), tuple[float, ...]()
        self._bar: Any = None  # Keras' own, or the notebook's line
        self._display = _notebook_display() if verbose == 1 else None
        self._redraws = verbose == 1 and self._display is None and _can_redraw()

    def begin(self) -> None:
        """Shows the label before the first item is done, which takes longest."""
        if self._bar is not None:
            return
        if self._display is not None:
            self._bar = self._display(_bundle(self._label), raw=True, display_id=True)
        elif self._redraws:
            print_line(self._label)
            self._bar = keras.utils.Progbar(
                self._total, unit_name=self._unit, stateful_metrics=self._names
            )

    def update(self, done: int, *figures: float) -> None:
        """Shows how many are done; often called, it seldom draws.

        Args:
            done: How many.
            *figures: The numbers to show beside it.
        """
        self._done, self._figures = done, figures
        self.begin()
        if self._redraws:
            self._draw(finalize=False)
        elif self._verbose == 1 and self._is_due():
            self._line(is_last=False)

    def end(self) -> None:
        """Ends the line, if there is one."""
        if not self._done or not self._verbose:
            return
        if self._redraws:
            self._bar.target = self._done  # where it was not known
            self._draw(finalize=True)
        else:
            self._line(is_last=True)

    def _draw(self, finalize: bool) -> None:
        values = list(zip(self._names, self._figures, strict=True))
        self._bar.update(self._done, values, finalize=finalize)

    def _is_due(self) -> bool:
        is_last = self._done == self._total  # `end` shows it
        pause = SECONDS_BETWEEN_LINES if self._display is None else SECONDS_BETWEEN_UPDATES
        return not is_last and time.monotonic() - self._last_line >= pause

    def _line(self, is_last: bool) -> None:
        self._last_line = time.monotonic()
        passed = self._last_line - self._start
        each, unit = passed / self._done, self._unit
        total = self._done if is_last else self._total or "unknown"
        count = f"{self._done}/{total}"
        words = [f"{self._label}: {count}", duration(passed), _each(each, unit)]
        if self._total is not None and not is_last:
            words.append(f"{duration(each * (self._total - self._done))} left")
        # As many digits as Keras' bar shows.
        words += [f"{n}: {v:.4f}" for n, v in zip(self._names, self._figures, strict=True)]
        line = " - ".join(words)
        if self._display is None:
            print_line(line)
        else:
            self._bar.update(_bundle(line), raw=True)


class Steps:
    """Counts the stages of a call that are too different for a bar; each is shown when it begins.

    Args:
        name: The name of the call.
        total: How many stages it has.
        verbose: 0, 1 or 2.
        are_alike: Whether the time of those that are done predicts the time of the others.

    Attributes:
        verbose: As above.
        inner: `verbose` for what a stage calls: with 2 there are no lines but these.
    """

    def __init__(self, name: str, total: int, verbose: int, are_alike: bool = False) -> None:
        self._name, self._total, self._are_alike = name, total, are_alike
        self.verbose, self.inner = verbose, int(verbose == 1)
        self._begun, self._skipped, self._start = 0, 0, time.monotonic()

    def expect(self, stages: int) -> None:
        """Adds stages to the total."""
        self._total += stages

    def begin(self, label: str) -> None:
        """A stage begins."""
        words = [label]
        done = self._begun - self._skipped
        if self._begun:
            passed = time.monotonic() - self._start
            words.append(f"{duration(passed)} so far")
            if self._are_alike and done:
                left = passed / done * (self._total - self._begun)
                words.append(f"about {duration(left)} left")
        self._tell(words)

    def skip(self, label: str) -> None:
        """A stage is not needed: its result exists."""
        self._tell([label])
        self._skipped += 1

    def say(self, text: str) -> None:
        """Shows a text about the stage that began last."""
        if self.verbose:
            print_line(f"{self._name}: {text}")

    def _tell(self, words: list[str]) -> None:
        self._begun += 1
        if self.verbose:
            print_line(f"{self._name} {self._begun}/{self._total}: {' - '.join(words)}")


def print_line(line: str) -> None:
    """Prints a line where Keras prints its own: to `sys.stdout`, or to the log."""
    if not keras.config.is_interactive_logging_enabled():
        logging.getLogger("absl").info(line)
        return
    # Names of models and files may have letters that the terminal cannot show.
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    print(line.encode(encoding, "backslashreplace").decode(encoding), flush=True)


def duration(seconds: float) -> str:
    """Seconds as `"7s"`, `"2:07"` or `"1:02:07"`, as Keras' bar has them."""
    minutes, rest = divmod(int(seconds), 60)
    if not minutes:
        return f"{rest}s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _each(seconds: float, unit: str) -> str:
    if seconds >= 1:
        return f"{duration(seconds)}/{unit}"
    small = f"{seconds * 1e3:.0f}ms" if seconds >= 1e-3 else f"{seconds * 1e6:.0f}us"
    return f"{small}/{unit}"


def _can_redraw() -> bool:
    if not keras.config.is_interactive_logging_enabled():
        return False
    is_terminal = getattr(sys.stdout, "isatty", lambda: False)()
    return is_terminal or "PYCHARM_HOSTED" in os.environ


def _notebook_display():
    """`IPython.display.display`, where `sys.stdout` is that of a notebook; else `None`.

    Not where ipykernel is merely imported: other packages do that, and a notebook's output may be
    redirected to a file.
    """
    if not keras.config.is_interactive_logging_enabled():
        return None
    modules = {kind.__module__.partition(".")[0] for kind in type(sys.stdout).__mro__}
    if "ipykernel" not in modules:
        return None
    # Of the notebook's own Python; this package does not need it.
    return importlib.import_module("IPython.display").display


def _bundle(line):
    return {"text/plain": line}
