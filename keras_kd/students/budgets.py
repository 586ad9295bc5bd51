"""`budget`: what a student may cost, what a model costs, and how close a student comes to it."""

import collections
import contextlib
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from keras_kd._utils import validation
from keras_kd._utils.validation import invalid
from keras_kd.models import paths
from keras_kd.runtimes import keras_graph, program
from keras_kd.taps import recorder

BYTES, MACS, LATENCY = "bytes", "macs", "latency_ms"
UNITS = {BYTES: "bytes", MACS: "multiply-adds", LATENCY: "ms"}
# What a plan shows of them, for each layer or block.
COLUMNS = (
    "teacher_bytes",
    "student_bytes",
    "teacher_macs",
    "student_macs",
    "importance_lost",
)
# A student that reaches this share of its tightest limit needs no more channels.
CLOSE = 0.95
ENOUGH = 0.985


class Cost(NamedTuple):
    """What a model costs, as far as it is known before it is made."""

    bytes: float
    macs: float


class Budget(NamedTuple):
    """Limits; `None` where there is none."""

    bytes: float | None = None
    macs: float | None = None
    latency_ms: float | None = None

    def limits(self) -> dict[str, float]:
        """`{key: limit}` of those that were set."""
        return {key: value for key, value in self._asdict().items() if value is not None}

    def fill(self, cost: Cost) -> float:
        """The share that a cost is of its tightest limit; above 1 it does not fit."""
        pairs = ((cost.bytes, self.bytes), (cost.macs, self.macs))
        shares = [value / limit for value, limit in pairs if limit is not None]
        # Rounded: a sum of products that is the limit may be a bit more in floating point.
        return round(max(shares, default=0.0), 9)

    @property
    def reads_inputs(self) -> bool:
        """Whether a sample has to be known."""
        return self.macs is not None or self.latency_ms is not None


def checked_budget(value: Any) -> Budget | None:
    """The `Budget` of a dict of limits, or `None`."""
    if value is None:
        return None
    expected = f"a dict with some of the keys {tuple(UNITS)}"
    if not isinstance(value, dict) or not value or not set(value) <= set(UNITS):
        raise invalid("budget", expected, repr(value))
    limits = {key: validation.positive(f"budget[{key!r}]", limit) for key, limit in value.items()}
    return Budget(**limits)


def check_range(budget: Budget, name: str, least: dict[str, float], most: dict[str, float]) -> None:
    """Raises for limits that nothing meets, or that all meet.

    Args:
        budget: The `Budget`.
        name: Of the teacher.
        least: `{key: what the smallest student costs}`.
        most: `{key: what the teacher, or the largest student, costs}`.
    """
    for key, limit in budget.limits().items():
        low, high = least[key], most[key]
        if limit < low:
            raise ValueError(
                f"No student of {name!r} fits a budget of {shown(key, limit)}: the smallest one "
                f"takes {shown(key, low)}. Pass budget={{{key!r}: ...}} of at least that, or fix "
                "less of it (`keep`, `depth`, `width`)."
            )
        if limit > high:
            raise ValueError(
                f"A budget of {shown(key, limit)} is above the largest student of {name!r} (the "
                f"teacher, where depth and width are free): {shown(key, high)}. Pass "
                f"budget={{{key!r}: ...}} of at most that, or leave {key!r} out."
            )


def shown(key: str, value: float) -> str:
    """A cost with its unit."""
    number = f"{value:.3g}" if key == LATENCY else f"{math.ceil(value):,}"
    return f"{number} {UNITS[key]}"


def item_bytes(weight: Any) -> int:
    """Bytes of one number of a weight."""
    return tf.as_dtype(weight.dtype).size


def bytes_of(model: Any) -> int:
    """Bytes of a model's weights in their own types."""
    return sum(math.prod(weight.shape) * item_bytes(weight) for weight in model.weights)


def macs_of(model: Any, sample: Any) -> int:
    """Multiply-adds of one sample, as `keras_kd.measure` counts them."""
    return program.count(keras_graph.read_keras(model, sample))[0]


def lines(teacher: Any, student: Any, sample: Any) -> Iterator[str]:
    """The lines below the table of a plan: what both models cost.

    Args:
        teacher: The teacher.
        student: The student.
        sample: Inputs of one sample, or `None`: multiply-adds are left out.
    """
    yield "bytes: {:,} -> {:,}".format(*map(bytes_of, (teacher, student)))
    if sample is not None:
        counts = (macs_of(model, sample) for model in (teacher, student))
        yield "multiply-adds: {:,} -> {:,}".format(*counts)


def macs_by_layer(model: keras.Model, sample: Any) -> dict[Any, int]:
    """`{id of a layer: its multiply-adds}`, of those that belong to no layer in it.

    Args:
        model: A Keras model.
        sample: Inputs of one sample.

    Returns:
        A dict; `None` is the key of those that no layer makes, such as a product of two tensors.
    """
    owners: dict[str, int] = {}
    graphs: list = []

    def owned(layer):
        def wrap(call):
            def run(*args, **kwargs):
                graph = tf.compat.v1.get_default_graph()
                graphs.append(graph)
                if graph is not graphs[0]:  # the body of a loop, which counts as its layer's
                    return call(*args, **kwargs)
                start = len(graph.get_operations())
                result = call(*args, **kwargs)
                for operation in graph.get_operations()[start:]:
                    owners.setdefault(operation.name, id(layer))
                return result

            return run

        return wrap

    layers = {id(layer): layer for _, _, layer in paths.walk(model)}
    with contextlib.ExitStack() as stack:
        for layer in layers.values():
            stack.enter_context(recorder.wrapped(layer, owned(layer)))
        concrete = keras_graph.trace(model, sample)
    found: collections.Counter = collections.Counter()
    for value, macs in program.count_by_node(keras_graph.program_of(concrete)).items():
        found[owners.get(value.rpartition(":")[0])] += macs
    return dict(found)


def sample_of(model: Any, batches: Any) -> Any:
    """Inputs of one sample, for the count of multiply-adds and for latency.

    Args:
        model: A model whose inputs are known.
        batches: An iterator of batches of inputs, or `None`: zeros of the inputs' shapes.
    """
    if batches is not None:
        return keras.tree.map_structure(lambda x: x[:1], next(iter(batches)))
    shapes = [tuple(x.shape) for x in model.inputs]
    if any(None in shape[1:] for shape in shapes):
        raise ValueError(
            f"The inputs of {model.name!r} have the shapes {shapes}: what a sample costs depends "
            "on the open sizes. Pass data=(inputs, labels) or a tf.data.Dataset; of the first "
            "sample the shapes count."
        )
    inputs = model.inputs[0] if isinstance(model, keras.Sequential) else model.input
    return keras.tree.map_structure(lambda x: tf.zeros((1, *x.shape[1:]), x.dtype), inputs)


# Latency is measured on files, which are made in a room above this one.

_TIMERS: list[Callable[[Any, Any], float]] = []


def register_timer(timer: Callable[[Any, Any], float]) -> None:
    """Sets what times a model.

    Args:
        timer: A function of a model and the inputs of one sample to milliseconds.
    """
    _TIMERS[:] = [timer]


def milliseconds(model: Any, sample: Any) -> float:
    """How long one sample takes in the float `.tflite` file of a model."""
    return _TIMERS[0](model, sample)


# The search for the student that meets all limits.

# Students that are made to correct what was predicted of them, and to be timed.
_ATTEMPTS, _TIMED = 6, 5


class Search(NamedTuple):
    """What `meet` needs of a kind of models.

    Attributes:
        name: Of the teacher.
        least: The smallest student's plan.
        most: The largest one's.
        best: A function from a `Budget` of bytes and multiply-adds to the best plan that meets it
            by what is predicted, or `None`.
        cost: A function from a plan to its predicted `Cost`.
        make: A function from a plan to the student.
        sample: Inputs of one sample, or `None`.
    """

    name: str
    least: Any
    most: Any
    best: Callable[[Budget], Any]
    cost: Callable[[Any], Cost]
    make: Callable[[Any], Any]
    sample: Any


def meet(search: Search, budget: Budget) -> Any:
    """The best plan whose student meets all limits, as measured on the student itself.

    Latency is searched through multiply-adds: of the plans that were timed, the two around the
    limit tell where to look next.
    """
    ends = search.cost(search.least), search.cost(search.most)
    least, most = (dict(zip((BYTES, MACS), end, strict=True)) for end in ends)
    static = budget._replace(latency_ms=None)
    check_range(static, search.name, least, most)
    if budget.latency_ms is None:
        return _met(search, static)
    for end, plan in ((least, search.least), (most, search.most)):
        end[LATENCY] = milliseconds(search.make(plan), search.sample)
    check_range(budget, search.name, least, most)
    low = (least[MACS], least[LATENCY], search.least)
    high = (min(most[MACS], budget.macs or math.inf), most[LATENCY], None)
    wanted = high[0]
    if budget.macs is None:
        wanted = _between(low, high, budget.latency_ms)
    for _ in range(_TIMED):
        aim = static._replace(macs=wanted)
        # Multiply-adds that are only a way to a latency need not be exact.
        plan = search.best(aim) if budget.macs is None else _met(search, aim)
        plan = search.least if plan is None else plan
        time = milliseconds(search.make(plan), search.sample)
        if time <= budget.latency_ms:
            low = (wanted, time, plan)
            is_all = budget.macs is not None and wanted >= budget.macs
            if time >= CLOSE * budget.latency_ms or is_all:
                break
        else:
            high = (wanted, time, None)
        wanted = _between(low, high, budget.latency_ms)
    return low[2]


def _between(low, high, limit):
    """Where multiply-adds are expected to take a bit less than the limit."""
    share = (0.975 * limit - low[1]) / max(high[1] - low[1], 1e-9)
    return low[0] + min(max(share, 0.1), 0.9) * (high[0] - low[0])


def _met(search, budget):
    """The best plan within bytes and multiply-adds."""
    aim, found = budget, None
    for _ in range(_ATTEMPTS):
        plan = search.best(aim)
        if budget.macs is None:
            return search.least if plan is None else plan
        if plan is None:
            break
        predicted = search.cost(plan).macs
        counted = macs_of(search.make(plan), search.sample)
        if counted <= budget.macs:
            found = plan
            true = search.cost(plan)._replace(macs=counted)
            if counted >= 0.99 * predicted or budget.fill(true) >= CLOSE:
                break
        # What no layer's weights explain does not shrink as predicted.
        aim = budget._replace(macs=budget.macs * predicted / counted)
    if found is None:
        counted = macs_of(search.make(search.least), search.sample)
        check_range(
            budget, search.name, {BYTES: 0.0, MACS: counted}, {BYTES: math.inf, MACS: math.inf}
        )
        found = search.least
    return found


def channel_share(shares: list[float]) -> float:
    """The mean share that is kept."""
    return float(np.mean(shares)) if shares else 1.0


def score(blocks: float, channels: float, is_ranked: bool) -> float:
    """How good a plan is among those that fit.

    Args:
        blocks: The share of blocks that stay, by importance.
        channels: The share of channels.
        is_ranked: Whether they are ranked: then what stays counts, the product of both; else that
            depth and width are balanced, so the smaller one.
    """
    return blocks * channels if is_ranked else min(blocks, channels)
