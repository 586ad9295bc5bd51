"""`python -m tests.cache.on_beam_driver FOLDER`: jobs in Beam's local runners, one of each kind.

It runs where Apache Beam can be imported, and writes what it sees to `FOLDER/seen.json`. The
processes that Beam starts end with this one.
"""

import json
import os
import pathlib
import re
import signal
import sys

import keras_kd as kd
from tests.cache import caches, on_ray_driver

IS_LAZY = "apache_beam" not in sys.modules

import apache_beam as beam  # noqa: E402
from apache_beam.options.pipeline_options import PipelineOptions  # noqa: E402

PROCESSES = [
    *("--runner=FnApiRunner", "--direct_num_workers=2", "--direct_running_mode=multi_processing")
]
THREADS = [*PROCESSES[:2], "--direct_running_mode=multi_threading"]
# The only one of Beam's local runners that tries a bundle again.
RETRYING = ["--runner=BundleBasedDirectRunner"]


class Source(on_ray_driver.SlowSource):
    """Fails once, at the seventh time that data is asked for: `how` is `"killed"` or an error."""

    def __init__(self, folder, how=None):
        super().__init__(folder / "log", seconds=0)
        self.mark, self.how = folder / "failed", how

    def __call__(self, view, shard):
        if (
            self.how is not None
            and not self.mark.exists()
            and len(on_ray_driver.reads(self.log)) > 5
        ):
            self.mark.touch()
            if self.how == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            raise self.how
        return super().__call__(view, shard)


def planned(folder, how=None, **options):
    """A job, whose workers load the teacher as those of other processes would."""
    folder.mkdir(parents=True)
    caches.model(1).save(folder / "teacher.keras")
    settings = {
        "teacher": folder / "teacher.keras",
        "source": Source(folder, how),
        "path": folder / "cache",
        "shards": on_ray_driver.SHARDS,
        "rows_per_shard": on_ray_driver.ROWS,
        "dtype": "float32",
    }
    job = kd.cache.plan(**{**settings, **options})
    job.token = f"{folder.name}, in another process"
    (folder / "log").unlink()  # what the plan has read
    return job


def run(job, flags=("--runner=FnApiRunner",)):
    """Runs a pipeline; returns what came out of it, by the files that its steps wrote."""
    folder = job.path.parent
    with beam.Pipeline(options=PipelineOptions([*flags])) as pipeline:
        outputs = pipeline | kd.cache.beam.Write(job)
        outputs.written | "Note" >> beam.Map(_note, folder / "written")
        outputs.path | "Note the path" >> beam.Map(_note, folder / "paths")
    result = pipeline.result
    counters = {
        each.key.metric.name: each.committed
        for each in result.metrics().query()["counters"]
        if each.key.metric.namespace == "keras_kd.cache"
    }
    return {
        "counters": counters,
        "paths": _lines(folder / "paths"),
        "written": sorted(map(json.loads, _lines(folder / "written"))),
        "reads": on_ray_driver.reads(folder / "log"),
        "finished": (folder / "cache" / "manifest.json").exists(),
    }


def _note(written, path):
    text = written if isinstance(written, str) else json.dumps([*written.shard, written.rows])
    with open(path, "a") as file:
        file.write(f"{text}\n")


def _lines(path):
    return path.read_text().splitlines() if path.exists() else []


def error_of(call):
    try:
        call()
    except (RuntimeError, ValueError) as error:
        return f"{type(error).__name__}: {error}"
    raise AssertionError("nothing was raised")


def undisturbed(folder):
    return run(planned(folder), PROCESSES)


def killed(folder):
    """The whole pipeline fails with a process of it, and is run again, here in one process."""
    job = planned(folder, "killed")
    error = error_of(lambda: run(job, PROCESSES))
    pending = [shard.number for shard in job.pending()]
    (folder / "log").unlink()
    return {"error": error, "pending": pending, **run(job)}


def retried(folder):
    return run(planned(folder, ConnectionResetError("the share is gone")), RETRYING)


def twice(folder):
    """Each shard is given out twice, to threads that have it at the same time."""
    job = planned(folder)
    pending = job.pending() * 2
    job.pending = lambda: pending
    return run(job, THREADS)


def all_there(folder):
    job = planned(folder)
    for shard in job.shards:
        job.write(shard)
    finished = (folder / "cache" / "manifest.json").exists()
    (folder / "teacher.keras").unlink()
    (folder / "log").unlink()
    job.token = "a third process"
    return {"finished before": finished, **run(job)}


def another_teacher(folder):
    job = planned(folder)
    caches.model(2).save(folder / "teacher.keras")
    error = error_of(lambda: run(job))
    return {"error": error, "files": len(list((folder / "cache").rglob("*.tfrecord")))}


def not_pickled(folder):
    source = Source(folder)
    source.rows = (row for row in "a generator")
    job = planned(folder, source=source)
    return {"error": error_of(lambda: run(job))}


def wrong_calls(folder):
    job = planned(folder)

    def to_a_collection():
        beam.Pipeline() | beam.Create([1]) | kd.cache.beam.Write(job)

    return {
        "no job": error_of(lambda: kd.cache.beam.Write(folder)),
        "a collection": error_of(to_a_collection),
    }


def example(folder):
    text = kd.cache.beam.Write.__doc__
    (found,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    lines = "\n".join(line.removeprefix("    ") for line in found.splitlines())
    names = {}
    exec(compile(lines, "example", "exec"), names)
    return {"batches": len(list(names["joined"]))}


CASES = (
    *(undisturbed, killed, retried, twice),
    *(all_there, another_teacher, not_pickled, wrong_calls, example),
)


def main(folder):
    folder = pathlib.Path(folder)
    seen = {"is lazy": IS_LAZY}
    for case in CASES:
        print(case.__name__, flush=True)
        seen[case.__name__] = case(folder / case.__name__)
    (folder / "seen.json").write_text(json.dumps(seen))


if __name__ == "__main__":
    main(*sys.argv[1:])
