"""Runs an example as a user does."""

import pathlib

from tests import extras, fresh_process

EXAMPLES = pathlib.Path(__file__).parent.parent / "examples"


def printed(name, *arguments):
    """What an example prints, run with these arguments in a process of its own."""
    extras.require_in_a_process("matplotlib", "mlxtend", "sklearn")
    command = [EXAMPLES / name, *map(str, arguments)]
    return fresh_process.run_preloaded(command, warnings="default").stdout
