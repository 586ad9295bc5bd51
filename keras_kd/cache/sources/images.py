"""A folder of images by class, as shards of files."""

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_kd._utils import validation
from keras_kd._utils.validation import invalid
from keras_kd.cache.sources import base
from keras_kd.cache.sources import files as source_files

# What `tf.io.decode_image` reads, and Keras looks for.
SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png")
_CHANNELS = {"grayscale": 1, "rgb": 3, "rgba": 4}
_INTERPOLATIONS = (
    "area",
    "bicubic",
    "bilinear",
    "gaussian",
    "lanczos3",
    "lanczos5",
    "mitchellcubic",
    "nearest",
)
# `keras.preprocessing.image.smart_resize` has no others.
_CROPPING = ("bicubic", "bilinear", "lanczos3", "lanczos5", "nearest")
# How files of these kinds begin.
_BEGINNINGS = [b"BM", b"GI", b"\xff\xd8", b"\x89P"]


class Images(base.CutSource):
    """A folder of images, cut by files: pixels, labels and order of Keras.

    They are those of `keras.utils.image_dataset_from_directory(folder, image_size=image_size,
    shuffle=False)`. When the source is made, all files are listed and none is opened.

    Args:
        folder: Holds a folder of images for each class, or images, where `labels` is `None`.
        image_size: `(height, width)` to which images are resized.
        batch_size: Images of a batch. The last one of a shard may have fewer.
        rows_per_shard: Images of a shard. The last one may have fewer.
        labels: `"folders"` for class indices, int32, in the order of the folders' names, or `None`
            for images alone.
        color_mode: `"rgb"`, `"rgba"` or `"grayscale"`. Of JPEG files none is `"rgba"`, and of
            GIF files all are `"rgb"`, as in Keras.
        interpolation: How images are resized, such as `"bilinear"`; as in Keras.
        crop_to_aspect_ratio: Whether to cut off what would else be squeezed.
        augment: A function `(image[, label], seed)` of a sample that returns the one to take its
            place, with stateless random operations; see `kd.cache.sources`.
        seed: An integer, at least 0, for other augmentations.

    Raises:
        ValueError: An argument is wrong, or the folder holds no images.
        FileNotFoundError: When a shard is read: a file is gone. One whose size has changed is a
            `ValueError`.
        tf.errors.InvalidArgumentError: While a shard is read: a file is not an image.

    Example:

    ```python
    import pathlib
    import tempfile
    import keras
    import numpy as np
    import keras_kd as kd

    folder = pathlib.Path(tempfile.mkdtemp())
    for name in ("cat", "dog"):
        (folder / name).mkdir()
        for i in range(3):
            keras.utils.save_img(folder / name / f"{i}.png", np.full((12, 10, 3), 40 * i))
    source = kd.cache.sources.Images(folder, image_size=(8, 8), batch_size=2, rows_per_shard=4)
    assert source.shards == 2
    images, labels = next(iter(source(0, 1)))
    assert images.shape == (2, 8, 8, 3)
    assert labels.numpy().tolist() == [1, 1]
    ```
    """

    def __init__(
        self,
        folder: str | os.PathLike,
        *,
        image_size: Sequence[int],
        batch_size: int,
        rows_per_shard: int,
        labels: str | None = "folders",
        color_mode: str = "rgb",
        interpolation: str = "bilinear",
        crop_to_aspect_ratio: bool = False,
        augment: Callable | None = None,
        seed: int = 0,
    ) -> None:
        place = validation.path("folder", folder, "a folder of images")
        self._size = _checked_size(image_size)
        batch_size = validation.integer("batch_size", batch_size, 1)
        self._rows_per_shard = validation.integer("rows_per_shard", rows_per_shard, 1)
        if labels is not None and labels != "folders":
            raise invalid("labels", "'folders' or None", repr(labels))
        self._channels = _CHANNELS[validation.one_of("color_mode", color_mode, _CHANNELS)]
        self._crops = validation.boolean("crop_to_aspect_ratio", crop_to_aspect_ratio)
        choices = _CROPPING if self._crops else _INTERPOLATIONS
        self._interpolation = validation.one_of("interpolation", interpolation, choices)
        if not os.path.isdir(place):
            raise invalid("folder", "a folder that is there", repr(place))
        place = os.path.abspath(place)
        self._classes = None if labels is None else _folders(place)
        names, self._labels = _listed(place, self._classes)
        self._files = source_files.listed(place, names)
        super().__init__(-(-len(names) // self._rows_per_shard), batch_size, augment, seed)

    def describe(self) -> dict[str, Any]:
        # There may be millions of files.
        listed = json.dumps([self._files.describe(), self._labels]).encode()
        return {
            **super().describe(),
            "rows": len(self._files),
            "rows_per_shard": self._rows_per_shard,
            "bytes": sum(self._files.sizes),
            "digest_of_names_and_sizes": hashlib.sha256(listed).hexdigest(),
            "classes": self._classes,
            "image_size": list(self._size),
            "channels": self._channels,
            "interpolation": self._interpolation,
            "crop_to_aspect_ratio": self._crops,
        }

    def _numbers(self, shard: int) -> range:
        start = shard * self._rows_per_shard
        return range(start, min(start + self._rows_per_shard, len(self._files)))

    def _check(self, shard: int) -> None:
        for number in self._numbers(shard):
            self._files.check(number)

    def _rows(self, shard: int) -> int:
        return len(self._numbers(shard))

    def _read(self, shard: int) -> tf.data.Dataset:
        numbers = self._numbers(shard)
        places = base.rows(numbers[0], numbers[-1] + 1)
        paths = [self._files.path(number) for number in numbers]
        parts: tuple = (places, paths)
        if self._classes is not None:
            parts += (tf.constant([self._labels[number] for number in numbers], tf.int32),)
        return tf.data.Dataset.from_tensor_slices(parts).map(
            self._sample, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True
        )

    def _sample(self, place: tf.Tensor, path: tf.Tensor, label: tf.Tensor | None = None) -> tuple:
        image = self._image(path)
        return place, (image if label is None else (image, label))

    def _image(self, path: tf.Tensor) -> tf.Tensor:
        data = tf.io.read_file(path)
        is_image = tf.reduce_any(tf.strings.substr(data, 0, 2) == tf.constant(_BEGINNINGS))
        message = "Not an image (.bmp, .gif, .jpg or .png): replace or remove the file."
        with tf.control_dependencies([tf.debugging.Assert(is_image, [message, path])]):
            image = tf.io.decode_image(data, self._channels, expand_animations=False)
        if self._crops:
            image = keras.preprocessing.image.smart_resize(
                image, self._size, self._interpolation, data_format="channels_last"
            )
        else:
            image = tf.image.resize(image, self._size, self._interpolation)
        return tf.ensure_shape(image, (*self._size, self._channels))


def _checked_size(size: Any) -> tuple[int, int]:
    is_pair = isinstance(size, (list, tuple)) and len(size) == 2
    if not is_pair or not all(validation.is_integer(each) and each > 0 for each in size):
        raise invalid("image_size", "(height, width), two integers above 0", repr(size))
    return int(size[0]), int(size[1])


def _folders(folder: str) -> list[str]:
    found = [each for each in sorted(os.listdir(folder)) if not each.startswith(".")]
    return [each for each in found if os.path.isdir(os.path.join(folder, each))]


def _listed(folder: str, classes: list[str] | None) -> tuple[list[str], list[int]]:
    """The names of the images relative to the folder, and their classes, in the order of Keras."""
    names: list[str] = []
    labels: list[int] = []
    for label, each in enumerate([""] if classes is None else classes):
        before = len(names)
        walk = sorted(os.walk(os.path.join(folder, each)), key=lambda found: found[0])
        for inside, _, files in walk:
            images = [file for file in sorted(files) if file.lower().endswith(SUFFIXES)]
            names += [os.path.relpath(os.path.join(inside, file), folder) for file in images]
        labels += [label] * (len(names) - before)
    if not names:
        what = "images" if classes is None else "a folder of images for each class"
        raise invalid("folder", f"{what}: files that end in {', '.join(SUFFIXES)}", repr(folder))
    return names, labels
