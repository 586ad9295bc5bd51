"""`Reading`: what a distillation loss reads of a step, declared once for all that must know it.

The fused path, validation, the rehearsal, weights, masks, the look at the first batch and the
messages ask this description. Nothing else lists what a loss might do.
"""

import dataclasses
from typing import Any

# What the values of a tensor are to a loss. `None`: any numbers.
LOGITS = "logits"  # of a distribution over classes
PROBABILITIES = "probabilities"  # softmax has made them
EACH_LOGIT = "logits of yes or no"  # of each class by itself
EACH_PROBABILITY = "probabilities of yes or no"  # sigmoid has made them


@dataclasses.dataclass(frozen=True)
class Reading:
    """What a distillation loss reads.

    Attributes:
        output: Which output of the student, `None` for all; of a loss of inner layers: whose labels
            and sample weights it takes.
        teacher_output: Which output of the teacher, where it is called otherwise.
        teacher_layer: The teacher's layer (or a tuple of layers) that it reads in place of an
            output.
        student_layer: Likewise, of the student.
        mask_input: The student's input that tells what is padding.
        is_structure: Whether the loss gets all outputs at once, in their structure.
        teacher_values: What it takes the teacher's tensor for: `LOGITS`, `PROBABILITIES`,
            `EACH_LOGIT`, `EACH_PROBABILITY`, or `None`.
        student_values: Likewise, of the student.
        labels: `None`, `"optional"` or `"required"`.
        has_numbers: Whether the labels have the shape of the outputs; else they are classes.
        is_exact: Whether the loss is the library's own formula: a subclass may compute anything.
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
    is_exact: bool = True

    def layer(self, role):
        """The layer that is read of `"teacher"` or `"student"`, or `None`."""
        return self.teacher_layer if role == "teacher" else self.student_layer

    def key(self, role):
        """The output that is read of `"teacher"` or `"student"`; `None`: all, or the only one."""
        if role == "teacher" and self.teacher_output is not None:
            return self.teacher_output
        return self.output

    def values(self, role):
        """What the tensor of `"teacher"` or `"student"` is taken for."""
        return self.teacher_values if role == "teacher" else self.student_values

    @property
    def is_of_outputs(self):
        """Whether both tensors are outputs of the models."""
        return self.teacher_layer is None and self.student_layer is None

    @property
    def is_attention(self):
        """Whether the attention of the student's layer is read, `[batch, heads, queries, keys]`."""
        return str(getattr(self.student_layer, "kind", "")).startswith("attention")

    @property
    def is_of_plain_logits(self):
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
