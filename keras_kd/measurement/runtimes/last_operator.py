"""What a file's output is made by: softmax, sigmoid, or anything else."""

import dataclasses

# Operators after which values are still the same probabilities.
_PASSES_ON = {
    *("CAST", "DEQUANTIZE", "DEQUANTIZELINEAR", "EXPANDDIMS", "FLATTEN", "IDENTITY", "QUANTIZE"),
    *("QUANTIZELINEAR", "RESHAPE", "SQUEEZE", "TRANSPOSE", "UNSQUEEZE"),
}
# What may stand between a sum and the division by it.
_REPEATS = _PASSES_ON | {"BROADCASTTO", "EXPAND", "TILE"}
_NAMES = {"LOGISTIC": "sigmoid", "SIGMOID": "sigmoid", "SOFTMAX": "softmax"}


@dataclasses.dataclass
class Step:
    """An operator as far as it matters here.

    Args:
        kind: Its name in the file's format.
        inputs: What tells the tensors apart that it reads: names, or indices.
        branches: For an operator that runs one of several graphs: `(steps, tensor)` of each, as of
            `activation`.
    """

    kind: str
    inputs: list
    branches: list = dataclasses.field(default_factory=list)

    def __post_init__(self):
        self.kind = self.kind.replace("_", "").upper()


def activation(steps, tensor):
    """`"softmax"`, `"sigmoid"`, or `None` for what is neither, or not plain.

    A softmax may be spelled out, as `exp(x) / sum(exp(x))`.

    Args:
        steps: `{tensor: the Step that makes it}`.
        tensor: The output.
    """
    step = _maker(steps, tensor, _PASSES_ON)
    if step is None:
        return None
    if step.branches:
        found = {activation(*branch) for branch in step.branches}
        return found.pop() if len(found) == 1 else None
    if step.kind == "DIV" and _is_softmax(steps, step):
        return "softmax"
    return _NAMES.get(step.kind)


def _is_softmax(steps, division):
    top, bottom = (_maker(steps, tensor, _REPEATS) for tensor in division.inputs[:2])
    if top is None or bottom is None or top.kind != "EXP":
        return False
    return bottom.kind in ("REDUCESUM", "SUM") and _maker(steps, bottom.inputs[0], ()) is top


def _maker(steps, tensor, passed):
    step = steps.get(tensor)
    while step is not None and step.kind in passed:
        step = steps.get(step.inputs[0])
    return step
