"""`python -m keras_kd report`: the report of models and files on disk."""

import argparse
import os
from typing import Any

from keras_kd._utils import naming
from keras_kd.cli import arguments
from keras_kd.cli.measure import output_of
from keras_kd.reporting.api import report


def add_to(commands: Any) -> None:
    """Adds the command to those of a parser."""
    parser = commands.add_parser(
        "report",
        allow_abbrev=False,
        help="compare a distilled student with its teacher, a baseline and exported files",
        description="Measures models and files on test data and shows whether distillation helped. "
        "Options that name a model or a file can be repeated, once for each seed.",
    )
    option = parser.add_argument
    option("--teacher", metavar="FILE", help="the teacher, a .keras file")
    option(
        "--student", metavar="FILE", action="append", required=True, help="the distilled student"
    )
    option(
        "--baseline", metavar="FILE", action="append", help="the student trained with labels only"
    )
    option(
        "--export",
        metavar="NAME=FILE",
        action="append",
        default=[],
        help="a .tflite or .onnx file made of the student",
    )
    option(
        "--data",
        metavar="MODULE:FUNCTION",
        required=True,
        help="a function without arguments that returns the test data: (x, y) or a batched "
        "dataset; its module is imported first, and so may register layers of your own",
    )
    option(
        "--slices", metavar="MODULE:NAME", help="parts of the data: a function, an array, a dict"
    )
    option("--metric", help="what is compared; default: by task")
    option(
        "--task",
        default="auto",
        help="as of the command measure; default: as the data look",
    )
    option("--output", help="the name or number of the output that is compared")
    option("--probabilities", action="store_true", help="the models return no logits")
    option(
        "--teacher-probabilities",
        action="store_true",
        help="the teacher returns no logits, the others do",
    )
    option("--class-names", metavar="NAMES", help="separated by commas")
    option("--no-latency", action="store_true", help="measure no latencies")
    option("--threads", type=arguments.whole(1), default=1, help="for the latencies")
    option("--title", default="Distillation report")
    option("--out", metavar="FILE", help="write the page here (.html)")
    option("--json", metavar="FILE", help="write all numbers here")
    option("--markdown", metavar="FILE", help="write Markdown here")
    arguments.add_quiet(parser)


def run(options: argparse.Namespace) -> int:
    """Runs the command; returns its exit status."""
    paths = options.out, options.json, options.markdown
    try:
        arguments.check_teacher(options)
        arguments.check_files(
            options, ["teacher", "student", "baseline", "export"], ["out", "json", "markdown"]
        )
        with arguments.printing_to_stderr():
            made = _report(options)
        saves = made.save_html, made.save_json, made.save_markdown
        for path, save in zip(paths, saves, strict=True):
            if path is not None:
                save(path)
    except (ImportError, OSError, ValueError) as error:
        return arguments.fail(error)
    print(made)
    return 0


def _report(options):
    slices, data = options.slices, naming.called(options.data, "--data")
    if slices is not None:
        slices = naming.named(slices, "--slices", "MODULE:NAME")
        named = slices if isinstance(slices, dict) else {"slice": slices}
        slices = {
            name: naming.function_of_users(each, f"--slices {options.slices}")
            for name, each in named.items()
        }
    _check_files([*options.student, *(options.baseline or [])])
    return report(
        None if options.teacher is None else arguments.model(options.teacher, "--teacher"),
        [arguments.model(path, "--student") for path in options.student],
        options.baseline and [arguments.model(path, "--baseline") for path in options.baseline],
        _exports(options.export),
        data,
        slices=slices,
        metric=options.metric,
        task=options.task,
        output=output_of(options),
        from_logits=not options.probabilities,
        teacher_from_logits=False if options.teacher_probabilities else None,
        class_names=None if options.class_names is None else options.class_names.split(","),
        latency=not options.no_latency,
        threads=options.threads,
        title=options.title,
        verbose=0 if options.quiet else 1,
    )


def _check_files(paths):
    """Raises where a model is given twice: each file is loaded as a model of its own."""
    found = [os.path.realpath(path) for path in paths]
    for path, file in zip(paths, found, strict=True):
        if found.count(file) > 1:
            raise ValueError(
                f"{path!r} is given twice as --student or --baseline. Each seed needs a student "
                "and a baseline that were trained apart."
            )


def _exports(given):
    """`{name: files}` of the words `NAME=FILE`."""
    made: dict = {}
    for each in given:
        name, equals, path = each.partition("=")
        if not equals or not path:
            raise ValueError(
                f"--export must be NAME=FILE, such as int8=s.tflite. Received: {each!r}"
            )
        made.setdefault(name, []).append(path)
    return made
