"""`keras-kd distill`, `cache`, `export` and `init`: runs from a configuration file."""

import argparse
import pathlib
import sys
from typing import Any

import tensorflow as tf

from keras_kd._utils import storage, validation
from keras_kd.cli import arguments, cache_job

COMMANDS = ("distill", "tune", "cache", "export", "init")
_KINDS = ("image", "text", "table")


def add_to(commands: Any) -> None:
    """Adds the commands to those of a parser."""
    _add_run(
        commands,
        "distill",
        "distill by a configuration: from data to files for devices, in one folder",
        "Reads data, trains or loads a teacher, distills a student, writes files for devices, a "
        "report and a model card. Everything is checked before anything is trained.",
    )
    _add_run(
        commands,
        "tune",
        "search settings for a configuration, and no more",
        "Trains the teacher, where the configuration says so, and searches the settings of its "
        "section `tune`. `distill --resume` goes on from there.",
    )
    cached = _add_run(
        commands,
        "cache",
        "write a teacher's outputs, for a configuration or as a job on several machines",
        "Trains the teacher, where the configuration says so, and writes its outputs for the "
        "training data; `distill --resume` goes on from there. With --source in place of CONFIG: "
        "a cache of any data, whose shards are written here or on a Ray cluster.",
        needs_config=False,
    )
    cache_job.add_to(cached)
    _add_run(
        commands,
        "export",
        "write the exports of a finished run again",
        "Writes the exports, the report and the card of a finished run again; its exports and "
        "report may be others than before.",
        resumes=False,
    )
    parser = commands.add_parser(
        "init",
        allow_abbrev=False,
        help="write a configuration that works, with comments",
        description="Writes a configuration that works once the paths of the data are yours.",
    )
    parser.add_argument("kind", choices=_KINDS, help="what the data is")
    parser.add_argument("--out", metavar="FILE", default="config.yaml", help="where it is written")


def _add_run(commands, name, words, description, resumes=True, needs_config=True):
    parser = commands.add_parser(name, allow_abbrev=False, help=words, description=description)
    add = parser.add_argument
    add(
        "config",
        metavar="CONFIG",
        nargs=None if needs_config else "?",
        help="a YAML file; `keras-kd init` writes one",
    )
    add(
        "--folder",
        metavar="FOLDER",
        help="the folder of the run; default: runs/ and the configuration's name",
    )
    add(
        "--set",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help="replaces a value, such as training.epochs=3; can be repeated",
    )
    if resumes:
        add("--resume", action="store_true", help="continue a run that was ended")
    arguments.add_quiet(parser)
    return parser


def run(options: argparse.Namespace) -> int:
    """Runs one of the commands; returns its exit status."""
    try:
        if options.command == "init":
            _init(options)
        else:
            is_job = options.command == "cache" and cache_job.is_wanted(options)
            with arguments.printing_to_stderr():
                made = cache_job.write(options) if is_job else _run(options)
            print(made)
    except (ImportError, OSError, RuntimeError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _init(options):
    from keras_kd.runs import templates

    print(templates.write(options.kind, options.out))


def _run(options):
    for package in ("pydantic", "yaml"):
        validation.needs(package, f"keras-kd {options.command}", "run")
    # Loaded here: the other commands need neither packages of an extra nor these files.
    from keras_kd.runs import reading
    from keras_kd.runs import run as runs

    config = reading.read(options.config, options.set)
    folder = options.folder or str(pathlib.Path("runs") / pathlib.Path(options.config).stem)
    place = storage.place(folder, "--folder", "the path of a folder, or its address")
    if not storage.is_remote(place):
        validation.folder("--folder", folder)
    tf.config.experimental.enable_op_determinism()  # a run that goes on gives the same numbers
    if options.command == "export":
        return runs.export(config, folder, quiet=options.quiet)
    functions = {"distill": runs.distill, "tune": runs.search, "cache": runs.write_cache}
    function = functions[options.command]
    return function(config, folder, resume=options.resume, quiet=options.quiet)
