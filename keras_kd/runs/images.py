"""Images in a folder by class: found, read once to find those that cannot be, and resized."""

import hashlib
import pathlib
from typing import Any

import numpy as np
import tensorflow as tf

from keras_kd.cache.sources.images import SUFFIXES
from keras_kd.runs import samples
from keras_kd.runs.reading import Configuration
from keras_kd.runs.samples import Samples

# Up to here all pixels stay in memory; larger data is read again in each epoch.
_IN_MEMORY = 2**30
# Names in a message.
_MOST_NAMED = 5
PLACE = "data.images"


def load(config: Configuration) -> Samples:
    """Reads all images once.

    Raises:
        ValueError: A folder lacks classes or images, or an image cannot be read.
    """
    section, seed = config.values.data.chosen, config.values.seed
    folder = pathlib.Path(section.folder)
    classes = _classes(config, folder, "folder")
    found = {"train": _files(config, folder, classes, "folder")}
    shares = {}
    for part in ("validation", "test"):
        given = getattr(section, part)
        if isinstance(given, str):
            other = pathlib.Path(given)
            _same_classes(config, part, _classes(config, other, part), classes)
            found[part] = _files(config, other, classes, part)
        else:
            shares[part] = given
    paths, labels, indices = _parted(config, found, shares, classes, seed)
    reader = _Reader(section.size, 1 if section.color == "gray" else 3)
    pixels, digest = _read_all(config, paths, reader)
    parts = {}
    for part in samples.PARTS:
        chosen = indices[part]
        if pixels is not None:
            source = tf.data.Dataset.from_tensor_slices((pixels[chosen], labels[chosen]))
            read: Any = _as_float
        else:
            names = [str(paths[i]) for i in chosen]
            source = tf.data.Dataset.from_tensor_slices((names, labels[chosen]))
            read = reader.read_sample
        parts[part] = source.map(read, num_parallel_calls=tf.data.AUTOTUNE).batch(
            section.batch_size
        )
    return Samples(
        kind="images",
        parts=parts,
        counts={part: len(indices[part]) for part in samples.PARTS},
        classes=classes,
        batch_size=section.batch_size,
        shape=(*section.size, reader.channels),
        dtype="float32",
        preprocessing={
            "input": "pixels from 0 to 255 as float32",
            "size": section.size,
            "channels": reader.channels,
            "resizing": "bilinear, antialiased, without keeping the ratio of the sides",
            "classes": classes,
        },
        digest=digest,
        notes=[],
    )


def _classes(config, folder, key):
    place = f"{PLACE}.{key}"
    if not folder.is_dir():
        raise config.error(
            place,
            f"there is no folder {str(folder)!r}. Name a folder that holds one for each "
            "class; paths begin where the command is started.",
        )
    classes = sorted(each.name for each in folder.iterdir() if _is_class(each))
    if len(classes) < 2:
        what = f"only {classes[0]!r}" if classes else "none"
        raise config.error(
            place,
            f"expected a folder of images for each of two classes or more in "
            f"{str(folder)!r}. Found: {what}. Move the images into folders named by class.",
        )
    return classes


def _is_class(path):
    return path.is_dir() and not path.name.startswith((".", "__"))


def _same_classes(config, part, found, expected):
    if found != expected:
        missing, more = sorted({*expected} - {*found}), sorted({*found} - {*expected})
        parts = [f"missing: {', '.join(missing)}" if missing else ""]
        parts.append(f"unknown: {', '.join(more)}" if more else "")
        raise config.error(
            f"{PLACE}.{part}",
            "its classes must be those of data.images.folder. "
            f"{'; '.join(filter(None, parts))}. Add or rename folders.",
        )


def _files(config, folder, classes, key):
    """`{class: paths}`."""
    found = {}
    for name in classes:
        inside = sorted((folder / name).rglob("*"))
        found[name] = [each for each in inside if each.suffix.lower() in SUFFIXES]
        if not found[name]:
            raise config.error(
                f"{PLACE}.{key}",
                f"{str(folder / name)!r} holds no image. Expected files that end "
                f"in {', '.join(SUFFIXES)}. Add some, or remove the folder.",
            )
    return found


def _parted(config, found, shares, classes, seed):
    """All paths, their classes, and which of them each part has."""
    paths: list[pathlib.Path] = []
    labels: list[int] = []
    starts = {}
    for part, by_class in found.items():
        starts[part] = len(paths)
        for number, name in enumerate(classes):
            paths += by_class[name]
            labels += [number] * len(by_class[name])
    numbers = np.array(labels, "int32")
    end = min([start for part, start in starts.items() if part != "train"], default=len(paths))
    try:
        indices = samples.split(numbers[:end], classes, shares, seed)
    except ValueError as error:
        raise config.error(f"{PLACE}.{next(iter(shares), 'folder')}", str(error)) from None
    bounds = sorted([*starts.values(), len(paths)])
    for part, start in starts.items():
        if part != "train":
            indices[part] = np.arange(start, bounds[bounds.index(start) + 1])
    return paths, numbers, indices


class _Reader:
    """Reads a file as pixels, in TensorFlow operations."""

    def __init__(self, size, channels):
        self.size, self.channels = size, channels

    def read(self, path: tf.Tensor) -> tf.Tensor:
        """The resized pixels of a file, rounded to bytes."""
        decoded = tf.io.decode_image(tf.io.read_file(path), self.channels, expand_animations=False)
        pixels = tf.image.resize(decoded, self.size, antialias=True)
        return tf.cast(tf.clip_by_value(tf.round(pixels), 0.0, 255.0), tf.uint8)

    def read_sample(self, path: tf.Tensor, label: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """One sample."""
        pixels = tf.ensure_shape(self.read(path), (*self.size, self.channels))
        return tf.cast(pixels, tf.float32), label


def _as_float(pixels, label):
    return tf.cast(pixels, tf.float32), label


def _read_all(config, paths, reader):
    """The pixels of all images, or `None` where they are too many; a digest of the files."""
    shape = (len(paths), *reader.size, reader.channels)
    keeps = int(np.prod(shape)) <= _IN_MEMORY
    pixels = np.empty(shape, "uint8") if keeps else None
    digest, broken = hashlib.sha256(), []
    for i, path in enumerate(paths):
        digest.update(f"{path.parent.name}/{path.name}".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
        try:
            read = reader.read(str(path)).numpy()
        except tf.errors.InvalidArgumentError as error:
            broken.append(f"{str(path)!r} ({str(error.message).partition(' [Op:')[0]})")
            continue
        if pixels is not None:
            pixels[i] = read
    if broken:
        more = f" and {len(broken) - _MOST_NAMED} more" if len(broken) > _MOST_NAMED else ""
        raise config.error(
            PLACE,
            f"{len(broken)} of {len(paths)} images cannot be read: "
            f"{', '.join(broken[:_MOST_NAMED])}{more}. Replace or remove them.",
        )
    return pixels, digest.hexdigest()
