"""Which rule narrows a layer: chosen by its exact type, since a subclass may do anything."""

import inspect

from keras_kd.students import (
    channels,
    merge_rules,
    operation_rules,
    recurrent_rules,
    shape_rules,
    weight_rules,
)

RULES: dict = {
    **weight_rules.RULES,
    **recurrent_rules.RULES,
    **merge_rules.RULES,
    **shape_rules.RULES,
}


def apply(site, args, kwargs):
    """The axes of each of a call's outputs, or `None` where they are the teacher's.

    Args:
        site: The `Site` of the layer; the rule sets its `weights` and `edits`.
        args: Arguments of the call, with `Signal`s for tensors.
        kwargs: As `args`.
    """
    rule = RULES.get(type(site.layer)) or operation_rules.rule_of(site.layer)
    if rule is None:
        site.opaque("keras_kd has no rule for its type")
        return []
    try:
        inspect.signature(rule).bind(site, *args, **kwargs)
    except TypeError:
        site.opaque("it is called with arguments that its rule does not know")
        return []
    outputs = rule(site, *args, **kwargs)
    if outputs is not None and not _fits(site):
        site.opaque("its weights are not those of its type (it may be quantized or have LoRA)")
        return []
    return outputs or []


def _fits(site):
    """Whether the axes that a rule gave for the weights have the weights' sizes."""
    weights = getattr(site.layer, "weights", [])
    if len(weights) != len(site.weights):
        return False
    return all(
        len(weight.shape) == len(axes)
        and all(_has_size(axis, size) for axis, size in zip(axes, weight.shape, strict=True))
        for weight, axes in zip(weights, site.weights, strict=True)
    )


def _has_size(axis, size):
    axis = axis.axis if isinstance(axis, channels.Summed) else axis
    return axis is None or channels.size(axis) == size
