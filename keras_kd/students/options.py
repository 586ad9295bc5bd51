"""What `shrink` and `plan` were called with, checked as far as no model is needed."""

import dataclasses
from typing import Any

import numpy as np

from keras_kd._utils import validation
from keras_kd._utils.validation import invalid
from keras_kd.students.budgets import Budget, checked_budget
from keras_kd.students.vocabulary import VocabularyMap

COPIES = ("slice", "average", None)
RANKS = ("position", "magnitude", "activation")


@dataclasses.dataclass(frozen=True)
class Options:
    """The arguments of `shrink`; see there."""

    depth: float | None = None
    width: float | None = None
    copy: str | None = "slice"
    keep: Any = ()
    layers: Any = None
    rank: str = "position"
    data: Any = None
    vocabulary: Any = None
    lora_rank: int | None = None
    budget: Budget | None = None
    shows_costs: bool = False

    def share(self, name: str) -> float:
        """`depth` or `width`, where no budget decides it."""
        value = getattr(self, name)
        return 1.0 if value is None else value


def checked(teacher: Any, is_hub: bool, given: dict[str, Any]) -> Options:
    """The `Options` of a call.

    Args:
        teacher: The teacher.
        is_hub: Whether it is a model of KerasHub.
        given: The arguments.

    Raises:
        ValueError: They are wrong, or contradict each other.
    """
    options = Options(**{**given, "budget": checked_budget(given["budget"])})
    _check_share("depth", options.depth)
    _check_share("width", options.width)
    if options.copy not in COPIES:
        raise invalid("copy", f"one of {COPIES}", repr(options.copy))
    validation.one_of("rank", options.rank, RANKS)
    validation.integer("lora_rank", options.lora_rank, 1, optional=True)
    if options.layers is not None and options.share("depth") < 1:
        raise ValueError(
            f"Pass `layers` or `depth`, not both. Received: layers={options.layers!r}, "
            f"depth={options.depth}."
        )
    if options.copy == "average" and options.rank != "position":
        raise ValueError(
            "copy='average' makes one channel of all, so none are ranked. Received: "
            f"copy='average', rank={options.rank!r}. Pass copy='slice', or rank='position'."
        )
    _check_budget(options)
    _check_data(options)
    vocabulary = options.vocabulary
    if vocabulary is not None and not isinstance(vocabulary, VocabularyMap):
        raise invalid("vocabulary", "a keras_kd.students.VocabularyMap, or None", repr(vocabulary))
    _check_kind(teacher, is_hub, options)
    is_new = options.rank != "position" and not (options.rank == "activation" and is_hub)
    return dataclasses.replace(options, shows_costs=is_new or options.budget is not None)


def _check_share(name, value):
    is_number = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
    if value is not None and not (is_number and 0 < value <= 1):
        raise invalid(name, "a number above 0 and at most 1", repr(value))


def _check_budget(options):
    if options.budget is None:
        return
    depths = {"depth": options.depth, "layers": options.layers}
    fixed = {key: value for key, value in depths.items() if value is not None}
    if fixed and options.width is not None:
        key, value = next(iter(fixed.items()))
        raise ValueError(
            f"`budget` has nothing to choose where both depth and width are given. Received: "
            f"{key}={value!r}, width={options.width!r}. Leave one of them out, or the budget."
        )
    if options.lora_rank is not None:
        raise ValueError(
            f"`budget` counts no adapters. Received: lora_rank={options.lora_rank}. Shrink with "
            "the budget first, then call enable_lora on the student's backbone."
        )


def _check_data(options):
    if options.rank == "activation":
        if options.data is None:
            raise ValueError(
                "rank='activation' ranks by `data`. Received: rank='activation', data=None. Pass "
                "some hundred samples, data=(inputs, labels) or a batched tf.data.Dataset, or rank="
                "'magnitude', which needs none."
            )
        return
    if options.data is not None and not (options.budget and options.budget.reads_inputs):
        raise ValueError(
            "`data` is read by rank='activation', and by a budget of 'macs' or 'latency_ms' for "
            f"the shapes of a sample; by nothing else. Received: rank={options.rank!r}, "
            f"data={validation.briefly(options.data)}. Leave `data` out, or pass rank='activation'."
        )


def _check_kind(teacher, is_hub, options):
    if not is_hub:
        for name in ("vocabulary", "lora_rank"):
            if getattr(options, name) is not None:
                raise not_hub(name, teacher)
    elif not isinstance(options.keep, (tuple, list)) or len(options.keep):
        raise invalid(
            "keep",
            "no names for a model of KerasHub, whose layers all follow its configuration. Name "
            "blocks with `layers`",
            repr(options.keep),
        )


def not_hub(what: str, model: Any) -> ValueError:
    """The error for what models without KerasHub cannot have."""
    return ValueError(
        f"{what} works for the backbones and tasks of KerasHub, whose configuration names the "
        f"vocabulary and the heads. Received: {model!r} of type {type(model).__name__}"
    )
