"""`measure`: quality, size and speed of a model, a file or a function."""

import contextlib
import gc
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from keras_kd._utils import progress
from keras_kd.measurement import (
    embeddings,
    predictions,
    quality,
    reading,
    tasks,
    teacher_agreement,
    texts,
    tokens,
)
from keras_kd.measurement.quality import Figures
from keras_kd.measurement.reading import ModelOutputs
from keras_kd.measurement.request import DEFAULT_TOP_K, Options, Request
from keras_kd.measurement.result import Measurement


def measure(
    model_or_file: Any,
    data: Any,
    *,
    task: str = "auto",
    from_logits: bool = True,
    teacher: Any = None,
    teacher_from_logits: bool | None = None,
    class_names: Any = None,
    top_k: Any = DEFAULT_TOP_K,
    batch_size: int | None = None,
    latency: bool = True,
    threads: int = 1,
    runs: int = 100,
    warmup: int = 10,
    output: str | int | None = None,
    decode: Callable | None = None,
    generate: Callable | None = None,
    name: str | None = None,
    verbose: int | str = 1,
) -> Measurement:
    """Measures quality, size and speed of a Keras model, a `.tflite` or an `.onnx` file.

    Needs `pip install 'keras-kd[measure]'`. The model is not changed. What cannot be measured is
    left out, and `notes` has the reason.

    | task | labels | quality |
    |---|---|---|
    | multiclass | class indices `[samples, ...]`, or probabilities; the largest counts | \
accuracy, top_5_accuracy, f1_macro, f1_micro, roc_auc, log_loss, ece |
    | binary | 0 or 1 for the only output | the same, without top k |
    | multilabel | 0 and 1 `[samples, labels]` | the same; accuracy: all labels of a sample \
are right |
    | regression | numbers | mae, rmse, r2 |
    | language_model | token ids `[texts, positions]` | perplexity, log_loss, accuracy |
    | text | reference strings `[samples]` or `[samples, references]` | bleu, rouge_1, rouge_2, \
rouge_l |
    | translation | the same | bleu, chrf |
    | summarization | the same | rouge_1, rouge_2, rouge_l, rouge_lsum |
    | question_answering | the same; also lists of strings of any number | exact_match, f1 |
    | speech_recognition | transcripts `[samples]` | wer, cer |
    | retrieval | item `[samples]`, or `[samples, 2]`: item, and 0 for a query, 1 for a document \
| recall_at_1, recall_at_5, recall_at_10, mrr |
    | similarity | `[samples, 2]`: the number of a pair, its score; scores `[samples]` of a model \
that gives one number | spearman, kendall, pearson |

    The figures are scikit-learn's, sacrebleu's, rouge-score's, jiwer's and SciPy's, with the sample
    weights of the data; samples of weight 0 and those with a negative class do not count. Tasks of
    texts and similarity need `pip install 'keras-kd[language]'`. `"auto"` finds the first four and
    `text`; the others must be named.

    `perplexity = exp(log_loss)`, over the positions whose label is not negative (-100 is) and whose
    weight is above 0. Answers are compared as SQuAD does (`keras_kd.language.exact_match`,
    `answer_f1`), transcripts as they are: normalize both before. `wer` is all errors over all words
    of the references. Empty references fill up rows of an array. BLEU and rank correlations take no
    weights. Retrieval and similarity compare by the cosine; `recall_at_k` is the share of a query's
    documents among the k nearest, where wrong ones that are equally near come first;
    `keras_kd.language.retrieval_data` and `similarity_data` make labels.

    `f1_macro` is the mean over the classes that have samples (scikit-learn's `labels`), the same
    ones for every model. `roc_auc` sets one class against the rest and takes the mean over classes.
    `ece` is the expected calibration error, `sum_b w_b / w |accuracy_b - confidence_b|` over 15
    bins of the confidence. With a teacher: agreement (share of samples of the same class),
    `KL(teacher || model)` in nats at temperature 1, and the mean absolute difference of the
    probabilities.

    `macs` counts the multiply-accumulates of matrix products and convolutions for one sample, in
    recurrent layers times the steps; element by element operations, normalization and pooling have
    none. `peak_activation_bytes` of a `.tflite` file is the largest sum of tensors that are needed
    at the same time; a runtime reserves more.

    Args:
        model_or_file: A `keras.Model`; the path of a `.tflite`, `.onnx` or `.keras` file, or of one
            that a runtime is registered for (`keras_kd.runtimes.register`); an opened file of
            `keras_kd.runtimes`; of text also a function from a batch of inputs to strings, or a
            list of strings for the samples.
        data: A `tf.data.Dataset` of batches `(inputs, labels)` or `(inputs, labels, weights)`, or
            such a tuple of arrays, in a fixed order. Inputs of a file go by name (a dict) where
            their shapes do not tell them apart.
        task: One of the tasks above; `"auto"` finds it by outputs and labels.
        from_logits: Whether a classifier returns logits; `False`: probabilities.
        teacher: To compare with: a Keras model, whatever `Distiller` takes, or an array of its
            outputs for the samples.
        teacher_from_logits: Whether the teacher returns logits; default: as `from_logits`.
        class_names: A name for each class, for `per_class`.
        top_k: For which k the accuracy of the k likeliest classes is measured. k = 1 is the
            accuracy, all classes give 1 and are left out, more than there are raise; of the
            default, 5 is left out where there are fewer. Of a retrieval for which k the recall is;
            the default is then 1, 5 and 10.
        batch_size: Samples at once, of data in arrays; default 256, of a language model 8.
        latency: Whether one sample is timed: median and 95th percentile.
        threads: Threads of the runtime of a file. TensorFlow has its own.
        runs: How many runs are timed.
        warmup: How many runs come before them.
        output: Name or index of the output that is measured, where there are several.
        decode: Of text: a function from the outputs of a batch to a list of strings.
        generate: Of text: a function of the model (or the opened file) and the inputs of a batch to
            a list of strings; arrays of strings come as lists. Of KerasHub: `lambda model, prompts:
            model.generate(prompts, max_length=64, strip_prompt=True)`.
        name: A name for the measurement; default: the name of the model or the file.
        verbose: 0: silent; 1 or `"auto"`: a progress bar for the pass over the data, and for timed
            runs that take long (in logs a line now and then); 2: a line for each. The figures do
            not depend on it.

    Returns:
        A `keras_kd.measurement.Measurement`.

    Raises:
        ImportError: A package is missing; it names the extra.
        ValueError: An argument is wrong; data, labels and outputs do not fit; outputs are NaN, or
            probabilities where `from_logits` is set.

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
    options = Options(
        task=task,
        from_logits=from_logits,
        teacher_from_logits=teacher_from_logits,
        class_names=class_names,
        top_k=top_k,
        batch_size=batch_size,
        latency=latency,
        threads=threads,
        runs=runs,
        warmup=warmup,
        output=output,
        decode=decode,
        generate=generate,
        name=name,
        verbose=verbose,
    )
    request = Request.bind(model_or_file, data, teacher, options)
    return evaluate(request, run(request))


def run(request: Request) -> ModelOutputs:
    """Runs the model, and its teacher, once over the data."""
    options = request.options
    reduce = None
    if options.task == tasks.LANGUAGE_MODEL:
        reduce = tokens.Reducer(
            request.subject.name, options.from_logits, options.teacher_gives_logits
        )
    return reading.read_outputs(
        request.subject,
        request.data,
        request.teacher,
        output=options.output,
        batch_size=options.batch_size,
        verbose=options.verbose,
        reduce=reduce,
    )


def evaluate(request: Request, outputs: ModelOutputs) -> Measurement:
    """Measures the quality of outputs, and the size and speed of the model that gave them.

    Args:
        request: The call of `measure`.
        outputs: What `run` returned.
    """
    subject, options = request.subject, request.options
    task = _find_task(options, outputs)
    figures, agreement = _EVALUATIONS.get(task, _evaluate_texts)(request, task, outputs)
    sample = subject.convert(outputs.inputs)
    size, size_notes = subject.measure_size(sample)
    latency, latency_notes = _time(subject, options, sample) if options.latency else (None, [])
    return Measurement(
        name=subject.name,
        kind=subject.kind,
        task=task,
        samples=len(figures.labels),
        quality=figures.quality,
        per_class=figures.per_class,
        reliability=figures.reliability,
        confusion=figures.confusion,
        teacher=agreement,
        size=size,
        latency=latency,
        notes=[*figures.notes, *size_notes, *latency_notes],
        predictions=figures.predictions,
        labels=figures.labels,
        weights=figures.weights,
        counted=figures.counted,
        sample_scores=figures.sample_scores,
    )


def _find_task(options, outputs):
    """The task, by the user's word or by the outputs; raises where the options do not fit it."""
    task = options.task
    if task == "auto":
        task = predictions.infer_task(np.asarray(outputs.outputs), np.asarray(outputs.labels))
    classes = np.shape(outputs.outputs)[-1] if task in ("multiclass", "multilabel") else 2
    options.check(task, classes)
    return task


def _evaluate_numbers(request, task, outputs):
    """The figures of a task whose outputs are numbers, and the agreement with the teacher."""
    options = request.options
    rows = predictions.select(
        task,
        request.subject.name,
        np.asarray(outputs.outputs),
        outputs.labels,
        outputs.weights,
        options.from_logits,
    )
    figures = _measure_quality(options, rows)
    figures.counted = rows.counted.reshape(len(outputs.outputs), -1)
    if not (rows.weights == rows.weights[0]).all():
        figures.weights = rows.weights
    left_out = len(rows.counted) - len(rows.labels)
    if left_out:
        figures.notes.append(f"{left_out} samples without a label or of weight 0 do not count.")
    agreement = None
    if outputs.teacher is not None:
        agreement = teacher_agreement.measure_agreement(
            rows, outputs.teacher, options.teacher_gives_logits
        )
    return figures, agreement


def _measure_quality(options, rows) -> Figures:
    if rows.task == "regression":
        return quality.measure_regression(rows)
    names = options.names(rows.classes)
    if rows.task == "multilabel":
        return quality.measure_several_labels(rows, names)
    return quality.measure_classes(rows, names, options.top_k)


def _evaluate_texts(request, task, outputs):
    figures = texts.measure(task, texts.select(task, request.subject.name, outputs))
    if outputs.teacher is not None:
        figures.notes.append("teacher: left out; generated text is not compared with a teacher's.")
    return figures, None


def _evaluate_tokens(request, task, outputs):
    del task
    given = outputs.outputs, outputs.labels, outputs.weights
    agreement = None if request.teacher is None else tokens.measure_agreement(*given)
    return tokens.measure(*given), agreement


def _evaluate_retrieval(request, task, outputs):
    del task
    name, rest = request.subject.name, (outputs.labels, outputs.weights)
    top_k = request.options.top_k
    top_k = None if top_k == DEFAULT_TOP_K else top_k
    figures = embeddings.measure_retrieval(name, outputs.outputs, *rest, top_k)
    if outputs.teacher is None:
        return figures, None
    return figures, embeddings.compare_retrieval(name, outputs.outputs, outputs.teacher, *rest)


def _evaluate_similarity(request, task, outputs):
    del task
    name, rest = request.subject.name, (outputs.labels, outputs.weights)
    figures = embeddings.measure_similarity(name, outputs.outputs, *rest)
    if outputs.teacher is None:
        return figures, None
    return figures, embeddings.compare_similarity(name, outputs.outputs, outputs.teacher, *rest)


# Of a task: a function of the request, the task and the outputs to `(Figures, agreement or None)`.
_EVALUATIONS = {
    **dict.fromkeys(tasks.NUMBERS, _evaluate_numbers),
    tasks.LANGUAGE_MODEL: _evaluate_tokens,
    "retrieval": _evaluate_retrieval,
    "similarity": _evaluate_similarity,
}


def _time(subject, options, sample):
    """`(latency, notes)` of a `Measurement`."""
    call, facts, notes = subject.prepare_run(sample)
    if call is None:
        return None, notes
    label, runs = f"measure: latency of {subject.name}", options.warmup + options.runs
    bar = progress.Bar(label, runs, "run", options.verbose)
    return {**facts, **measure_latency(call, options.warmup, options.runs, bar)}, notes


# How long one run takes on this CPU.

# Between the runs of a fast model nothing is printed: only what lasts longer shows progress.
_SECONDS_BETWEEN_UPDATES = 0.5


def measure_latency(
    call: Callable[[], Any], warmup: int, runs: int, bar: progress.Bar | None = None
) -> dict[str, float]:
    """Times a function, one run after the other.

    Args:
        call: What is timed; it returns when its work is done.
        warmup: Runs before, which are not counted.
        runs: Runs that are counted.
        bar: A bar of all runs, or `None`.

    Returns:
        `{"warmup", "runs", "median_us", "p95_us"}`, microseconds.
    """
    updates = _RareUpdates(bar)
    for _ in range(warmup):
        updates.count(_seconds(call))
    seconds = []
    with _without_collector():
        for _ in range(runs):
            seconds.append(_seconds(call))
            updates.count(seconds[-1])
    updates.end()
    median, slow = np.percentile(seconds, [50, 95]) * 1e6
    return {"warmup": warmup, "runs": runs, "median_us": float(median), "p95_us": float(slow)}


class _RareUpdates:
    """Updates a bar so rarely that it does not disturb what is timed.

    Args:
        bar: A `progress.Bar` or `None`.
    """

    def __init__(self, bar):
        self._bar, self._done, self._since, self._is_seen = bar, 0, 0.0, False

    def count(self, seconds):
        """Counts one run more, and how long it took."""
        self._done += 1
        if self._done > 1:  # the first one may trace and allocate
            self._since += seconds
        if self._since >= _SECONDS_BETWEEN_UPDATES and self._bar is not None:
            self._bar.update(self._done)
            self._since, self._is_seen = 0.0, True

    def end(self):
        if self._is_seen:
            self._bar.update(self._done)
            self._bar.end()


def _seconds(call):
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


@contextlib.contextmanager
def _without_collector():
    # A collection takes longer than a run of a small model, and is no part of it.
    was_on = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
