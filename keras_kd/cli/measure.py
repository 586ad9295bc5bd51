"""`python -m keras_kd measure FILE --data module:function`."""

import argparse
import json
from typing import Any

from keras_kd import measurement
from keras_kd._utils import naming
from keras_kd.cli import arguments


def add_to(commands: Any) -> None:
    """Adds the command to those of a parser."""
    parser = commands.add_parser(
        "measure",
        allow_abbrev=False,
        help="measure quality, size and speed of a .tflite, .onnx or .keras file",
        description="Measures a file on data that a function of yours gives.",
    )
    add = parser.add_argument
    add("file", help="a .tflite, .onnx or .keras file")
    add(
        "--data",
        required=True,
        metavar="MODULE:FUNCTION",
        help="a function without arguments that returns what keras_kd.measure takes as data; "
        "its module is imported first, and so may register layers of your own",
    )
    add("--teacher", metavar="FILE", help="a .keras file to compare with")
    add(
        "--task",
        default="auto",
        help="multiclass, binary, multilabel, regression, language_model, retrieval, similarity",
    )
    add("--output", help="the name or number of the output to measure")
    add("--probabilities", action="store_true", help="the outputs are no logits")
    add(
        "--teacher-probabilities",
        action="store_true",
        help="the teacher's outputs are no logits, the file's are",
    )
    add("--threads", type=arguments.whole(1), default=1, help="threads of the file's runtime")
    add("--runs", type=arguments.whole(0), default=100, help="how many runs are timed; 0: none")
    add("--json", action="store_true", help="print JSON")
    arguments.add_quiet(parser)


def run(options: argparse.Namespace) -> int:
    """Runs the command; returns its exit status."""
    try:
        with arguments.printing_to_stderr():
            found = _measured(options)
    except (ImportError, OSError, ValueError) as error:
        return arguments.fail(error)
    print(json.dumps(found.to_dict(), indent=2) if options.json else found)
    return 0


def _measured(options):
    arguments.check_teacher(options)
    arguments.check_files(options, ["file", "teacher"], [])
    data = naming.called(options.data, "--data")
    teacher = None
    if options.teacher is not None:
        teacher = arguments.model(options.teacher, "--teacher")
    return measurement.measure(  # loaded here: the other commands do not need it
        options.file,
        data,
        task=options.task,
        from_logits=not options.probabilities,
        teacher=teacher,
        teacher_from_logits=False if options.teacher_probabilities else None,
        output=output_of(options),
        threads=options.threads,
        latency=options.runs != 0,
        runs=options.runs or 1,
        verbose=0 if options.quiet else 1,
    )


def output_of(options: argparse.Namespace) -> str | int | None:
    """The output that the user chose, by its name or its number, or `None`."""
    output = options.output
    return int(output) if output is not None and output.isdigit() else output
