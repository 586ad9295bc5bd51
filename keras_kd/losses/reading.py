"""`Reading`: what a distillation loss reads in a step, declared once for all that must know it.

The fused path, validation, the symbolic dry run, weights, masks, the checks of the first batch and
the messages use this description. Nothing else lists what a loss might do.
"""

import dataclasses
from typing import Any

# How a loss interprets the values of a tensor. `None`: any numbers.
LOGITS = "logits"  # of a distribution over classes
PROBABILITIES = "probabilities"  # softmax has made them
EACH_LOGIT = "logits of yes or no"  # of each class by itself
EACH_PROBABILITY = "probabilities of yes or no"  # sigmoid has made them


@dataclasses.dataclass(frozen=True)
class Reading:
    """What a distillation loss reads.

    Attributes:
        output: Which output of the student, `None` for all; for a loss on inner layers: the output
            whose labels and sample weights it takes.
        teacher_output: Which output of the teacher, where it has another name.
        teacher_layer: The teacher's layer (or a tuple of layers) that it reads in place of an
            output.
        student_layer: The same for the student.
        mask_input: The student's input that marks padding.
        is_structure: Whether the loss receives all outputs at once, in their structure.
        teacher_values: How it interprets the teacher's tensor: `LOGITS`, `PROBABILITIES`,
            `EACH_LOGIT`, `EACH_PROBABILITY`, or `None`.
        student_values: The same for the student.
        labels: `None`, `"optional"` or `"required"`.
        has_numbers: Whether the labels have the shape of the outputs; else they are classes.
        is_sequence: Whether the layers of a tuple give the positions of one sequence, whose mask
            counts for all of them.
        leaves_out: Whether it leaves out rows that no mask tells, such as those of a label.
        has_own_classes: Whether the teacher's classes are others than those of the labels.
        is_exact: Whether the formula is the library's own: a user's subclass may compute anything.
    """

    output: Any = None
    teacher_output: Any = None
    teacher_layer: Any = None
    student_layer: Any = None
    mask_input: str | None = None
    is_structure: bool = False
    teacher_values: str | None = None
    student_values: str | None = None
    labels: str | None = None
    has_numbers: bool = False
    is_sequence: bool = False
    leaves_out: bool = False
    has_own_classes: bool = False
    is_exact: bool = True

    def layer(self, role: str) -> Any:
        """The layer that is read in the `"teacher"` or `"student"`, or `None`."""
        return self.teacher_layer if role == "teacher" else self.student_layer

    def key(self, role: str) -> Any:
        """The output of the `"teacher"` or `"student"`; `None`: all, or the only one."""
        if role == "teacher" and self.teacher_output is not None:
            return self.teacher_output
        return self.output

    def values(self, role: str) -> str | None:
        """How the tensor of the `"teacher"` or `"student"` is interpreted."""
        return self.teacher_values if role == "teacher" else self.student_values

    @property
    def is_of_outputs(self) -> bool:
        """Whether both tensors are outputs of the models."""
        return self.teacher_layer is None and self.student_layer is None

    @property
    def is_attention(self) -> bool:
        """Whether the attention of the student's layer is read, `[batch, heads, queries, keys]`."""
        return str(getattr(self.student_layer, "kind", "")).startswith("attention")

    @property
    def is_of_plain_logits(self) -> bool:
        """Whether the student's tensor is its output as it is, logits over classes.

        What the hard loss reads too: one sweep over it can compute both.
        """
        return (
            self.is_exact
            and self.student_layer is None
            and not isinstance(self.teacher_layer, tuple)
            and not self.is_structure
            and (self.teacher_values, self.student_values) == (LOGITS, LOGITS)
        )
