"""`diagnose`: is this teacher fit to teach this student with this data?"""

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_kd import models
from keras_kd._utils import batches, progress, statistics, validation
from keras_kd.diagnosis import model_checks, tallies, teacher_checks
from keras_kd.diagnosis.finding import Diagnosis, Finding
from keras_kd.diagnosis.tallies import DiagnosedModels, tally_data
from keras_kd.models import symbolic_pass
from keras_kd.ops import arguments

# The default of `SoftTargets`.
DEFAULT_TEMPERATURE = 4.0
NOT_MEASURED = (
    "Calibration, soft targets and memorized data were not measured: they mean nothing before the "
    "teacher's errors are corrected."
)


def diagnose(
    teacher: Any,
    student: Any,
    data: Any,
    validation_data: Any = None,
    temperature: float | None = None,
    from_logits: bool = True,
    print_fn: Any = None,
    *,
    teacher_preprocess: Any = None,
    verbose: int | str = 1,
) -> Diagnosis:
    """Looks for what spoils distillation in the teacher, the student and the data.

    Both models run once over the data, in inference; neither changes. Sums are kept, not outputs:
    the memory needed grows with the square of the number of classes (up to 2048), not with the
    data. Samples count by their sample weight; those of weight 0 (padding) not at all, and those
    with a negative label only in the check of the outputs. Keras masks are ignored: give the
    positions that they hide weight 0.

    | check | question |
    |---|---|
    | outputs | logits or probabilities, NaN, constant |
    | classes | one number of classes, labels in range |
    | accuracy | does the teacher know more than chance |
    | class order | are its classes those of the labels |
    | student | is the student better already |
    | weak classes | which classes does the teacher not know |
    | calibration | calibration error, and the temperature that corrects it |
    | soft targets | do they carry more than labels, at the temperature of distillation |
    | "memorised" | is the teacher far better on this data than on the validation data |
    | capacity | parameters of both |

    The expected calibration error is `sum_b w_b / w |accuracy_b - confidence_b|` over 15 bins of
    the confidence, the probability of the likeliest class.

    Calibration, weak classes and the student's accuracy are measured on the validation data, if
    given. The thresholds are constants beside each check in `keras_kd/diagnosis/`, with reasons.

    Args:
        teacher: A classifier with one output `[batch, ..., classes]`: a Keras model, or a callable.
        student: A Keras model, trained or not, or `None`.
        data: What the student will be trained on: a `tf.data.Dataset` of batches `(x, y)` or
            `(x, y, sample_weight)`, or such a tuple of arrays. `y`: class indices, or a
            probability for each class.
        validation_data: The same, samples that the teacher was not trained on.
        temperature: The temperature of distillation, a positive number; default 4, as in
            `SoftTargets`.
        from_logits: Whether both models return logits; `False`: probabilities.
        print_fn: A function that receives the table before the call returns, such as a logger's.
            Default: none, since the result shows itself in `print` and notebooks.
        teacher_preprocess: A function of the teacher's inputs; see `Distiller`.
        verbose: 0: silent; 1 or `"auto"`: a progress bar for each pass over data (in logs a line
            now and then); 2: a line for each.

    Returns:
        A `keras_kd.diagnosis.Diagnosis`: `findings`, `problems`, the fitted `temperature`,
        `to_json()`; `print` shows the table.

    Raises:
        ValueError: An argument is wrong, or the models are not classifiers with one output.

    Example:

    ```python
    import keras
    import numpy as np
    import keras_kd as kd

    x, y = np.random.normal(size=(64, 8)), np.random.randint(10, size=64)
    teacher = keras.Sequential([keras.Input((8,)), keras.layers.Dense(10)])
    student = keras.Sequential([keras.Input((8,)), keras.layers.Dense(10)])
    diagnosis = kd.diagnose(teacher, student, (x, y))
    print(diagnosis)
    for finding in diagnosis.problems:
        print(finding.severity, finding.message, finding.remedy)
    ```

    Reference: Guo et al., "On Calibration of Modern Neural Networks",
    https://arxiv.org/abs/1706.04599 (calibration error and temperature)
    """
    _check_models(teacher, student)
    verbose = progress.check_verbose(verbose)
    temperature = DEFAULT_TEMPERATURE if temperature is None else temperature
    temperature = float(arguments.convert_temperature(temperature))
    validation.boolean("from_logits", from_logits)
    validation.function("print_fn", print_fn, ["text"], optional=True)
    validation.function("teacher_preprocess", teacher_preprocess, ["inputs"], optional=True)
    diagnosed = DiagnosedModels(teacher, student, teacher_preprocess, from_logits, temperature)
    given = {"data": data, "validation_data": validation_data}
    given = {name: each for name, each in given.items() if name == "data" or each is not None}
    for name, each in given.items():
        batches.check_data(name, each)
    for name, each in given.items():
        check_data(diagnosed, name, each)
    train = tally_data(diagnosed, "data", data, verbose)
    held_out = None
    if validation_data is not None:
        held_out = tally_data(diagnosed, "validation_data", validation_data, verbose)
    diagnosis = _run_checks(diagnosed, train, held_out)
    if print_fn is not None:
        print_fn(str(diagnosis))
    elif verbose:
        found = len(diagnosis.problems)
        progress.print_line(f"diagnose: {found or 'no'} problem{'' if found == 1 else 's'} found")
    return diagnosis


def _check_models(teacher, student):
    if isinstance(teacher, type) or not callable(teacher):
        raise validation.invalid("teacher", "a keras.Model or a callable", repr(teacher))
    if not isinstance(teacher, keras.layers.Layer):
        validation.function("teacher", teacher, ["inputs"])
    if student is not None:
        models.check_pair(teacher, student)
    symbolic_pass.check_built("teacher", teacher)


def _run_checks(diagnosed, train, held_out):
    tested = train if held_out is None else held_out
    of_teacher = model_checks.check_outputs("teacher", train.teacher.outputs, diagnosed.from_logits)
    answers = [
        teacher_checks.check_accuracy(train.teacher.confusion),
        model_checks.check_class_order(train.teacher.confusion),
    ]
    findings = of_teacher + model_checks.check_classes(train) + answers
    if not any(finding.is_problem for finding in answers):
        # Otherwise classes look weak that are not, or all are.
        findings.append(teacher_checks.check_weak_classes(tested.teacher.confusion))
    temperature = None
    if any(finding.severity == "error" for finding in of_teacher + answers):
        findings.append(Finding("calibration", "note", NOT_MEASURED))
    else:
        found, temperature = _check_probabilities(diagnosed, train, held_out)
        findings += found
    if diagnosed.student is not None:
        findings += _check_student(diagnosed, train, tested)
    return Diagnosis(findings, temperature)


def _check_probabilities(diagnosed, train, held_out):
    """Findings on the teacher's probabilities, and the fitted temperature."""
    where = "the data itself (too optimistic if the teacher was trained on it)"
    tested = train
    if held_out is not None:
        where, tested = "the validation data", held_out
    finding, temperature = teacher_checks.check_calibration(tested.teacher.calibration, where)
    teacher = train.teacher
    found = [
        finding,
        teacher_checks.check_soft_targets(
            teacher.calibration, diagnosed.temperature, teacher.classes
        ),
    ]
    if held_out is not None:
        found.append(teacher_checks.check_overfit(teacher, held_out.teacher))
    return found, temperature


def _check_student(diagnosed, train, tested):
    found = model_checks.check_outputs("student", train.student.outputs, diagnosed.from_logits)
    agreement = None
    comparable = train.student.classes == train.teacher.classes and tested.pair.weight > 0
    if comparable:
        sides = tested.teacher.confusion, tested.student.confusion
        found.append(teacher_checks.check_student(*sides, tested.pair))
        if teacher_checks.is_trained(*sides):
            agreement = float(tested.pair.agree / tested.pair.weight)
    if isinstance(diagnosed.teacher, keras.Model):
        counts = diagnosed.teacher.count_params(), diagnosed.student.count_params()
        found.append(teacher_checks.check_capacity(counts, agreement))
    return found


def check_data(diagnosed: DiagnosedModels, name: str, data: Any) -> None:
    """Raises, before any model runs, for inputs, outputs and labels that do not fit.

    Args:
        diagnosed: The `DiagnosedModels`.
        name: The argument's name, for messages.
        data: See `keras_kd.diagnose`; checked by `batches.check_data`.
    """
    inputs, found = symbolic_pass.specs_of(data), {}
    for role in ("teacher", "student"):
        model = getattr(diagnosed, role)
        is_preprocessed = role == "teacher" and diagnosed.preprocess is not None
        if model is None or is_preprocessed:
            continue
        outputs = symbolic_pass.trace_outputs(name, inputs, f"the {role}", model)
        if outputs is not None:
            statistics.flat_outputs(role, keras.tree.map_structure(_one_row, outputs))
            found[role] = outputs
    shape = found["teacher"].shape[1:] if "teacher" in found else (None,)
    if not isinstance(data, tf.data.Dataset):
        _check_labels(name, data, None if None in shape else tuple(shape))


def _one_row(spec):
    return np.zeros([1, *(size or 1 for size in spec.shape[1:])])


def _check_labels(name, data, shape):
    """Raises where arrays have no label that can be checked."""
    _, y, weights = keras.utils.unpack_x_y_sample_weight(data)
    if y is None:
        raise ValueError(f"`{name}` has no labels: (inputs, None). Pass (inputs, labels).")
    if shape is None:
        return
    y = keras.tree.map_structure(np.asarray, y)
    shape = (len(keras.tree.flatten(y)[0]), *shape)
    labels, _ = tallies.read_labels(name, y, shape)
    counted = batches.position_weights(name, weights, shape) > 0
    if not (counted & (labels >= 0) & (labels < shape[-1])).any():
        raise tallies.nothing_to_measure(name)
