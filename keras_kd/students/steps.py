"""`Step`: what lies between two tensors, and a signature that tells equal ones."""

import json

from keras_kd.students.graph import Ref, ref_of


class Step:
    """The region between a tensor and the next one that every path from it passes.

    Args:
        graph: The `Graph`.
        entry: `Ref` of the tensor that it reads, or `None` where the region cannot be left out.
        calls: Its calls, each behind those that it reads; the last one makes its end.
    """

    def __init__(self, graph, entry, calls):
        self.entry = entry
        self.end = Ref(*calls[-1][:2], 0)
        self.layers = list(dict.fromkeys(call.layer for call in calls))
        operations = [graph.operations[name] for name in self.layers]
        self.has_weights = any(getattr(operation, "weights", None) for operation in operations)
        # What cannot be left out equals nothing.
        self.signature = object() if entry is None else _signature(graph, entry, calls)


def _signature(graph, entry, calls):
    """A text that is equal for regions of equal structure: all but names, seeds and dropout."""
    made = {call[:2]: call for call in calls}
    numbers, lines, waiting = {}, [], [calls[-1]]
    while waiting:
        call = waiting[-1]
        before = [ref[:2] for ref in call.refs if ref[:2] in made and ref[:2] not in numbers]
        if before:
            waiting.append(made[before[0]])
            continue
        waiting.pop()
        arguments = _replaced(call.arguments, lambda ref: _relative(ref, entry, numbers))
        lines.append([_structure(graph.entries[call.layer]), arguments])
        numbers[call[:2]] = len(numbers)
    return json.dumps(lines, sort_keys=True, default=repr)


def _relative(ref, entry, numbers):
    if ref == entry:
        return "entry"
    return [numbers[ref[:2]], ref.output] if ref[:2] in numbers else ["outside", *ref]


# Of equal blocks these differ, or say only how the layer was built.
_NOT_STRUCTURE = ("name", "seed", "trainable", "build_config", "compile_config")


def _structure(entry):
    """A layer's class and configuration; layers of nested models by their place, not by name."""
    kept = ("module", "class_name", "registered_name", "config")
    return _without_names({key: entry.get(key) for key in kept}, {})


def _without_names(value, places):
    if isinstance(value, dict):
        if "layers" in value and "input_layers" in value:
            places = {layer["name"]: i for i, layer in enumerate(value["layers"])}
        if str(value.get("class_name")).endswith("Dropout"):
            # Stochastic depth: its rate rises from block to block, as in EfficientNet.
            value = {**value, "config": {**value["config"], "rate": None}}
        return {
            key: _without_names(inner, places)
            for key, inner in value.items()
            if key not in _NOT_STRUCTURE
        }
    if isinstance(value, (list, tuple)):
        if len(value) == 3 and isinstance(value[0], str) and value[0] in places:
            return [places[value[0]], *value[1:]]  # a tensor of a nested model
        return [_without_names(inner, places) for inner in value]
    return value


def _replaced(raw, name_of):
    """Serialized arguments in which tensors are called by `name_of(ref)`; shapes stay."""
    if isinstance(raw, dict):
        if raw.get("class_name") == "__keras_tensor__":
            return [name_of(ref_of(raw)), raw["config"]["shape"], raw["config"]["dtype"]]
        return {key: _replaced(value, name_of) for key, value in raw.items()}
    if isinstance(raw, (list, tuple)):
        return [_replaced(value, name_of) for value in raw]
    return raw
