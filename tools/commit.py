"""The hash of the commit, with which tests and bugs are drawn."""

import pathlib
import subprocess

NO_COMMIT = "no-commit"  # The seed of a source distribution, which has no history.


def seed_of_commit():
    """The hash of the commit that is checked out, or `NO_COMMIT`."""
    command = ["git", "rev-parse", "HEAD"]
    try:
        done = subprocess.run(
            command, cwd=pathlib.Path(__file__).parent, capture_output=True, text=True, check=False
        )
    except FileNotFoundError:  # no git
        return NO_COMMIT
    return done.stdout.strip()[:12] if done.returncode == 0 else NO_COMMIT
