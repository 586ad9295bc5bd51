"""`python -m keras_kd report`: the report of models and files on disk."""

import sys

import keras

from keras_kd import command_line
from keras_kd.measurement.command import data_of
from keras_kd.report.call import report


def add_to(commands):
    """Adds the command to those of a parser."""
    parser = commands.add_parser(
        "report",
        help="compare a distilled student with its teacher, a baseline and exported files",
        description="Measures models and files on test data and says whether distillation helped. "
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
        help="a function without arguments that returns the test data: (x, y) or a batched dataset",
    )
    option(
        "--slices", metavar="MODULE:NAME", help="parts of the data: a function, an array, a dict"
    )
    option("--metric", help="what is compared; default: by task")
    option("--task", default="auto", help="default: as the data look")
    option("--probabilities", action="store_true", help="the models return no logits")
    option(
        "--teacher-probabilities",
        action="store_true",
        help="the teacher returns no logits, the others do",
    )
    option("--class-names", metavar="NAMES", help="separated by commas")
    option("--no-latency", action="store_true", help="measure no latencies")
    option("--threads", type=int, default=1, help="for the latencies")
    option("--title", default="Distillation report")
    option("--out", metavar="FILE", help="write the page here (.html)")
    option("--json", metavar="FILE", help="write all numbers here")
    option("--markdown", metavar="FILE", help="write Markdown here")


def run(options):
    """Runs the command; returns its exit status."""
    try:
        made = _report(options)
    except (ImportError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(made)
    for path, save in (
        (options.out, made.save_html),
        (options.json, made.save_json),
        (options.markdown, made.save_markdown),
    ):
        if path is not None:
            save(path)
    return 0


def _report(options):
    slices = options.slices
    return report(
        None if options.teacher is None else _model(options.teacher),
        [_model(path) for path in options.student],
        None if options.baseline is None else [_model(path) for path in options.baseline],
        _exports(options.export),
        data_of(options.data),
        slices=slices and command_line.named(slices, "--slices", "MODULE:NAME"),
        metric=options.metric,
        task=options.task,
        from_logits=not options.probabilities,
        teacher_from_logits=False if options.teacher_probabilities else None,
        class_names=None if options.class_names is None else options.class_names.split(","),
        latency=not options.no_latency,
        threads=options.threads,
        title=options.title,
        verbose=False,
    )


def _model(path):
    return keras.models.load_model(path, compile=False)


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
