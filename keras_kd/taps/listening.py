"""Listens to inner layers in the one forward pass of a model.

A tapped layer's `call` is wrapped while the model runs, so the output is the very tensor that the
forward pass made: no second pass, no extractor model, any kind of model (nested, subclassed).
"""

import contextlib
import threading

import keras
import tensorflow as tf

from keras_kd.taps import attention, masks, tap, tensors


class Taps:
    """What is listened to in one model.

    Args:
        model: A Keras model.
        layers: A list of names or paths of its layers, or `Tap`s of them.
    """

    def __init__(self, model, layers):
        self._model = model
        self._taps = {}
        for layer in dict.fromkeys(layers):
            tapped, found = _tap_of(layer), tap.resolve(model, layer)[1]
            if tapped.kind.startswith("attention"):
                attention.check(model, tapped.layer, found, tapped.kind)
            self._taps[layer] = tapped, found

    def run(self, forward):
        """Runs `forward()` and returns its result with what was tapped, `{layer: value}`."""
        if not all(getattr(layer, "built", True) for _, layer in self._taps.values()):
            forward()  # a model that builds itself in its first pass may call layers twice in it
        values = {layer: [] for layer in self._taps}
        with contextlib.ExitStack() as stack:
            for key, (tapped, layer) in self._taps.items():
                for listener in listeners(layer, tapped.kind, values[key]):
                    stack.enter_context(listener)
            result = forward()
        return result, {layer: self._one(layer, calls) for layer, calls in values.items()}

    def _one(self, key, calls):
        tapped = self._taps[key][0]
        where = f"Layer {tapped.layer!r} of model {self._model.name!r}"
        if not calls:
            raise ValueError(
                f"{where} was not called in the forward pass, or its {tapped.kind} was not "
                "computed. Tap a layer that the model calls; a layer of a quantized model or one "
                "that only builds others may be none."
            )
        if tapped.call is None and len(calls) > 1:
            listed = ", ".join(f"{i}: {_shapes(value)}" for i, value in enumerate(calls))
            raise ValueError(
                f"{where} was called {len(calls)} times in one forward pass, with the shapes "
                f"{listed}. Say which call is meant: {tap.remedy(tapped, call=0)}."
            )
        try:
            value = calls[0 if tapped.call is None else tapped.call]
        except IndexError:
            raise ValueError(
                f"{where} was called {len(calls)} times in one forward pass: there is no call "
                f"{tapped.call}."
            ) from None
        value = tensors.chosen(where, tapped, value)
        self._check_reachable(where, value)
        return value

    @staticmethod
    def _check_reachable(where, value):
        graphs = _graphs_in_reach()
        if tf.is_symbolic_tensor(value) and all(value.graph is not x for x in graphs):
            raise ValueError(
                f"{where} runs inside of a loop or condition of another layer (such as a "
                "recurrent layer's cell), which its outputs cannot leave. Tap the layer around it."
            )


def _graphs_in_reach():
    """The graph that is built now and those around it, whose tensors it can use."""
    graphs = [tf.compat.v1.get_default_graph()]
    while getattr(graphs[-1], "outer_graph", None) is not None:
        graphs.append(graphs[-1].outer_graph)
    return graphs


def _tap_of(layer):
    return layer if isinstance(layer, tap.Tap) else tap.Tap(layer)


def _shapes(value):
    return keras.tree.map_structure(tensors.shape_of, value)


def listeners(layer, kind, values):
    """Context managers; while all of them are open, `values` gets what each call gives.

    Args:
        layer: A layer or operation.
        kind: One of `Tap`'s kinds.
        values: List to append to.
    """
    if kind == "output":
        return [wrapped(layer, lambda call: _outputs(layer, call, values))]
    if kind == "input":
        return [wrapped(layer, lambda call: _inputs(call, values))]
    inner, listening = attention.softmax_of(layer), []
    if attention.returns_scores(layer):
        # Unless asked for the scores Keras may compute attention without them.
        scores = values if inner is None else []
        listening.append(wrapped(layer, lambda call: _returned_scores(call, scores)))
    if inner is not None:
        is_input = kind == "attention_logits"
        listening.append(wrapped(inner, lambda call: _softmax(call, values, is_input)))
    return listening


def _outputs(layer, call, values):
    def listen(*args, **kwargs):
        given, mask = masks.of_call(args, kwargs)
        result = call(*args, **kwargs)
        output = output_of(result, kwargs)
        values.append(masks.kept(output, masks.of_output(layer, output, given, mask)))
        return result

    return listen


def output_of(result, kwargs):
    """What a layer gives; asked for its scores, by one around it, an attention layer adds them."""
    both = isinstance(result, tuple) and kwargs.get("return_attention_scores")
    return result[0] if both else result


def _inputs(call, values):
    def listen(*args, **kwargs):
        values.append(masks.kept(*masks.of_call(args, kwargs)))
        return call(*args, **kwargs)

    return listen


def _returned_scores(call, values):
    def listen(*args, return_attention_scores=False, **kwargs):
        result, scores = call(*args, return_attention_scores=True, **kwargs)
        values.append(masks.kept(scores, masks.pairs(kwargs.get("mask"))))
        return (result, scores) if return_attention_scores else result

    return listen


def _softmax(call, values, is_input):
    """Records a softmax layer's input or output; its mask says which pairs may attend."""

    def listen(inputs, mask=None):
        result = call(inputs, mask=mask)
        values.append(masks.kept(inputs if is_input else result, mask))
        return result

    return listen


@contextlib.contextmanager
def wrapped(layer, wrap, attribute="call"):
    """Puts `wrap(layer.call)` in place of `layer.call`, or of another function, for this thread."""
    thread = threading.get_ident()
    before, call = layer.__dict__.get(attribute), getattr(layer, attribute)
    inside = wrap(call)

    def listen(*args, **kwargs):
        # Replicas of a tf.distribute strategy run the same layers in threads of their own.
        mine = threading.get_ident() == thread
        return (inside if mine else call)(*args, **kwargs)

    listen.before, listen.ended = before, False
    # Past Keras' attribute tracking: nothing of the layer changes that outlives the pass.
    object.__setattr__(layer, attribute, listen)
    try:
        yield
    finally:
        listen.ended = True
        _remove_ended(layer, attribute)


def _remove_ended(layer, attribute):
    # Replicas that wait for each other inside of the pass (synchronised batch normalisation) may
    # end in the order in which they began: a listener below one that goes on stays until then.
    call = layer.__dict__[attribute]
    while getattr(call, "ended", False):
        call = call.before
    if call is None:
        object.__delattr__(layer, attribute)
    else:
        object.__setattr__(layer, attribute, call)
