"""Captures the outputs of inner layers in the one forward pass of a model.

A tapped layer's `call` is wrapped while the model runs, so the output is the very tensor that the
forward pass made: no second pass, no extractor model, any kind of model (nested, subclassed).
"""

import contextlib
import difflib
import threading

import keras


def find_layer(model, path):
    """Finds a layer by name, or by a path of names through nested layers and models.

    Args:
        model: A Keras model.
        path: `"dense_1"`, or `"backbone/block3"`. A plain name is looked for in the model itself
            and, if it is not there, in the models nested in it.

    Returns:
        The layer.

    Raises:
        ValueError: There is no such layer, or several nested ones; close names are given.
    """
    found = dict(walk(model))
    if path in found:
        return found[path]
    ends = [name for name in found if name.endswith("/" + path)]
    if len(ends) == 1:
        return found[ends[0]]
    if ends:
        raise ValueError(
            f"Several layers of model {model.name!r} are called {path!r}: {ends}. Give the path."
        )
    close = difflib.get_close_matches(path, found, n=5, cutoff=0.4) or list(found)[:20]
    raise ValueError(
        f"Model {model.name!r} has no layer {path!r}. Close to it: {close}. Layers of nested "
        "models are named by their path, such as 'backbone/block3'."
    )


def walk(layer, prefix=""):
    """Yields `(path, layer)` of every layer below `layer`."""
    for child in _children(layer):
        path = prefix + child.name
        yield path, child
        yield from walk(child, path + "/")


def _children(layer):
    if isinstance(layer, keras.Model):
        return [child for child in layer.layers if isinstance(child, keras.layers.Layer)]
    inner = [getattr(layer, name, None) for name in ("layer", "forward_layer", "backward_layer")]
    return [child for child in inner if isinstance(child, keras.layers.Layer)]


class Taps:
    """The layers of one model that are listened to.

    Args:
        model: A Keras model.
        paths: Names or paths of its layers.
    """

    def __init__(self, model, paths):
        self._model = model
        self._layers = {path: find_layer(model, path) for path in dict.fromkeys(paths)}

    def run(self, forward):
        """Runs `forward()` and returns its result with the tapped outputs, `{path: output}`."""
        if not all(layer.built for layer in self._layers.values()):
            forward()  # a model that builds itself in its first pass may call layers twice in it
        outputs = {path: [] for path in self._layers}
        with contextlib.ExitStack() as stack:
            for path, layer in self._layers.items():
                stack.enter_context(_listening(layer, outputs[path]))
            result = forward()
        return result, {path: self._single(path, calls) for path, calls in outputs.items()}

    def _single(self, path, calls):
        if len(calls) != 1:
            raise ValueError(
                f"Layer {path!r} of model {self._model.name!r} was called {len(calls)} times in "
                "one forward pass; a tap needs exactly one. Tap a layer that is not shared."
            )
        return calls[0]


@contextlib.contextmanager
def _listening(layer, calls):
    thread = threading.get_ident()
    before, call = layer.__dict__.get("call"), layer.call

    def listen(*args, **kwargs):
        result = call(*args, **kwargs)
        # Replicas of a tf.distribute strategy run the same layers in threads of their own.
        if threading.get_ident() == thread:
            calls.append(result)
        return result

    listen.before, listen.ended = before, False
    # Past Keras' attribute tracking: nothing of the layer changes that outlives the pass.
    object.__setattr__(layer, "call", listen)
    try:
        yield
    finally:
        listen.ended = True
        _remove_ended(layer)


def _remove_ended(layer):
    # Replicas that wait for each other inside of the pass (synchronised batch normalisation) may
    # end in the order in which they began: a listener below one that goes on stays until then.
    call = layer.__dict__["call"]
    while getattr(call, "ended", False):
        call = call.before
    if call is None:
        object.__delattr__(layer, "call")
    else:
        object.__setattr__(layer, "call", call)
