"""Runs a command that installs something: with a time limit, retries, and a message at the end.

    python tools/install.py [--minutes 20] "what it installs" COMMAND...

A command that fails for lack of a network, or that runs out of time, is tried three times. Any
other failure is final at once: trying again would not help. It runs under the Python that makes
.venv, so it uses the standard library alone.
"""

import argparse
import collections
import os
import pathlib
import re
import signal
import subprocess
import sys
import threading
import time

MINIMUM = (3, 10)
TRIES = 3
PAUSE = 10.0  # seconds
# What pip and npm print where no registry answers.
NO_NETWORK = re.compile(
    r"ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ECONNRESET|ETIMEDOUT|ENETUNREACH|ERR_SOCKET_TIMEOUT|"
    r"NewConnectionError|NameResolutionError|ConnectTimeoutError|ReadTimeoutError|ProtocolError|"
    r"Connection (refused|reset)|name resolution|Network is unreachable|SSLError",
    re.IGNORECASE,
)
TAIL = 100  # lines in which the reason is looked for


class InstallError(Exception):
    """What went wrong, as the end of a sentence."""

    def __init__(self, reason, is_final):
        super().__init__(reason)
        self.is_final = is_final


def run(command, seconds):
    """Runs a command and shows what it prints.

    Raises:
        InstallError: If it exits with an error or takes longer.
    """
    expired, lines = threading.Event(), collections.deque(maxlen=TAIL)
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    ) as process:

        def stop():
            expired.set()
            os.killpg(process.pid, signal.SIGKILL)

        timer = threading.Timer(seconds, stop)
        timer.start()
        try:
            for line in process.stdout:
                print(line, end="", flush=True)
                lines.append(line)
            status = process.wait()
        finally:
            timer.cancel()
            if process.poll() is None:  # at Ctrl-C
                os.killpg(process.pid, signal.SIGKILL)
    if expired.is_set():
        raise InstallError(f"it did not end within {seconds / 60:.3g} minutes", is_final=False)
    if status and NO_NETWORK.search("".join(lines)):
        raise InstallError("the package registry did not answer", is_final=False)
    if status:
        raise InstallError(f"exit status {status}; its messages are above", is_final=True)


def install(what, command, seconds, pause=PAUSE):
    """Runs a command up to three times. Returns whether it succeeded; prints why not."""
    for attempt in range(1, TRIES + 1):
        try:
            run(command, seconds)
            return True
        except FileNotFoundError:
            reason = f"{command[0]} does not run: `make clean`, then again"
            failure = InstallError(reason, is_final=True)
        except InstallError as error:
            failure = error
        if failure.is_final or attempt == TRIES:
            break
        print(f"keras_kd: {what}: {failure}. Trying again in {pause:g} s.", file=sys.stderr)
        time.sleep(pause)
    print(
        f"keras_kd: could not install {what}: {failure}. What is installed stays; the same `make` "
        "command goes on from there.",
        file=sys.stderr,
    )
    return False


def check_python():
    """Ends the process where this Python cannot make .venv."""
    if sys.version_info < MINIMUM:
        version, needed = (".".join(map(str, v[:2])) for v in (sys.version_info, MINIMUM))
        raise SystemExit(
            f"keras_kd: needs Python {needed} or newer; {sys.executable} is {version}. Name "
            "another one: `make PYTHON=python3.12 ...`"
        )


def main():
    """Runs what the command line says."""
    check_python()
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=20.0, help="limit for one attempt")
    parser.add_argument("what", help="what it installs, for the messages")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    given = parser.parse_args()
    program = pathlib.Path(given.command[0])
    if os.sep in given.command[0] and not program.exists():
        where = "its Python is gone" if program.is_symlink() else "it was not made to the end"
        raise SystemExit(
            f"keras_kd: {program} is missing: {where}. `make clean` removes .venv; then try again."
        )
    sys.exit(0 if install(given.what, given.command, given.minutes * 60) else 1)


if __name__ == "__main__":
    main()
