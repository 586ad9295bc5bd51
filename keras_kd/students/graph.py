"""`Graph`: a functional or sequential model as calls and tensors, read from its configuration.

Layers can be taken out of it and their configurations changed; `revived_model` then makes a model
of it.
"""

from typing import Any, NamedTuple

import keras

from keras_kd.models import paths


class Ref(NamedTuple):
    """A tensor, by the layer, its call and the output of that call that made it."""

    layer: str
    call: int
    output: int


class Call(NamedTuple):
    """A layer's or an operation's call, its arguments as the configuration has them."""

    layer: str
    number: int
    arguments: Any

    @property
    def refs(self) -> list[Ref]:
        """The tensors it reads, in the order of its arguments."""
        return refs_in(self.arguments)


class Graph:
    """What a model computes; layers can be taken out of it and their configurations changed.

    The model is only read. Nested functional and sequential models are graphs of their own, in
    `nested`; other layers are not looked into.

    Args:
        model: A functional or a built sequential model.
        path: Its path in the model around it, with a slash at the end.
    """

    def __init__(self, model: keras.Model, path: str = "") -> None:
        self.model, self.path = model, path
        # Keras reveals a sequential model's tensors only in a functional model of its layers.
        view = model
        if isinstance(model, keras.Sequential):
            view = keras.Model(model.inputs, model.outputs, name=model.name)
        config = view.get_config()
        self.entries = {entry["name"]: entry for entry in config["layers"]}
        self.operations = {operation.name: operation for operation in view.operations}
        self.nested = {
            name: Graph(operation, f"{path}{name}/")
            for name, operation in self.operations.items()
            if is_readable(operation)
        }
        self.input_structure = config["input_layers"]
        self.inputs = [Ref(*leaf) for leaf in _leaves(self.input_structure)]
        self.outputs = [self._output(leaf) for leaf in _leaves(config["output_layers"])]
        self._config = config
        self._output_shapes = [tuple(tensor.shape) for tensor in view.outputs]

    def _output(self, leaf):
        # Keras counts a nested functional model's calls from 1 here, and from 0 elsewhere.
        name, call, output = leaf
        return Ref(name, call - _is_functional(self.operations[name]), output)

    def calls(self) -> list[Call]:
        """All calls, each behind those whose tensors it reads."""
        waiting = [
            (Call(name, number, arguments), {ref[:2] for ref in refs_in(arguments)})
            for name, entry in self.entries.items()
            for number, arguments in enumerate(entry["inbound_nodes"] or [[]])
        ]
        done: set[tuple] = set()
        order = []
        while waiting:
            # Keras lists them by depth, so that one round is usually enough.
            later = []
            for call, needed in waiting:
                if needed <= done:
                    done.add(call[:2])
                    order.append(call)
                else:
                    later.append((call, needed))
            waiting = later
        return order

    def output_tensors(self) -> list[tuple]:
        """`(ref, shape)` of each output."""
        return list(zip(self.outputs, self._output_shapes, strict=True))

    def remove(self, layers: Any, entry: Any, end: Any) -> None:
        """Takes layers out; what read tensor `end` reads `entry` instead."""
        for name in layers:
            del self.entries[name]
        for remaining in self.entries.values():
            for tensor in tensors_in(remaining["inbound_nodes"]):
                if ref_of(tensor) == end:
                    tensor["config"]["keras_history"] = list(entry)
        self.outputs = [entry if ref == end else ref for ref in self.outputs]

    def config(self) -> dict[str, Any]:
        """The model's configuration, without the layers that were taken out."""
        if isinstance(self.model, keras.Sequential):
            config = self.model.get_config()
            config.pop("build_input_shape", None)
            names = [layer["config"]["name"] for layer in config["layers"]]
            config["layers"] = [self._entry(name) for name in names if name in self.entries]
            return config
        outputs = iter(self.outputs)
        return {
            **self._config,
            "layers": [self._entry(name) for name in self.entries],
            "output_layers": _map_leaves(
                self._config["output_layers"], lambda _: self._leaf(next(outputs))
            ),
        }

    def _entry(self, name):
        entry = self.entries[name]
        return {**entry, "config": self.nested[name].config()} if name in self.nested else entry

    def _leaf(self, ref):
        name, call, output = ref
        return [name, call + _is_functional(self.operations[name]), output]


def is_readable(operation: Any) -> bool:
    """Whether an operation is a model whose configuration lists its layers and tensors."""
    if isinstance(operation, keras.Sequential):
        return operation.built
    return _is_functional(operation) and "input_layers" in operation.get_config()


def graph_of(teacher: Any) -> Graph:
    """The `Graph` of a teacher, or an error that names what is expected."""
    if not isinstance(teacher, keras.Model):
        raise ValueError(
            "Invalid value for argument `teacher`. Expected a functional or sequential "
            f"keras.Model. Received: teacher={teacher!r} of type {type(teacher).__name__}"
        )
    if isinstance(teacher, keras.Sequential) and not teacher.built:
        raise ValueError(
            f"Sequential model {teacher.name!r} does not know the shape of its inputs. Give it a "
            "keras.Input as its first layer, or call it on data."
        )
    if not is_readable(teacher):
        raise ValueError(
            f"Model {teacher.name!r}, a {type(teacher).__name__}, is neither functional nor "
            "sequential: its configuration does not list its layers. If it was made of "
            "keras.Input and layer calls, pass keras.Model(model.inputs, model.outputs); else "
            "build the student yourself."
        )
    graph = Graph(teacher)
    _check_called_in_one_model(graph, {})
    return graph


def _check_called_in_one_model(graph, found):
    for name, operation in graph.operations.items():
        path = graph.path + name
        if not getattr(operation, "weights", None):
            continue
        if id(operation) in found:
            raise ValueError(
                f"Layer {path!r} is also {found[id(operation)]!r}: a layer shared between a model "
                "and one nested in it would become two. Call it in one of them only."
            )
        found[id(operation)] = path
    for inner in graph.nested.values():
        _check_called_in_one_model(inner, found)


def tensors_in(raw: Any) -> Any:
    """The dicts that stand for tensors in serialized arguments, in order."""
    if isinstance(raw, dict):
        if raw.get("class_name") == "__keras_tensor__":
            yield raw
        else:
            for value in raw.values():
                yield from tensors_in(value)
    elif isinstance(raw, (list, tuple)):
        for value in raw:
            yield from tensors_in(value)


def refs_in(raw: Any) -> list[Ref]:
    """The `Ref`s of those."""
    return [ref_of(tensor) for tensor in tensors_in(raw)]


def ref_of(tensor: Any) -> Ref:
    """The `Ref` of a tensor of serialized arguments."""
    return Ref(*tensor["config"]["keras_history"])


def revived(raw: Any, tensor: Any) -> Any:
    """Serialized arguments as Python values, with `tensor(ref, shape)` for tensors."""
    if isinstance(raw, dict):
        if raw.get("class_name") == "__keras_tensor__":
            return tensor(ref_of(raw), tuple(raw["config"]["shape"]))
        if "class_name" in raw:
            return keras.saving.deserialize_keras_object(raw)
        return {key: revived(value, tensor) for key, value in raw.items()}
    if isinstance(raw, (list, tuple)):
        return type(raw)(revived(value, tensor) for value in raw)
    return raw


def _is_functional(operation):
    return isinstance(operation, keras.Model) and getattr(operation, "operations", None) is not None


def _is_leaf(structure):
    return isinstance(structure, list) and len(structure) == 3 and isinstance(structure[0], str)


def _leaves(structure):
    found: list = []
    _map_leaves(structure, found.append)
    return found


def _map_leaves(structure, function):
    """Of tensors in the order in which Keras flattens them: dicts by their sorted keys."""
    if _is_leaf(structure):
        return function(structure)
    if isinstance(structure, dict):
        mapped = {key: _map_leaves(structure[key], function) for key in sorted(structure)}
        return {key: mapped[key] for key in structure}
    return type(structure)(_map_leaves(value, function) for value in structure)


# Configurations: editing those of a teacher's layers, and making a student of them.


def edit(graph: Any, path: str, edits: Any, choice: Any) -> None:
    """Writes the student's sizes into the configuration of a layer.

    Args:
        graph: The teacher's `Graph`.
        path: The layer's path.
        edits: `{keys: axis}`.
        choice: The `Choice` of channels.
    """
    *above, name = path.removeprefix(graph.path).split("/")
    for nested in above:
        graph = graph.nested[nested]
    for keys, axis in edits.items():
        if choice.narrows(axis):
            _put(graph.entries[name]["config"], keys, choice.size(axis))


def _put(config, keys, value):
    for key in keys[:-1]:
        if isinstance(config[key], tuple):
            config[key] = list(config[key])
        config = config[key]
    config[keys[-1]] = value


def revived_model(graph: Any, name: str) -> keras.Model:
    """A new model of a graph's configuration."""
    kind = type(graph.model)
    serialized = {
        "module": kind.__module__,
        "class_name": kind.__name__,
        "config": {**_student_config(graph.config()), "name": name},
        "registered_name": keras.saving.get_registered_name(kind),
    }
    # Only files may bring unsafe code; this model comes from this very process.
    return keras.saving.deserialize_keras_object(
        serialized, custom_objects=_custom_classes(graph.model), safe_mode=False
    )


def _student_config(value):
    """A copy in which everything is trainable, and nothing records the shapes it was built for."""
    if isinstance(value, dict):
        copied = {
            key: _student_config(inner)
            for key, inner in value.items()
            if key not in ("build_config", "compile_config")
        }
        return {**copied, "trainable": True} if "trainable" in copied else copied
    if isinstance(value, (list, tuple)):
        return type(value)(_student_config(inner) for inner in value)
    return value


def _custom_classes(model):
    """Classes that are not Keras' own and may not be registered."""
    found = [type(model), *(type(layer) for _, _, layer in paths.walk(model))]
    return {
        keras.saving.get_registered_name(kind): kind
        for kind in found
        if kind.__module__.split(".")[0] != "keras" or kind is type(model)
    }
