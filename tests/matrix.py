"""Which items of a matrix of cases and modes a run takes.

A step that is traced costs two to four times an eager one and computes the same for most cases. So
the quick matrix, which is the default, takes of each test

- every case in its cheapest mode, which is eager where the test has that;
- XLA for a covering array: so many cases that each value of each parameter is among them;
- one case of a file in graph mode, because XLA traces the same graph; of a test that has no XLA
  one case of its own;
- a random tenth of what is left, drawn with the hash of the commit: over commits, all of it.

Files that take long and seldom break, such as those that start many processes, take turns: with
`pytestmark = pytest.mark.in_turn(4)` a commit runs one in four of them, drawn by its hash.

`--matrix=full` takes everything. Nothing else is asked of a test than to take its modes from here:

    @pytest.mark.parametrize("mode", linear.MODES)  # or matrix.MODES, matrix.modes("graph", "xla")
    @pytest.mark.parametrize("kind", KINDS)
    def test_a_step(kind, mode): ...

A parameter whose values are `Mode` makes the matrix, whatever its name. `@pytest.mark.every_mode`
on a test keeps all of its items in every run: for the one test that proves that the modes of a
feature agree. Items and files that are named in the command line run in any case.
"""

import collections
import dataclasses
import hashlib
import os

import pytest

from tools.commit import seed_of_commit

# From cheap to dear.
LEVELS = ("eager", "graph", "xla")
SHARE = 10  # One in so many of the items that nothing else chooses.


class Mode(str):
    """The name of a way to run.

    Args:
        name: Unless `level` is given, one of "eager", "graph" and "xla".
        level: One of them: what it costs.
        shares_tracing: Whether tests share what is traced and compiled. The items of a file in such
            a mode are drawn together, for the first of them pays for all.
    """

    def __new__(cls, name, level=None, shares_tracing=False):
        self = super().__new__(cls, name)
        self.level = name if level is None else level
        self.shares_tracing = shares_tracing
        if self.level not in LEVELS:
            raise ValueError(f"Expected `level` to be one of {LEVELS}. Received: {self.level!r}")
        return self


def modes(*names):
    """A `Mode` for each of "eager", "graph", "xla"."""
    return [Mode(name) for name in names]


MODES = modes(*LEVELS)


@dataclasses.dataclass(frozen=True)
class Item:
    """What decides on an item: its name and test, its level, its place on each other axis."""

    name: str
    test: str
    level: str
    case: tuple
    draw: str  # Items of one draw are in the random tenth together.


def quick(items, seed):
    """The names of those `Item`s of one file, in the order of collection, that are taken."""
    taken, graphs = set(), []
    for of_test in _by_test(items):
        taken |= _cheapest(of_test)
        graph, xla = ([i for i in of_test if i.level == level] for level in ("graph", "xla"))
        taken |= _covering(xla, taken)
        if xla:
            graphs += graph
        else:
            taken |= _once(graph, taken)
    taken |= _once(graphs, taken)
    rest = [item for item in items if item not in taken]
    taken |= {item for item in rest if _hash(f"{seed} {item.draw}") % SHARE == 0}
    return {item.name for item in taken}


def _by_test(items):
    tests = collections.defaultdict(list)
    for item in items:
        tests[item.test].append(item)
    return tests.values()


def _cheapest(items):
    """Of each case the items of the lowest level that it has."""
    lowest = {}
    for item in items:
        level = LEVELS.index(item.level)
        lowest[item.case] = min(level, lowest.get(item.case, level))
    return {item for item in items if LEVELS.index(item.level) == lowest[item.case]}


def _once(candidates, taken):
    return set() if taken.intersection(candidates) else set(candidates[:1])


def _covering(candidates, taken):
    """Greedy: the first candidate that brings most values which no item of the level has yet."""
    chosen = set()
    missing = {value for item in candidates for value in _values(item)}
    for item in taken.intersection(candidates):
        missing -= _values(item)
    while missing:
        best = max(candidates, key=lambda item: len(missing & _values(item)))
        chosen.add(best)
        missing -= _values(best)
    return chosen


def _values(item):
    """The level is a value too: a test without other axes has one item with XLA."""
    return {*item.case, ("level", item.level)}


def _hash(text):
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def waits(file, turns, seed):
    """Whether it is not the turn of a file, by its path from the root of the repository."""
    return _hash(f"{seed} {file}") % turns != 0


# The hooks, which tests/conftest.py hands to pytest.


@dataclasses.dataclass
class _Run:
    """The matrix of this run, and how many items of matrices it took."""

    seed: str | None  # None: everything
    taken: int = 0
    of: int = 0
    waiting: tuple = ()  # the files whose turn it is not

    def __str__(self):
        if self.seed is None:
            return "matrix of modes: full"
        return (
            f"matrix of modes: quick, and a tenth of the rest by seed {self.seed} "
            f"(this again: --matrix-seed={self.seed}; everything: --matrix=full)"
        )


_RUN = pytest.StashKey[_Run]()


def pytest_addoption(parser):
    group = parser.getgroup("matrix of modes")
    group.addoption(
        "--matrix",
        choices=("quick", "full"),
        help="which items to run of tests with modes (default: KERAS_KD_MATRIX, else quick)",
    )
    group.addoption(
        "--matrix-seed",
        help="draws the tenth (default: KERAS_KD_MATRIX_SEED, else the hash of the commit)",
    )


def pytest_configure(config):
    env = os.environ.get
    matrix = config.getoption("matrix") or env("KERAS_KD_MATRIX") or "quick"
    if matrix not in ("quick", "full"):
        raise pytest.UsageError(
            f"Expected KERAS_KD_MATRIX to be quick or full. Received: KERAS_KD_MATRIX={matrix}"
        )
    if hasattr(config, "workerinput"):  # a worker of pytest-xdist
        seed = config.workerinput["matrix_seed"]
    elif matrix == "full":
        seed = None
    else:
        seed = config.getoption("matrix_seed") or env("KERAS_KD_MATRIX_SEED") or seed_of_commit()
    config.stash[_RUN] = _Run(seed)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node):
    """Workers must collect the same items, also where a commit is made meanwhile."""
    node.workerinput["matrix_seed"] = node.config.stash[_RUN].seed


def pytest_report_header(config):
    return str(config.stash[_RUN])


@pytest.hookimpl(tryfirst=True)  # before -k and -m, so that they choose from the same items
def pytest_collection_modifyitems(config, items):
    run = config.stash[_RUN]
    if run.seed is None or any("[" in argument for argument in config.args):
        return
    files = collections.defaultdict(list)
    for item in items:
        described = describe(item)
        if described:
            files[described.test.partition("::")[0]].append(described)
    matrix = {item.name for described in files.values() for item in described}
    taken = {name for described in files.values() for name in quick(described, run.seed)}
    run.taken, run.of = len(taken), len(matrix)
    waiting = {item for item in items if _is_waiting(item, run.seed)}
    run.waiting = tuple(sorted({item.nodeid.partition("::")[0] for item in waiting}))
    left_out = [item for item in items if item in waiting or item.nodeid in matrix - taken]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in set(left_out)]
    if hasattr(config, "workeroutput"):
        config.workeroutput["matrix"] = run.taken, run.of, run.waiting


def _is_waiting(item, seed):
    marker = item.get_closest_marker("in_turn")
    if marker is None:
        return False
    here = item.config.invocation_params.dir
    named = {(here / argument.partition("::")[0]).resolve() for argument in item.config.args}
    if item.path in named:
        return False
    return waits(item.nodeid.partition("::")[0], marker.args[0], seed)


def describe(item):
    """The `Item` of a pytest item; None if no parameter of it is a mode."""
    callspec = getattr(item, "callspec", None)
    if callspec is None or item.get_closest_marker("every_mode"):
        return None
    axes = [name for name, value in callspec.params.items() if isinstance(value, Mode)]
    if not axes:
        return None
    if len(axes) > 1:
        raise pytest.UsageError(f"{item.nodeid} takes several modes, {axes}; expected one.")
    (axis,) = axes
    # Names that are parametrized together are one axis; a fixture's is one of its own.
    together = {name: (name,) for name in callspec.params}
    for mark in item.iter_markers("parametrize"):
        names = mark.args[0] if mark.args else mark.kwargs["argnames"]
        names = tuple(names.replace(",", " ").split() if isinstance(names, str) else names)
        together.update(dict.fromkeys(names, names))
    case = []
    for names in sorted(set(together.values())):
        names = [name for name in names if name != axis]
        # The objects of the list of parameters, which all items share.
        case.append((*names, *(id(callspec.params[name]) for name in names)))
    test, mode = item.nodeid.partition("[")[0], callspec.params[axis]
    draw = f"{test.partition('::')[0]} {mode}" if mode.shares_tracing else item.nodeid
    return Item(item.nodeid, test, mode.level, tuple(case), draw)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node):
    run = node.config.stash[_RUN]
    before = run.taken, run.of, run.waiting
    run.taken, run.of, run.waiting = getattr(node, "workeroutput", {}).get("matrix", before)


def pytest_terminal_summary(terminalreporter, config):
    run = config.stash[_RUN]
    if run.of:
        terminalreporter.write_line(f"{run}: {run.taken} of {run.of} items")
    if run.waiting:
        terminalreporter.write_line(f"not their turn: {', '.join(run.waiting)}")
