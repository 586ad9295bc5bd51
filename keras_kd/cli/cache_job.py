"""`keras-kd cache --source MODULE:NAME ...`: a cache as a job, here or on a Ray cluster."""

import argparse
import sys
from typing import Any

from keras_kd._utils import naming, validation
from keras_kd.cli import arguments

_DTYPES = ("float16", "bfloat16", "float32", "compact", "own")
# What belongs to a run of a configuration alone.
_OF_RUNS = ("folder", "set", "resume")
_OF_JOBS = ("source", "teacher", "path", "shards", "rows_per_shard", "dtype", "top_k", "views")
_OF_RAY = ("workers", "resource", "retries")


def add_to(parser: argparse.ArgumentParser) -> None:
    """Adds the options of a job to the command `cache`."""
    group = parser.add_argument_group(
        "a cache as a job, in place of CONFIG", "Run again after whatever ended it, it goes on."
    )
    add = group.add_argument
    add(
        "--source",
        metavar="MODULE:NAME",
        help="a function from the numbers of a view and a shard to a batched dataset of that part, "
        "or one of keras_kd.cache.sources",
    )
    add("--teacher", metavar="FILE", help="a .keras file that all workers reach")
    add("--path", metavar="PLACE", help="where the cache is written: a folder, s3://..., gs://...")
    add("--shards", metavar="N", type=arguments.whole(1), help="shards of a view, of a function")
    add(
        "--rows-per-shard", metavar="N", type=arguments.whole(1), help="samples that each must have"
    )
    add("--dtype", choices=_DTYPES, help="how outputs are stored (float16)")
    add("--top-k", metavar="K", type=arguments.whole(1), help="keep the K largest logits only")
    add("--views", metavar="N", type=arguments.whole(1), help="how many views are stored (1)")
    add("--ray", metavar="ADDRESS", help="a Ray cluster, such as auto; `local`: this machine")
    add("--workers", metavar="N", type=arguments.whole(1), help="processes on the cluster")
    add(
        "--resource",
        metavar="NAME=NUMBER",
        action="append",
        help="what each worker holds, such as GPU=1; can be repeated (CPU=1)",
    )
    add("--retries", metavar="N", type=arguments.whole(0), help="tries of a shard that failed (3)")


def is_wanted(options: argparse.Namespace) -> bool:
    """Whether a job is meant, and not the cache of a configuration.

    Raises:
        ValueError: Options of both are given, or of neither.
    """
    given = [name for name in (*_OF_JOBS, "ray", *_OF_RAY) if getattr(options, name) is not None]
    if options.config is not None:
        if given:
            raise ValueError(
                f"{_option(given[0])} belongs to a cache of --source, and CONFIG is a run of its "
                "own. Leave one of them out."
            )
        return False
    if not given:
        raise ValueError("Name a configuration, or --source, --teacher and --path.")
    for name in _OF_RUNS:
        if getattr(options, name):
            raise ValueError(f"{_option(name)} belongs to a run of CONFIG, and there is none.")
    missing = [name for name in ("source", "teacher", "path") if getattr(options, name) is None]
    if missing:
        raise ValueError(f"{_option(missing[0])} is missing: a job needs it.")
    if options.ray is None:
        for name in _OF_RAY:
            if getattr(options, name) is not None:
                raise ValueError(f"{_option(name)} is for a cluster: name it with --ray.")
    return True


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def write(options: argparse.Namespace) -> Any:
    """Writes the cache; returns its path."""
    # Loaded here: the other commands need no TensorFlow datasets.
    from keras_kd import cache

    resources = _resources(options.resource)
    if options.ray is not None:
        pickling = validation.needs("ray.cloudpickle", "--ray", "ray")
    source = naming.named(options.source, "--source", "MODULE:NAME")
    with naming.users_code(f"planning {options.source!r}"):
        job = cache.plan(
            source=source,
            teacher=arguments.existing(options.teacher, "--teacher"),
            path=options.path,
            shards=options.shards,
            rows_per_shard=options.rows_per_shard,
            dtype=None if options.dtype == "own" else options.dtype or "float16",
            top_k=options.top_k,
            epochs=options.views or 1,
        )
    verbose = 0 if options.quiet else 1
    if options.ray is None:
        return job.write_all(verbose=verbose)
    # Workers on other machines do not have the user's module: it travels with the job.
    pickling.register_pickle_by_value(sys.modules[options.source.partition(":")[0]])
    summary = cache.on_ray(
        job,
        workers=options.workers,
        resources=resources,
        retries=3 if options.retries is None else options.retries,
        address=None if options.ray == "local" else options.ray,
        verbose=verbose,
    )
    return summary.path


def _resources(given: list[str] | None) -> dict[str, float] | None:
    found = {}
    for words in given or []:
        name, equals, number = words.partition("=")
        try:
            found[name] = float(number)
        except ValueError:
            equals = ""
        if not (name and equals):
            raise ValueError(f"--resource must be NAME=NUMBER, as GPU=1. Received: {words!r}")
    return found or None
