"""Interrupted, split among processes, out of space: the cache becomes the same, or says why not."""

import contextlib
import io
import json

import numpy as np
import pytest
import tensorflow as tf

import keras_kd as kd
from keras_kd.teachers.cache import format as cache_format
from tests import fresh_process
from tests.cache import caches


@pytest.fixture(scope="module")
def in_one_go(tmp_path_factory):
    path = caches.written(tmp_path_factory.mktemp("whole") / "cache", taps=["h"], epochs=2)
    return caches.contents(path)


class StoppedError(Exception):
    pass


def stopping(data, after):
    """The dataset, which fails after some batches."""

    def batches():
        for i, element in enumerate(data):
            if i == after:
                raise StoppedError
            yield element

    return tf.data.Dataset.from_generator(batches, output_signature=data.element_spec)


@pytest.mark.parametrize("after", [0, 1, 2, 5, 8])
def test_an_interrupted_run_goes_on(tmp_path, in_one_go, after):
    options = {"taps": ["h"], "epochs": 2}
    with pytest.raises(Exception, match=r"StoppedError|empty"):
        caches.written(tmp_path / "c", data=lambda v: stopping(caches.dataset(), after), **options)
    whole = sorted((tmp_path / "c").glob("view-*/*.tfrecord"))
    assert len(whole) == after // 2
    times = [file.stat().st_mtime_ns for file in whole]
    caches.written(tmp_path / "c", **options)
    assert [file.stat().st_mtime_ns for file in whole] == times  # not written again
    assert caches.contents(tmp_path / "c") == in_one_go


def test_a_finished_cache_is_not_written_again(tmp_path, in_one_go):
    for _ in range(2):
        path = caches.written(tmp_path / "c", taps=["h"], epochs=2)
    times = {file: file.stat().st_mtime_ns for file in path.rglob("*")}
    caches.written(path, taps=["h"], epochs=2)
    assert {file: file.stat().st_mtime_ns for file in path.rglob("*")} == times
    assert caches.contents(path) == in_one_go


def test_a_resumed_run_on_other_data_is_refused(tmp_path):
    with pytest.raises(Exception, match="StoppedError"):
        caches.written(tmp_path / "c", data=stopping(caches.dataset(), 5))
    x, y = caches.arrays()
    with pytest.raises(kd.CacheError, match="The inputs of shard view-000/shard-00000 differ from"):
        caches.written(tmp_path / "c", data=caches.dataset(x[::-1].copy(), y))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"teacher": caches.model(5)}, "teacher: "),
        ({"dtype": "float16"}, "dtype: 'float32' there, 'float16' now"),
        ({"taps": ["h"]}, r"taps: \[\] there, \['h'\] now"),
        ({"top_k": 2}, "top_k: None there, 2 now"),
        ({"epochs": 2}, "views: 1 there, 2 now"),
        ({"batches_per_shard": 3}, "batches_per_shard: 2 there, 3 now"),
    ],
)
def test_a_folder_holds_one_kind_of_cache(tmp_path, options, message):
    caches.written(tmp_path / "c")
    with pytest.raises(kd.CacheError, match=message):
        caches.written(tmp_path / "c", **options)


def test_other_files_are_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(kd.CacheError, match="holds other files"):
        caches.written(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.tex"]


def test_several_processes_write_one_cache(tmp_path, in_one_go):
    asked = []
    living = caches.model(1)

    def teacher(inputs):
        def count(x):
            asked.append(len(x))
            return x

        watched = tf.numpy_function(count, [inputs], tf.float32)
        watched.set_shape(inputs.shape)
        return living(watched)

    options = {"teacher": teacher, "fingerprint": "one", "epochs": 2}
    whole = caches.contents(caches.written(tmp_path / "one", **options))
    asked.clear()
    path = tmp_path / "three"
    for index in (2, 0, 1):
        assert not (path / "manifest.json").exists()
        caches.written(path, process=(index, 3), **options)
    # The process that came first asked about a batch of another one: about sizes, before any file.
    assert sum(asked) == 2 * caches.ROWS + caches.BATCH
    assert caches.contents(path) == whole


BAD = [
    ({"dtype": "int8"}, "`dtype`. Expected one of"),
    ({"top_k": 0}, "`top_k`. Expected an integer, at least 1"),
    ({"top_k": 8}, "cannot exceed the number of classes"),
    ({"epochs": 0}, "`epochs`. Expected an integer, at least 1"),
    ({"process": (2, 2)}, "index below count"),
    ({"data": 5}, "`dataset`. Expected a batched tf.data.Dataset"),
    ({"taps": ["missing"]}, "has no layer 'missing'"),
    ({"data": caches.dataset().take(0)}, "The dataset is empty"),
    ({"teacher": kd.teachers.VirtualTeacher()}, "VirtualTeacher cannot be cached"),
    ({"teacher": lambda x: tf.reduce_sum(x)}, "one entry for each sample of the batch"),
]


@pytest.mark.parametrize(("options", "message"), BAD)
def test_invalid_arguments_raise_before_writing(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        caches.written(tmp_path / "c", **options)
    assert not (tmp_path / "c").exists()


def spoilt(factor, row):
    """A teacher whose answer for one row is multiplied."""
    living, found = caches.model(1), caches.arrays()[0][row, 0]
    return lambda x: living(x) * tf.where(x[:, :1] == found, np.float32(factor), 1.0)


@pytest.mark.parametrize("top_k", [None, 3])
@pytest.mark.parametrize(
    ("factor", "dtype", "message"),
    [
        ("nan", "float32", "batch 2 of view 0 hold NaN. Look at the inputs"),
        ("1e6", "float16", "batch 2 .* numbers too large for dtype='float16'. Pass dtype='bf"),
        ("-1e6", "float16", "batch 2 .* numbers too large for dtype='float16'"),
    ],
)
def test_numbers_that_cannot_be_kept_are_refused(tmp_path, factor, dtype, message, top_k):
    options = {"dtype": dtype, "top_k": top_k, "fingerprint": "one"}
    with pytest.raises(ValueError, match=message):
        caches.written(tmp_path / "c", teacher=spoilt(factor, 20), **options)


@pytest.mark.parametrize("factor", [1e6, float("nan")])
def test_overflowing_first_batch_leaves_no_files(tmp_path, factor):
    with pytest.raises(ValueError, match="batch 0 of view 0"):
        caches.written(tmp_path / "c", teacher=spoilt(factor, 3), dtype="float16")
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize("row", [3, 10, 20, 60])
def test_another_type_is_the_remedy_for_large_numbers(tmp_path, row):
    teacher, path = spoilt(1e6, row), tmp_path / "c"
    for dtype in ("float16", "bfloat16"):
        options = {"teacher": teacher, "dtype": dtype, "fingerprint": "one"}
        if dtype == "float16":
            with pytest.raises(ValueError, match="Pass dtype='bfloat16' or 'float32'") as found:
                caches.written(path, **options)
            has_shards = "remove that folder" in str(found.value)
            assert has_shards == (row >= 2 * caches.BATCH)  # a shard has two batches
            path = tmp_path / "other" if has_shards else path
        else:
            caches.written(path, **options)
    assert len(caches.read(kd.load_cache(path, caches.dataset()))[0]) == caches.ROWS


def test_the_teacher_runs_once_for_each_batch(tmp_path):
    rows, living = [], caches.model(1)

    def teacher(inputs):
        watched = tf.numpy_function(lambda x: rows.append(len(x)) or x, [inputs], tf.float32)
        watched.set_shape(inputs.shape)
        return living(watched)

    for _ in range(2):
        caches.written(tmp_path / "c", teacher=teacher, fingerprint="one")
        assert sum(rows) == caches.ROWS


ENDLESS = {
    "a dataset": lambda: caches.dataset().repeat(),
    "views": lambda: lambda view: caches.dataset().repeat(),
    "the second view": lambda: lambda view: caches.dataset().repeat(-1 if view else 1),
}


@pytest.mark.parametrize("kind", ENDLESS)
def test_endless_data_is_refused_before_any_work(tmp_path, kind):
    asked = []

    def teacher(inputs):
        asked.append(inputs)
        return inputs

    with pytest.raises(ValueError, match=r"is endless.*take\(n\) its first n batches"):
        caches.written(tmp_path / "c", teacher=teacher, data=ENDLESS[kind](), epochs=2)
    assert not asked
    assert not (tmp_path / "c").exists()
    path = caches.written(tmp_path / "c", data=caches.dataset().repeat().take(12))
    assert len(list(kd.load_cache(path, caches.dataset().repeat().take(12)))) == 12
    for _ in kd.load_cache(path, caches.dataset().repeat().take(12)).repeat().take(30):
        pass


def generated():
    def rows():
        yield from zip(*caches.arrays(), strict=True)

    spec = (tf.TensorSpec([caches.FEATURES], tf.float32), tf.TensorSpec([], tf.int64))
    return tf.data.Dataset.from_generator(rows, output_signature=spec).batch(caches.BATCH)


@pytest.mark.parametrize("make", [caches.dataset, generated])
def test_progress_is_shown_and_then_a_line(tmp_path, capsys, make):
    path = caches.written(tmp_path / "c", data=make(), verbose=1)
    shown = capsys.readouterr().out
    assert "9/9 - " in shown
    assert "samples/s: " in shown
    assert "MB: " in shown
    size = cache_format.bytes_on_disk(path)
    summary = f"{path}: 71 samples in 9 batches, {size / 1e6:,.2f} MB"
    summary += f" ({size / 71:,.0f} bytes per sample)"
    assert shown.splitlines()[-1] == f"{summary}."
    caches.written(path, data=make(), verbose=True)
    assert capsys.readouterr().out == f"{summary}; it was complete already.\n"
    (path / "manifest.json").unlink()
    (path / "view-000/shard-00001.json").unlink()
    caches.written(path, data=make(), verbose="auto")
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == f"{summary}; 7 of 9 batches were there already."
    caches.written(tmp_path / "quiet", data=make(), verbose=0)
    assert not capsys.readouterr().out


def test_verbose_two_is_one_line_for_each_stage(tmp_path, capsys):
    path = caches.written(tmp_path / "c", verbose=2)
    bar, summary = capsys.readouterr().out.splitlines()
    assert bar.startswith(f"cache_teacher: {path}: 9/9 - ")
    assert "/batch - samples/s: " in bar
    assert summary.startswith(f"{path}: 71 samples in 9 batches")


def test_a_terminal_shows_the_bar_with_its_figures(tmp_path):
    with contextlib.redirect_stdout(Terminal()) as terminal:
        path = caches.written(tmp_path / "c", verbose=1)
    label, bar, summary, end = terminal.getvalue().split("\n")
    assert (label, end) == (f"cache_teacher: {path}", "")
    assert "9/9" in bar.split("\r")[-1]
    assert "samples/s: " in bar
    assert summary.startswith(f"{path}: 71 samples in 9 batches")


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_process_reports_that_others_are_to_come(tmp_path, capsys):
    caches.written(tmp_path / "c", process=(1, 2), verbose=1)
    assert "4 batches written; the other 5 are there or belong to other processes" in (
        capsys.readouterr().out
    )


def test_unequal_or_empty_views_raise(tmp_path):
    def of_other_type(view):
        x, y = caches.arrays()
        return caches.dataset(x.astype("float64") if view else x, y)

    with pytest.raises(ValueError, match="All views must have elements of one kind"):
        caches.written(tmp_path / "c", data=of_other_type, epochs=2)
    with pytest.raises(ValueError, match="The dataset of view 1 is empty"):
        caches.written(
            tmp_path / "d", data=lambda view: caches.dataset().take(0 if view else 9), epochs=2
        )


FULL_DISK = """
import pathlib, resource, signal, sys
from tests.cache import caches
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
caches.dataset()  # TensorFlow is up
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), int(sys.argv[2])))
try:
    caches.written(pathlib.Path(sys.argv[1]), taps=["h"], epochs=2)
except OSError as error:
    print("error:", error)
"""


@pytest.mark.slow
def test_full_disk_raises_and_leaves_whole_files(tmp_path, in_one_go):
    path = tmp_path / "c"
    size = max(len(data) for name, data in in_one_go.items() if name.endswith("tfrecord"))
    text = fresh_process.run_preloaded(["-c", FULL_DISK, path, str(size - 1)]).stdout
    assert "error:" in text
    assert "could not be written" in text
    assert not list(path.rglob("partial-*"))
    for name, data in caches.contents(path).items():
        assert data == in_one_go[name]
    caches.written(path, taps=["h"], epochs=2)
    assert caches.contents(path) == in_one_go


# Forks a writer for each kill before TensorFlow has started threads. It reports each batch that its
# teacher gets; how many it may get is drawn, and then a moment of the work on the next one. Drawn
# from the clock alone, all moments would be before the start, or after the end, on a busy machine.
KILLED = """
import json, os, pathlib, random, signal, sys, time
from tests.cache import caches
form = json.loads(sys.argv[4])
random.seed(int(sys.argv[2]))
for trial in range(int(sys.argv[3])):
    folder = pathlib.Path(sys.argv[1]) / str(trial)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        import tensorflow as tf
        living = caches.model(1)
        def reported(x):
            os.write(write, b".")
            time.sleep(0.02)
            return x
        def teacher(inputs):
            watched = tf.numpy_function(reported, [inputs], tf.float32)
            watched.set_shape(inputs.shape)
            return living(watched)
        caches.written(folder, teacher=teacher, fingerprint="one", epochs=2, **form)
        os._exit(0)
    os.close(write)
    for _ in range(random.randint(1, 18)):
        if not os.read(read, 1):  # it is done
            break
    time.sleep(random.uniform(0.0, 0.04))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    os.close(read)
    print(folder, len(list(folder.rglob("*.tfrecord"))))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("form", "trials"),
    [({}, 20), ({"dtype": "compact", "top_k": 3}, 10)],
    ids=["float32", "compact"],
)
def test_resumes_after_random_kills(tmp_path, form, trials):
    living = caches.model(1)
    options = {"teacher": lambda x: living(x), "fingerprint": "one", "epochs": 2, **form}
    whole = caches.contents(caches.written(tmp_path / "whole", **options))
    seed = np.random.default_rng().integers(1 << 30)
    killed = ["-c", KILLED, tmp_path / "killed", str(seed), str(trials), json.dumps(form)]
    text = fresh_process.run_preloaded(killed).stdout
    lines = [line for line in text.splitlines() if line.startswith(str(tmp_path))]
    found = [int(line.split()[-1]) for line in lines]  # TensorFlow may log beside it
    assert len(found) == trials
    assert len(set(found)) > 2, f"seed {seed}: all were killed at one stage: {found}"
    for trial in range(trials):
        path = tmp_path / "killed" / str(trial)
        caches.written(path, **options)
        assert caches.contents(path) == whole, f"seed {seed}, trial {trial}"
