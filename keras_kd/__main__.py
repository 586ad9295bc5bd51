"""Commands: `python -m keras_kd doctor`, `measure FILE --data ...`, `report --student FILE ...`.

And `distill CONFIG`, `cache CONFIG`, `export CONFIG`, `init KIND`. The same as `keras-kd doctor`
and so on.
"""

import argparse
import pathlib
import sys

from keras_kd.cli import doctor, measure, report, runs


def main(arguments: list[str] | None = None) -> int:
    """Runs a command line and returns its exit status."""
    parser = argparse.ArgumentParser(
        prog=_typed(),
        allow_abbrev=False,
        description="Knowledge distillation for Keras.",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    diagnosis = commands.add_parser(
        "doctor",
        allow_abbrev=False,
        help="show what is installed, which kernels are used, and why not the others",
        description="Shows what is installed and used. Exit status 1 if the fused kernel was "
        "requested (KERAS_KD_KERNEL=native) and cannot be used, else 0.",
    )
    diagnosis.add_argument("--json", action="store_true", help="print JSON")
    measure.add_to(commands)
    report.add_to(commands)
    runs.add_to(commands)
    options = parser.parse_args(arguments)
    if options.command == "measure":
        return measure.run(options)
    if options.command == "report":
        return report.run(options)
    if options.command in runs.COMMANDS:
        return runs.run(options)
    return doctor.run(as_json=options.json)


def _typed():
    """How the user started this, for the usage line."""
    is_command = pathlib.Path(sys.argv[0]).stem == "keras-kd"
    return "keras-kd" if is_command else "python -m keras_kd"


if __name__ == "__main__":
    sys.exit(main())
