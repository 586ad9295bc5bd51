"""`OnnxExport`: what `to_onnx` wrote, and how it compares with the student."""

import dataclasses
import textwrap

_WIDTH = 100


@dataclasses.dataclass(frozen=True)
class OnnxExport:
    """What `keras_kd.export.to_onnx` wrote. `str` makes a summary of it.

    Args:
        path: The file.
        bytes: Its size.
        opset: The version of ONNX's operators that it needs.
        quantization: `None`, `"dynamic"` or `"int8"`.
        operators: How often each operator is in it, as a dict.
        inputs: A dict from the inputs' names to their types and shapes, such as
            `"float32[batch, 28, 28, 1]"`.
        outputs: The same of the outputs.
        agreement: The share of the rows (tokens, pixels) with the student's answer: the largest
            output, or the side of the threshold of yes or no; of the output for which it is least.
            `None` where there are no classes.
        worst_difference: The largest difference between an output and the student's.
        notes: A tuple of what a user of the file should know.
        tasks: `{output: task}`, by which it was compared: `"multiclass"`, `"binary"`,
            `"multilabel"` or `"regression"`.
        supposed: Names of the outputs of which only shape and layer tell the task.
        error: Root mean squared difference in standard deviations of the student's output, but for
            the tenth of the rows that lies farthest from the mean; the largest of the outputs.
        accuracy: Of the file on `data`, where that has labels of classes, else `None`.
        model_accuracy: Of the student on the same.

    Example:

    ```python
    import keras_kd as kd

    export = kd.export.OnnxExport(
        "student.onnx", 4100, 18, None, {"MatMul": 2, "Relu": 1}, {"x": "float32[batch, 8]"},
        {"logits": "float32[batch, 10]"}, 1.0, 2e-7,
    )
    print(export)
    ```
    """

    path: str
    bytes: int
    opset: int
    quantization: str | None
    operators: dict
    inputs: dict
    outputs: dict
    agreement: float | None
    worst_difference: float
    notes: tuple = ()
    tasks: dict = dataclasses.field(default_factory=dict)
    supposed: tuple = ()
    error: float | None = None
    accuracy: float | None = None
    model_accuracy: float | None = None

    def __str__(self):
        kind = "float32" if self.quantization is None else self.quantization
        lines = [f"{self.path}: ONNX, opset {self.opset}, {kind}, {self.bytes:,} bytes"]
        for title, values in (("inputs", self.inputs), ("outputs", self.outputs)):
            lines += _entry(title, ", ".join(f"{k} {v}" for k, v in values.items()))
        counts = sorted(self.operators.items(), key=lambda item: (-item[1], item[0]))
        lines += _entry("operators", ", ".join(f"{n} {name}" for name, n in counts))
        same = "" if self.agreement is None else f"same answer {self.agreement:.2%}, "
        lines += _entry("agreement", f"{same}worst difference {self.worst_difference:.2g}")
        if self.tasks:
            told = (
                f"{name}: {task}{' (supposed; `task` tells)' if name in self.supposed else ''}"
                for name, task in self.tasks.items()
            )
            lines += _entry("task", ", ".join(told))
        if self.accuracy is not None:
            lines += _entry(
                "accuracy", f"{self.accuracy:.2%}, the student's {self.model_accuracy:.2%}"
            )
        # Not wrapped: a note may be a command.
        return "\n".join(lines + [f"  {'note':<11}{note}" for note in self.notes])


def _entry(title, text):
    head = f"  {title:<11}"
    wrapped = textwrap.wrap(text, _WIDTH - len(head), break_long_words=False) or [""]
    return [head + wrapped[0]] + [" " * len(head) + line for line in wrapped[1:]]
