"""The repeated blocks of a model, such as the layers of a transformer.

Found by structure: a block is a layer that is made of other layers, turns features into features,
and is one of two or more of its class that run one after the other, side by side in the same model
or layer. What runs between them may have no weights (dropout, pooling, masks). The outermost such
layers are the blocks. A layer that is alone is one where it holds an attention layer and keeps the
rank of its features: a transformer may have one block.

Attention layers themselves are none: they are parts of a block. Nor are models that are plainly
`keras.Sequential` or functional: they are all of one class, whatever they do.
"""

import keras

from keras_kd.taps import attention, paths


def runs_of(siblings, known=()):
    """Lists of blocks, each list one run; an encoder and a decoder are two.

    Args:
        siblings: The `Call`s that a model makes itself, in order.
        known: Classes that are blocks also where they are alone.
    """
    found = []
    for run in _side_by_side(siblings):
        call = run[0]
        if _may_be_a_block(call) and (len(run) > 1 or type(call.layer) in known):
            found.append(run)
            continue
        inner = runs_of(call.inside, known)
        if inner:
            found += inner
        elif _may_be_a_block(call) and _is_of_a_transformer(call):
            found.append(run)
    return found


def classes_of(runs):
    """The classes of the blocks."""
    return {type(call.layer) for run in runs for call in run}


def features_of(value):
    """The first tensor of what a layer gives, where it is features: `[batch, ..., width]`."""
    first = keras.tree.flatten(value)[:1]
    if not first or first[0] is None:
        return None
    shape, dtype = first[0].shape, first[0].dtype
    is_features = len(shape) in (2, 3, 4) and shape[-1] is not None and "float" in dtype
    return first[0] if is_features else None


def _side_by_side(siblings):
    """Runs of layers of one class; each other layer is a run of its own."""
    runs = []
    is_open = False
    for call in siblings:
        if _may_be_a_block(call):
            if is_open and type(runs[-1][0].layer) is type(call.layer):
                runs[-1].append(call)
            else:
                runs.append([call])
            is_open = True
        elif getattr(call.layer, "weights", None) or call.inside:
            runs.append([call])
            is_open = False
    return runs


def _may_be_a_block(call):
    layer = call.layer
    return (
        next(iter(paths.children(layer)), None) is not None
        and type(layer) not in paths.plain_models()
        and not attention.gives_scores(layer)
        and features_of(call.given) is not None
        and features_of(call.output) is not None
    )


def _is_of_a_transformer(call):
    if isinstance(call.layer, keras.Model):
        return False
    holds = any(attention.gives_scores(inner) for _, _, inner in paths.walk(call.layer))
    return holds and len(features_of(call.given).shape) == len(features_of(call.output).shape)
