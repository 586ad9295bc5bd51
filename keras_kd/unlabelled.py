"""Data without labels: found out before a `fit`, and what is reported of it."""

import types

import keras
import tensorflow as tf

from keras_kd.teachers import ahead
from keras_kd.wrapped_batches import PeekedBatches


def are_there_labels(x, y):
    """Whether the data of a `fit` has labels; `None`: only its batches tell.

    Args:
        x: As of `keras.Model.fit`; of a generator see `peeked`.
        y: Likewise.
    """
    if y is not None:
        return True
    if isinstance(getattr(x, "element_spec", None), (tuple, list, dict, tf.TypeSpec)):
        return _in_batch(x.element_spec)
    if isinstance(x, PeekedBatches):
        return _in_batch(x.first)
    if isinstance(x, keras.utils.PyDataset):
        return _in_batch(x[0]) if x.num_batches != 0 else None
    return False if ahead.is_arrays(x) else None


def peeked(generator):
    """`(are_there_labels, the same generator)`; its first batch is looked at."""
    batch = next(generator, None)
    return None if batch is None else _in_batch(batch), _whole(batch, generator)


def peekable(x):
    """Data of a `fit` whose first batch may be looked at; a `PyDataset` draws it once."""
    is_batches = isinstance(x, keras.utils.PyDataset) and x.num_batches != 0
    return PeekedBatches(x) if is_batches else x


def is_generator(x):
    """Whether Keras takes it for one."""
    return isinstance(x, types.GeneratorType)


def _whole(batch, generator):
    if batch is not None:
        yield batch
    # Not `yield from`, which would close the user's generator with this one.
    for each in generator:  # noqa: UP028
        yield each


def _in_batch(batch):
    return keras.utils.unpack_x_y_sample_weight(batch)[1] is not None


def has_unbuilt_metrics(models):
    """Whether metrics will make variables when they first see labels.

    A function that was traced without labels cannot be traced again then: TensorFlow makes
    variables in its first tracing only.
    """
    metrics = [metric for model in models for metric in model.metrics]
    return any(metric.name == "compile_metrics" and not metric.built for metric in metrics)


def results(model):
    """The results of a model's metrics but those of labels, which have seen none.

    Keras keeps what was given to `compile` in one metric, `compile_metrics`, which raises until it
    has seen labels, and then would report a 0.
    """
    found = {}
    for metric in model.metrics:
        if metric.name != "compile_metrics":
            result = metric.result()
            found.update(result if isinstance(result, dict) else {metric.name: result})
    return found
