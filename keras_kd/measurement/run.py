"""`measure`: how good, how large and how fast is this model, or this file?"""

import numpy as np

from keras_kd import progress
from keras_kd.measurement import (
    arguments,
    beforehand,
    comparison,
    latency,
    reading,
    rows,
    tasks,
    teaching,
)
from keras_kd.measurement.quality import classes, regression, several_labels, text
from keras_kd.measurement.quality.figures import sklearn
from keras_kd.measurement.result import Measurement
from keras_kd.measurement.subjects import subject_of

# Of arrays, where `batch_size` is not given.
BATCH_SIZE = 256


def measure(
    model_or_file,
    data,
    *,
    task="auto",
    from_logits=True,
    teacher=None,
    teacher_from_logits=None,
    class_names=None,
    top_k=(1, 5),
    batch_size=None,
    latency=True,
    threads=1,
    runs=100,
    warmup=10,
    output=None,
    decode=None,
    name=None,
    verbose=1,
):
    """Measures quality, size and speed of a Keras model, a `.tflite` or an `.onnx` file.

    Needs `pip install 'keras-kd[measure]'`. Nothing of the model changes. What cannot be measured
    is left out, and `notes` says why.

    | task | labels | quality |
    |---|---|---|
    | multiclass | class indices `[rows, ...]`, or probabilities of which the largest counts | \
accuracy, top_5_accuracy, f1_macro, f1_micro, roc_auc, log_loss, ece |
    | binary | 0 or 1 for the only output | the same, without top k |
    | multilabel | 0 and 1 `[rows, labels]` | the same; accuracy: all labels of a row are right |
    | regression | numbers | mae, rmse, r2 |
    | text | reference strings `[rows]` or `[rows, references]` | bleu, rouge_1, rouge_2, rouge_l |

    They are scikit-learn's, sacrebleu's and rouge-score's, with the sample weights of the data;
    rows of weight 0 and those with a negative class do not count. `f1_macro` is the mean over the
    classes that have rows (scikit-learn's `labels`), for every model the same. `roc_auc` sets one
    class against the rest and takes the mean over classes. `ece` is the expected calibration error,
    `sum_b w_b / w |accuracy_b - confidence_b|` over 15 bins of the confidence. Of a teacher:
    agreement (share of rows of the same class), `KL(teacher || model)` in nats at temperature 1,
    and the mean absolute difference of the probabilities.

    `macs` counts the multiply-accumulates of matrix products and convolutions for one row, in
    recurrent layers times the steps; element by element operations, normalization and pooling have
    none. `peak_activation_bytes` of a `.tflite` file is the largest sum of tensors that are needed
    at the same time; what a runtime reserves is more.

    Args:
        model_or_file: A `keras.Model`; the path of a `.tflite`, `.onnx` or `.keras` file, or a
            `keras_kd.measurement.runtimes` object; of text also a function from a batch of inputs
            to strings, or a list of strings for the rows.
        data: A `tf.data.Dataset` of batches `(inputs, labels)` or `(inputs, labels, weights)`, or
            such a tuple of arrays, in a fixed order. Inputs of a file go by name (a dict) where
            their shapes do not tell them apart.
        task: One of the tasks above; `"auto"` tells it from outputs and labels.
        from_logits: Whether a classifier returns logits; `False`: probabilities.
        teacher: To compare with: a Keras model, whatever `Distiller` takes, or an array of its
            outputs for the rows.
        teacher_from_logits: Whether the teacher returns logits; default: as `from_logits`.
        class_names: A name for each class, for `per_class`.
        top_k: For which k the accuracy of the k likeliest classes is measured. That of 1 is the
            accuracy, that of all classes is 1 and left out, more than there are is refused; of the
            default 5 is left out where there are fewer.
        batch_size: Rows at once, of data in arrays; default 256.
        latency: Whether one row is timed: median and 95th percentile.
        threads: Of the runtime of a file. TensorFlow has its own.
        runs: How many runs are timed.
        warmup: Runs before.
        output: Name or index of the output that is measured, where there are several.
        decode: Of text: a function from the outputs of a batch to a list of strings.
        name: A name of the measurement; default: that of the model or the file.
        verbose: 0: silent; 1 or `"auto"`: a progress bar for the pass over the data, and for timed
            runs that last (in logs a line now and then); 2: a line for each. Figures do not
            depend on it.

    Returns:
        A `keras_kd.measurement.Measurement`.

    Raises:
        ImportError: A package is missing; it names the extra.
        ValueError: An argument is wrong; data, labels and outputs do not fit; outputs are NaN, or
            probabilities where logits were promised.

    Example:

    ```python
    import keras
    import numpy as np
    import keras_kd as kd

    x, y = np.random.normal(size=(64, 8)).astype("float32"), np.arange(64) % 3
    teacher = keras.Sequential([keras.Input((8,)), keras.layers.Dense(3)])
    student = keras.Sequential([keras.Input((8,)), keras.layers.Dense(3)])
    found = kd.measure(student, (x, y), teacher=teacher, class_names=["a", "b", "c"], runs=5)
    print(found)
    print(found.quality["accuracy"], found.teacher["agreement"], found.latency["median_us"])
    ```

    Reference: Guo et al., "On Calibration of Modern Neural Networks",
    https://arxiv.org/abs/1706.04599
    """
    asked = arguments.Arguments(
        task, from_logits, teacher_from_logits, class_names, top_k, runs, warmup, latency
    )
    verbose = progress.checked(verbose)
    _check_library(task)
    size = arguments.positive("batch_size", BATCH_SIZE if batch_size is None else batch_size)
    subject = subject_of(model_or_file, threads, name, decode)
    data, source = reading.prepared(data), teaching.teacher_of(teacher)
    beforehand.check(subject, data, output, asked, source)
    answers = reading.read(subject, data, output, size, source, verbose)
    task = asked.task
    if task == "auto":
        task = tasks.infer(np.asarray(answers.outputs), np.asarray(answers.labels))
    asked.check(task, 2 if task == "binary" else np.shape(answers.outputs)[-1])
    if task == "text":
        figures, of_teacher = _of_text(subject, answers), None
    else:
        said = from_logits if teacher_from_logits is None else teacher_from_logits
        figures, of_teacher = _of_rows(asked, task, subject, answers, said)
    timing = asked if latency else None
    return _measurement(subject, task, figures, of_teacher, answers, timing, verbose)


def _check_library(task):
    if task != "text":
        sklearn()  # missing, it is told before the model runs


def _of_rows(asked, task, subject, answers, teacher_from_logits):
    made = rows.of(
        task,
        subject.name,
        np.asarray(answers.outputs),
        answers.labels,
        answers.weights,
        asked.from_logits,
    )
    figures = _figures(asked, made)
    figures.counted = made.counted.reshape(len(answers.outputs), -1)
    if not (made.weights == made.weights[0]).all():
        figures.weights = made.weights
    left = len(made.counted) - len(made.labels)
    if left:
        figures.notes.append(f"{left} rows without a label or of weight 0 do not count.")
    of_teacher = None
    if answers.teacher is not None:
        of_teacher = comparison.measure(made, answers.teacher, teacher_from_logits)
    return figures, of_teacher


def _figures(asked, made):
    if made.task == "regression":
        return regression.measure(made)
    names = asked.names(made.classes)
    if made.task == "multilabel":
        return several_labels.measure(made, names)
    return classes.measure(made, names, asked.top_k)


def _of_text(subject, answers):
    figures = text.measure(*text.checked(subject.name, answers))
    if answers.teacher is not None:
        figures.notes.append("teacher: left out; generated text is not compared with a teacher's.")
    return figures


def _measurement(subject, task, figures, of_teacher, answers, timing, verbose):
    size, notes = subject.size(answers.inputs)
    notes = figures.notes + notes
    found = None
    if timing is not None:
        call, facts, more = subject.timed(answers.inputs)
        notes += more
        if call is not None:
            runs = timing.warmup + timing.runs
            bar = progress.Bar(f"measure: latency of {subject.name}", runs, "run", verbose)
            found = {**facts, **latency.measure(call, timing.warmup, timing.runs, bar)}
    return Measurement(
        name=subject.name,
        kind=subject.kind,
        task=task,
        samples=len(figures.labels),
        quality=figures.quality,
        per_class=figures.per_class,
        reliability=figures.reliability,
        confusion=figures.confusion,
        teacher=of_teacher,
        size=size,
        latency=found,
        notes=notes,
        predictions=figures.predictions,
        labels=figures.labels,
        weights=figures.weights,
        counted=figures.counted,
    )
