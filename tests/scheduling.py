"""How the test files are spread over processes: parts of the suite, the longest files first.

TensorFlow keeps what it compiled, and the graph of each `tf.custom_gradient`, for as long as the
process lives: one that ran all tests would need 7 GB and more. `make test` runs the suite in parts,
each in fresh processes (`tools/run_tests.py`):

    pytest -n 2 --dist loadfile --no-loadscope-reorder --part=1/6

`durations.txt` has the seconds of each file. Parts take equally long, and workers start with the
longest file, so that they end together. Update the table with

    make test TEST_ARGS='--store-durations=build/durations.txt'
    mv build/durations.txt tests/durations.txt

Not in place: where the parts begin must not change between them.
"""

import collections
import gc
import pathlib
import resource

import pytest

TESTS = pathlib.Path(__file__).parent
DURATIONS = TESTS / "durations.txt"
# Two workers, what they start, and a browser fit into a machine of 12 GB. Most processes stay below
# 2.6 GB; the one that gets `real_files`, whose models take 1.3 GB, has reached 3.5.
MEMORY_LIMIT = 4 * 2**30


def pytest_addoption(parser):
    group = parser.getgroup("scheduling")
    group.addoption("--part", metavar="I/N", help="run the I-th of N parts of the suite")
    group.addoption(
        "--store-durations",
        metavar="FILE",
        help="add how long each file of tests took to a table like tests/durations.txt",
    )


def pytest_configure(config):
    worker = hasattr(config, "workerinput")
    config.pluginmanager.register(Worker(config) if worker else Controller(config))
    if config.option.part:
        files = sorted(TESTS.rglob("test_*.py"))
        chosen = choose_part(files, read_durations(), config.option.part)
        config.pluginmanager.register(Part(chosen))


def read_durations(path=DURATIONS):
    """`{file: seconds}`."""
    rows = [line.split() for line in path.read_text().splitlines()] if path.exists() else []
    return {TESTS / name: float(seconds) for seconds, name in rows}


def write_durations(seconds, path):
    """Updates the rows of the files that ran; those of files that are gone are removed."""
    merged = {**read_durations(path), **seconds}
    rows = [
        f"{merged[file]:8.1f} {file.relative_to(TESTS).as_posix()}\n"
        for file in sorted(merged)
        if file.exists()
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(rows))


def choose_part(files, durations, part):
    """Those of a sorted list that are in the part `"I/N"`.

    Neighbors stay together, for they share fixtures. A file without a row counts as the mean.
    """
    index, _, count = part.partition("/")
    if not (index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count)):
        raise pytest.UsageError(f"--part expects I/N, with I from 1 to N. Received: {part}")
    known = [durations[file] for file in files if file in durations]
    mean = sum(known) / len(known) if known else 1.0
    weights = [durations.get(file, mean) for file in files]
    chosen, before = [], 0.0
    for file, weight in zip(files, weights, strict=True):
        middle = (before + weight / 2) / sum(weights)
        if int(middle * int(count)) == int(index) - 1:
            chosen.append(file)
        before += weight
    return chosen


class Part:
    """Leaves the files of other parts alone: they are not even imported."""

    def __init__(self, files):
        self._files = set(files)

    def pytest_ignore_collect(self, collection_path):
        if collection_path.match("test_*.py") and collection_path not in self._files:
            return True
        return None


class Worker:
    """In a worker of pytest-xdist, which gets whole files: the longest come first.

    What a file leaves behind, traced graphs above all, stays for as long as the process lives. The
    garbage collector need not walk it again and again: after each file it is frozen. Full
    collections took 25 of the 168 seconds of a worker with a million objects, and 8 since.
    """

    def __init__(self, config):
        self._config = config

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items):
        durations = read_durations()
        items.sort(key=lambda item: -durations.get(item.path, float("inf")))

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_teardown(self, item, nextitem):
        yield
        if nextitem is None or nextitem.path != item.path:
            gc.collect()
            gc.freeze()

    def pytest_sessionfinish(self):
        self._config.workeroutput["memory"] = peak_memory()


class Controller:
    """Adds up what the files took, and looks at the memory of the processes."""

    def __init__(self, config):
        self._config = config
        self._seconds = collections.Counter()
        self._memory = {}

    def pytest_runtest_logreport(self, report):
        file = self._config.rootpath / report.nodeid.partition("::")[0]
        self._seconds[file] += report.duration

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node):
        if hasattr(node, "workeroutput"):  # not where it crashed
            self._memory[node.gateway.id] = node.workeroutput["memory"]

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session):
        if self._config.option.store_durations:
            path = self._config.invocation_params.dir / self._config.option.store_durations
            write_durations(self._seconds, path)
        if self._config.option.part and max(self._memory.values(), default=0) > MEMORY_LIMIT:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter):
        for name, used in self._memory.items():
            text = f"{name}: {used / 2**30:.1f} GB of memory at its peak"
            if used > MEMORY_LIMIT:
                text += f", more than {MEMORY_LIMIT / 2**30:.0f}: `make test` needs more parts"
            terminalreporter.write_line(text)


def peak_memory():
    """Bytes that this process has had resident at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
