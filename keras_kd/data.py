"""Data for distillation: views that teacher and student share, and inputs without labels.

The transforms change a batched `tf.data.Dataset` before it reaches the distiller, so that teacher
and student see the very same input. A teacher that sees another view ("fixed teaching") teaches
worse, as the paper below measures.

Reference: Beyer et al., "Knowledge distillation: A good teacher is patient and consistent",
https://arxiv.org/abs/2106.05237
"""

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_kd._utils import batches, validation
from keras_kd._utils.validation import invalid
from keras_kd.losses import base

__all__ = ["cutmix", "mixup", "noise", "with_unlabeled", "with_unlabelled"]

# Probabilities of half precision may be a little above 1.
_ROUNDING = 1e-2


def mixup(
    dataset: tf.data.Dataset, num_classes: int, alpha: float = 1.0, seed: int | None = None
) -> tf.data.Dataset:
    """Mixes each sample with another one of its batch, both inputs and labels.

    `x_i <- m x_i + (1 - m) x_j`, `y_i <- m y_i + (1 - m) y_j` with `m` from `Beta(alpha, alpha)`
    per sample, and a random `j`. The labels become probabilities: use
    `keras.losses.CategoricalCrossentropy(from_logits=True)`.

    Args:
        dataset: A batched `tf.data.Dataset` of `(inputs, labels)` or of inputs alone. Inputs may
            be a structure of float tensors; labels are class indices, integers `[batch]` or
            `[batch, 1]`, or probabilities `[batch, classes]`.
        num_classes: Number of classes.
        alpha: A number above 0; at 1 all mixtures are equally probable, near 0 samples hardly
            change.
        seed: An integer for the same mixtures in each run; they differ from epoch to epoch.

    Returns:
        A `tf.data.Dataset` of the same structure, with labels `[batch, classes]`, float32.

    Raises:
        ValueError: `dataset` is not a batched `tf.data.Dataset`; `alpha` is not above 0; inputs are
            not floats; labels are numbers, not classes, or have another number of classes; or the
            dataset has sample weights, which cannot be mixed.
        tf.errors.InvalidArgumentError: While it is read: a label is not a class below
            `num_classes`, or not a probability.

    Example:

    ```python
    import numpy as np
    import tensorflow as tf
    import keras_kd as kd

    x, y = np.random.normal(size=(8, 4)).astype("float32"), np.arange(8) % 3
    data = tf.data.Dataset.from_tensor_slices((x, y)).batch(4)
    for inputs, labels in kd.data.mixup(data, num_classes=3):
        assert inputs.shape == (4, 4)
        np.testing.assert_allclose(np.sum(labels, axis=1), 1.0, rtol=1e-6)
    ```

    Reference: Zhang et al., "mixup: Beyond Empirical Risk Minimization",
    https://arxiv.org/abs/1710.09412
    """
    alpha = validation.positive("alpha", alpha)
    num_classes = validation.integer("num_classes", num_classes, 1)
    seeds = keras.random.SeedGenerator(validation.seed("seed", seed))
    _check_labels("mixup", dataset, num_classes)
    _check_floats("mixup", dataset)

    def mix(inputs, labels=None):
        rows = tf.shape(keras.tree.flatten(inputs)[0])[0]
        share = keras.random.beta((rows,), alpha, alpha, seed=seeds)
        partners = tf.argsort(keras.random.uniform((rows,), seed=seeds))

        def mixed(x):
            part = tf.cast(base.align_weights(share, x), x.dtype)
            return part * x + (1 - part) * tf.gather(x, partners)

        inputs = keras.tree.map_structure(mixed, inputs)
        return inputs if labels is None else (inputs, mixed(_probabilities(labels, num_classes)))

    return dataset.map(mix)


def cutmix(
    dataset: tf.data.Dataset, num_classes: int, alpha: float = 1.0, seed: int | None = None
) -> tf.data.Dataset:
    """Puts a rectangle of another image into each image, and mixes their labels by its area.

    The rectangle has the image's proportions, a random center, and the area `1 - m` with `m` from
    `Beta(alpha, alpha)`, less what lies outside of the image; labels are mixed by the area that was
    replaced (`keras.layers.CutMix` of Keras 3.15 mixes them by a different one). The labels
    become probabilities, as in `mixup`.

    Args:
        dataset: A batched `tf.data.Dataset` of `(images, labels)`, images `[batch, height, width,
            channels]`, labels as in `mixup`.
        num_classes: Number of classes.
        alpha: A number above 0: areas are from `Beta(alpha, alpha)`.
        seed: An integer for the same rectangles in each run.

    Returns:
        A `tf.data.Dataset` of `(images, labels)`, labels `[batch, classes]`, float32.

    Raises:
        ValueError: `dataset` is not a batched `tf.data.Dataset` of images; `alpha` is not above 0;
            labels are numbers, not classes, or have another number of classes; or the dataset has
            sample weights or no labels.
        tf.errors.InvalidArgumentError: While it is read: a label is not a class below
            `num_classes`, or not a probability.

    Example:

    ```python
    import numpy as np
    import tensorflow as tf
    import keras_kd as kd

    x, y = np.random.normal(size=(8, 6, 6, 1)).astype("float32"), np.arange(8) % 3
    data = tf.data.Dataset.from_tensor_slices((x, y)).batch(4)
    for images, labels in kd.data.cutmix(data, num_classes=3):
        np.testing.assert_allclose(np.sum(labels, axis=1), 1.0, rtol=1e-6)
    ```

    Reference: Yun et al., "CutMix", https://arxiv.org/abs/1905.04899
    """
    alpha = validation.positive("alpha", alpha)
    num_classes = validation.integer("num_classes", num_classes, 1)
    _check_labels("cutmix", dataset, num_classes)
    _check_images(dataset)
    seeds = keras.random.SeedGenerator(validation.seed("seed", seed))

    def mix(images, labels):
        rows = tf.shape(images)[0]
        side = tf.sqrt(1.0 - keras.random.beta((rows,), alpha, alpha, seed=seeds))
        partners = tf.argsort(keras.random.uniform((rows,), seed=seeds))
        vertical, horizontal = (_inside(tf.shape(images)[axis], side, seeds) for axis in (1, 2))
        replaced = vertical[:, :, None] & horizontal[:, None, :]
        share = tf.reduce_mean(tf.cast(replaced, tf.float32), axis=(1, 2))[:, None]
        labels = _probabilities(labels, num_classes)
        labels = (1.0 - share) * labels + share * tf.gather(labels, partners)
        return tf.where(replaced[..., None], tf.gather(images, partners), images), labels

    return dataset.map(mix)


def _inside(length, side, seeds):
    """`[batch, length]`: whether a position lies in an interval of a share of the length."""
    length = tf.cast(length, tf.float32)
    center = length * keras.random.uniform(tf.shape(side), seed=seeds)
    positions = tf.range(length) + 0.5
    return tf.abs(positions[None, :] - center[:, None]) < 0.5 * (length * side)[:, None]


def noise(dataset: tf.data.Dataset, stddev: float, seed: int | None = None) -> tf.data.Dataset:
    """Adds Gaussian noise to the inputs; labels and sample weights stay.

    Args:
        dataset: A batched `tf.data.Dataset` of inputs, `(inputs, labels)` or `(inputs, labels,
            sample_weight)`; inputs may be a structure of float tensors.
        stddev: Standard deviation, at least 0, in units of the inputs.
        seed: An integer for the same noise in each run; it differs from epoch to epoch.

    Returns:
        A `tf.data.Dataset` of the same structure.

    Raises:
        ValueError: `dataset` is not a batched `tf.data.Dataset`, `stddev` is not a number, at least
            0, or inputs are not floats.

    Example:

    ```python
    import tensorflow as tf
    import keras_kd as kd

    data = tf.data.Dataset.from_tensor_slices((tf.zeros((8, 4)), tf.range(8))).batch(4)
    for inputs, labels in kd.data.noise(data, 0.1):
        assert float(tf.reduce_max(tf.abs(inputs))) > 0
    ```

    Reference: Sau and Balasubramanian, "Deep Model Compression: Distilling Knowledge from Noisy
    Teachers", https://arxiv.org/abs/1610.09650 (there the teacher's logits are disturbed).
    """
    stddev = validation.non_negative("stddev", stddev)
    _check_floats("noise", batches.batched("dataset", dataset))
    seeds = keras.random.SeedGenerator(validation.seed("seed", seed))

    def disturbed(x):
        return x + tf.cast(keras.random.normal(tf.shape(x), stddev=stddev, seed=seeds), x.dtype)

    def disturb(inputs, *others):
        inputs = keras.tree.map_structure(disturbed, inputs)
        return (inputs, *others) if others else inputs

    return dataset.map(disturb)


def with_unlabeled(labeled: Any, unlabeled: Any, ignore_class: Any = -1) -> tf.data.Dataset:
    """Adds a batch of inputs without labels to each labeled batch.

    The teacher teaches all samples, the labels only their own: samples without a label get the
    class `ignore_class`, which `keras.losses.SparseCategoricalCrossentropy(from_logits=True,
    ignore_class=-1)` ignores (without that argument such a label is an error or makes the loss
    NaN); where labels are probabilities they get zeros, whose cross-entropy is 0. Compile the
    distiller with such a loss, and judge by the metrics of validation data, which do not count
    them.

    Args:
        labeled: A batched `tf.data.Dataset` of `(inputs, labels)`, labels class indices `[batch]`
            or `[batch, ..., 1]`, or probabilities `[batch, ..., classes]`, float; or a structure of
            them.
        unlabeled: A batched `tf.data.Dataset` of inputs of the same structure, repeated as often
            as needed.
        ignore_class: The class of samples without a label.

    Returns:
        A `tf.data.Dataset` of `(inputs, labels)`, as long as `labeled`.

    Raises:
        ValueError: The datasets have different structures, or labels are integers of an ambiguous
            shape.

    Example:

    ```python
    import tensorflow as tf
    import keras_kd as kd

    labeled = tf.data.Dataset.from_tensor_slices((tf.zeros((4, 2)), [0, 1, 2, 0])).batch(2)
    unlabeled = tf.data.Dataset.from_tensor_slices(tf.ones((9, 2))).batch(3)
    for inputs, labels in kd.data.with_unlabeled(labeled, unlabeled):
        assert inputs.shape == (5, 2)
        assert list(labels.numpy()[2:]) == [-1, -1, -1]
    ```
    """
    spec = batches.batched("labeled", labeled).element_spec
    if not isinstance(spec, tuple) or len(spec) != 2:
        raise ValueError(
            "`labeled` must be a dataset of (inputs, labels), without sample weights. Received: "
            f"elements {spec}"
        )
    keras.tree.map_structure(_check_form, spec[1])
    _check_same_inputs(spec[0], batches.batched("unlabeled", unlabeled).element_spec)
    if unlabeled.cardinality() == 0:
        raise ValueError(
            "`unlabeled` is empty: it would leave no batch of the labeled rows. Received: a "
            "dataset of 0 batches. Train on `labeled` alone, or look for the filter that is too "
            "strict."
        )
    is_integer = isinstance(ignore_class, (int, np.integer)) and not isinstance(ignore_class, bool)
    if not is_integer:
        expected = "an integer that is not a class, such as -1"
        raise invalid("ignore_class", expected, repr(ignore_class))

    def join(element, more):
        inputs, labels = element
        rows = tf.shape(keras.tree.flatten(more)[0])[0]
        inputs = keras.tree.map_structure(lambda a, b: tf.concat([a, b], 0), inputs, more)

        def lengthened(labels):
            nothing = tf.cast(ignore_class if _is_index(labels) else 0, labels.dtype)
            empty = tf.fill(tf.concat([[rows], tf.shape(labels)[1:]], 0), nothing)
            return tf.concat([labels, empty], 0)

        return inputs, keras.tree.map_structure(lengthened, labels)

    return tf.data.Dataset.zip((labeled, unlabeled.repeat())).map(join)


def with_unlabelled(labelled: Any, unlabelled: Any, ignore_class: Any = -1) -> tf.data.Dataset:
    """`with_unlabeled`, as earlier versions spelled it and its arguments.

    Args:
        labelled: See `with_unlabeled`.
        unlabelled: See `with_unlabeled`.
        ignore_class: See `with_unlabeled`.

    Returns:
        See `with_unlabeled`.

    Example:

    ```python
    import tensorflow as tf
    import keras_kd as kd

    labeled = tf.data.Dataset.from_tensor_slices((tf.zeros((4, 2)), [0, 1, 2, 0])).batch(2)
    more = tf.data.Dataset.from_tensor_slices(tf.ones((9, 2))).batch(3)
    assert len(list(kd.data.with_unlabelled(labeled, more))) == 2
    ```
    """
    batches.batched("labelled", labelled)  # codespell:ignore labelled
    batches.batched("unlabelled", unlabelled)  # codespell:ignore unlabelled
    return with_unlabeled(labelled, unlabelled, ignore_class)


def _is_index(labels):
    """Whether labels, or their spec, are class indices rather than probabilities."""
    return len(labels.shape) == 1 or labels.shape[-1] == 1


def _probabilities(labels, num_classes):
    if not _is_index(labels):
        labels = tf.cast(labels, tf.float32)
        # Not that they sum to 1: samples with several labels or none do not. NaN is outside.
        inside = (labels >= 0) & (labels <= 1 + _ROUNDING)
        check = tf.debugging.Assert(
            tf.reduce_all(inside),
            [
                "The labels of the dataset must be probabilities from 0 to 1, one for each of "
                f"{num_classes} classes. Pass class indices, or probabilities of your own. "
                "Received labels:",
                tf.boolean_mask(labels, ~inside),
            ],
        )
        with tf.control_dependencies([check] if check is not None else []):
            return tf.identity(labels)
    labels = labels if len(labels.shape) == 1 else tf.squeeze(labels, -1)
    outside = tf.boolean_mask(labels, (labels < 0) | (labels >= num_classes))
    # Its probabilities would be zeros: such a sample teaches that it belongs to no class.
    check = tf.debugging.Assert(
        tf.size(outside) == 0,
        [
            f"The labels of the dataset must be classes from 0 to {num_classes - 1}, because "
            f"num_classes={num_classes}. Pass the number of classes of the data, and leave out "
            "rows without a label. Received labels:",
            outside,
        ],
    )
    with tf.control_dependencies([check] if check is not None else []):
        return tf.one_hot(tf.cast(labels, tf.int32), num_classes)


def _check_form(labels):
    if labels.dtype.is_integer and not _is_index(labels):
        raise ValueError(
            f"Integer labels of shape {labels.shape} may be a class for each position or zeros and "
            "ones for each class, and rows without labels look different in them. Give the classes "
            "of positions a last axis of size 1, or cast zeros and ones to float32."
        )


def _check_labels(name, dataset, num_classes):
    spec = batches.batched("dataset", dataset).element_spec
    if isinstance(spec, tuple) and len(spec) > 2:
        raise ValueError(
            f"{name} cannot mix sample weights. Received a dataset of {len(spec)} parts; leave the "
            "weights out."
        )
    if isinstance(spec, tuple) and keras.tree.is_nested(spec[1]):
        raise ValueError(
            f"{name} mixes one tensor of labels. Received: labels {spec[1]}. Mix them yourself, or "
            "choose one: dataset.map(lambda x, y: (x, y[key]))."
        )
    if isinstance(spec, tuple) and _is_index(spec[1]) and not spec[1].dtype.is_integer:
        raise ValueError(
            f"{name} makes probabilities of class indices, which are integers. Received: labels of "
            f"type {spec[1].dtype.name} and shape {spec[1].shape}. Cast them with tf.cast(labels, "
            f"'int32') if they are classes; {name} does not mix other numbers."
        )
    is_given = isinstance(spec, tuple) and not _is_index(spec[1])
    if is_given and spec[1].shape[-1] not in (None, num_classes):
        raise invalid(
            "num_classes",
            f"the size of the last axis of the labels, {spec[1].shape[-1]}",
            num_classes,
        )


def _check_images(dataset):
    spec = dataset.element_spec
    if not isinstance(spec, tuple):
        raise ValueError("cutmix needs a dataset of (images, labels). Received one of images.")
    parts = keras.tree.flatten(spec[0])
    if len(parts) != 1 or len(parts[0].shape) != 4:
        raise ValueError(
            "cutmix needs images of shape [batch, height, width, channels]. Received: inputs of "
            f"shape {[tuple(part.shape) for part in parts]}. For other inputs use "
            "keras_kd.data.mixup."
        )
    if len(spec[1].shape) > 2:
        raise ValueError(
            "cutmix mixes one label a row: class indices [batch] or [batch, 1], or probabilities "
            f"[batch, classes]. Received: labels of shape {tuple(spec[1].shape)}. For a label at "
            "each position use keras_kd.data.mixup."
        )


def _check_same_inputs(labeled, unlabeled):
    """Raises unless samples of both fit in one batch."""
    if isinstance(unlabeled, tuple) and not isinstance(labeled, tuple):
        raise ValueError(
            "`unlabeled` must be a dataset of inputs alone. Received: elements of "
            f"{len(unlabeled)} parts. Leave the others out: unlabeled.map(lambda x, *_: x)."
        )
    try:
        keras.tree.assert_same_structure(labeled, unlabeled)
        pairs = list(zip(*map(keras.tree.flatten, (labeled, unlabeled)), strict=True))
    except (TypeError, ValueError) as error:
        raise _different_inputs(labeled, unlabeled) from error
    if not all(
        one.dtype == other.dtype and one.shape[1:].is_compatible_with(other.shape[1:])
        for one, other in pairs
    ):
        raise _different_inputs(labeled, unlabeled)


def _different_inputs(labeled, unlabeled):
    return ValueError(
        "`labeled` and `unlabeled` must have the same inputs: structure, type, and shape but for "
        f"the batch. Received: labeled {labeled}, unlabeled {unlabeled}"
    )


def _check_floats(name, dataset):
    spec = dataset.element_spec
    inputs = keras.tree.flatten(spec[0] if isinstance(spec, tuple) else spec)
    wrong = [x.dtype.name for x in inputs if not x.dtype.is_floating]
    if wrong:
        raise ValueError(
            f"{name} computes with the inputs, which must be floats. Received: inputs of type "
            f"{', '.join(wrong)}. Cast them first: dataset.map(lambda x, y: (tf.cast(x, 'float32'),"
            " y))."
        )
