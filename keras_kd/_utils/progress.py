"""How far a long call has come: what it does, how many of how many, how long it will take.

Where a line can be drawn again (a terminal, a notebook) it is Keras' own bar. Elsewhere, in logs
and pipes, that bar would write twenty lines a second: there it is a line now and then.
"""

import logging
import os
import sys
import time

import keras
import numpy as np

from keras_kd._utils.validation import invalid

# In logs: rare enough for a night's work, often enough to see that it lives.
SECONDS_BETWEEN_LINES = 30.0


def checked(verbose):
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


def over(items, label, total=None, unit="batch", verbose=1):
    """Yields the items, and tells how many of them are done.

    Args:
        items: What is worked on; it is gone through once.
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
    """Counts what is done of one thing.

    Args:
        label: What is done, in words.
        total: How many there are, or `None`.
        unit: What one of them is.
        verbose: 0, 1 or 2.
    """

    def __init__(self, label, total=None, unit="batch", verbose=1):
        self._label, self._total, self._unit, self._verbose = label, total, unit, verbose
        self._start = self._last_line = time.monotonic()
        self._done, self._bar = 0, None
        self._redraws = verbose == 1 and _can_redraw()

    def begin(self):
        """Says what is done before the first of it is, which takes longest."""
        if self._redraws and self._bar is None:
            tell(self._label)
            self._bar = keras.utils.Progbar(self._total, unit_name=self._unit)

    def update(self, done):
        """Tells how many are done; often called, it seldom draws."""
        self._done = done
        if self._redraws:
            self.begin()
            self._bar.update(done, finalize=False)
        elif self._verbose == 1 and self._is_due():
            self._line(is_last=False)

    def end(self):
        """Ends the line, if there is one."""
        if not self._done or not self._verbose:
            return
        if self._redraws:
            self._bar.target = self._done  # where it was not known
            self._bar.update(self._done, finalize=True)
        else:
            self._line(is_last=True)

    def _is_due(self):
        is_last = self._done == self._total  # of which `end` tells
        return not is_last and time.monotonic() - self._last_line >= SECONDS_BETWEEN_LINES

    def _line(self, is_last):
        self._last_line = time.monotonic()
        passed = self._last_line - self._start
        each, unit = passed / self._done, self._unit
        total = self._done if is_last else self._total or "unknown"
        count = f"{self._done}/{total}"
        words = [f"{self._label}: {count}", duration(passed), _each(each, unit)]
        if self._total is not None and not is_last:
            words.append(f"{duration(each * (self._total - self._done))} left")
        tell(" - ".join(words))


class Steps:
    """Counts the parts of a call that are too different for a bar; each is told when it begins.

    Args:
        name: Of the call.
        total: How many parts it has.
        verbose: 0, 1 or 2.
        are_alike: Whether those that are done tell how long the others will take.

    Attributes:
        verbose: As above.
        inner: `verbose` of what a part calls: with 2 there are no lines but these.
    """

    def __init__(self, name, total, verbose, are_alike=False):
        self._name, self._total, self._are_alike = name, total, are_alike
        self.verbose, self.inner = verbose, int(verbose == 1)
        self._begun, self._skipped, self._start = 0, 0, time.monotonic()

    def expect(self, parts):
        """There are so many parts more than was known."""
        self._total += parts

    def begin(self, label):
        """A part begins."""
        words = [label]
        done = self._begun - self._skipped
        if self._begun:
            passed = time.monotonic() - self._start
            words.append(f"{duration(passed)} so far")
            if self._are_alike and done:
                left = passed / done * (self._total - self._begun)
                words.append(f"about {duration(left)} left")
        self._tell(words)

    def skip(self, label):
        """A part is not needed: what it makes is there."""
        self._tell([label])
        self._skipped += 1

    def say(self, text):
        """Something about the part that was begun last."""
        if self.verbose:
            tell(f"{self._name}: {text}")

    def _tell(self, words):
        self._begun += 1
        if self.verbose:
            tell(f"{self._name} {self._begun}/{self._total}: {' - '.join(words)}")


def tell(line):
    """Prints a line where Keras prints its own: to `sys.stdout`, or to the log."""
    if not keras.config.is_interactive_logging_enabled():
        logging.getLogger("absl").info(line)
        return
    # Names of models and files may have letters that the terminal has not.
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    print(line.encode(encoding, "backslashreplace").decode(encoding), flush=True)


def duration(seconds):
    """Seconds as `"7s"`, `"2:07"` or `"1:02:07"`, as Keras' bar has them."""
    minutes, rest = divmod(int(seconds), 60)
    if not minutes:
        return f"{rest}s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _each(seconds, unit):
    if seconds >= 1:
        return f"{duration(seconds)}/{unit}"
    small = f"{seconds * 1e3:.0f}ms" if seconds >= 1e-3 else f"{seconds * 1e6:.0f}us"
    return f"{small}/{unit}"


def _can_redraw():
    if not keras.config.is_interactive_logging_enabled():
        return False
    is_terminal = getattr(sys.stdout, "isatty", lambda: False)()
    return is_terminal or "ipykernel" in sys.modules or "PYCHARM_HOSTED" in os.environ
