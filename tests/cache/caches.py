"""A small teacher and dataset, and caches of them."""

import keras
import numpy as np
import tensorflow as tf

import keras_kd as kd

ROWS, BATCH, FEATURES, CLASSES = 71, 8, 5, 7


def arrays(rows=ROWS, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(rows, FEATURES)).astype("float32"), rng.integers(CLASSES, size=rows)


def dataset(x=None, y=None, batch=BATCH):
    first, second = arrays()
    parts = (first if x is None else x, second if y is None else y)
    return tf.data.Dataset.from_tensor_slices(parts).batch(batch)


def model(seed, classes=CLASSES, name=None):
    """A model with an inner layer `"h"`."""
    built = keras.Sequential(
        [
            keras.Input((FEATURES,)),
            keras.layers.Dense(6, activation="tanh", name="h"),
            keras.layers.Dense(classes, name="logits"),
        ],
        name=name,
    )
    rng = np.random.default_rng(seed)
    built.set_weights([rng.normal(size=weight.shape) for weight in built.weights])
    return built


def written(path, teacher=None, data=None, **options):
    """A cache of float32 with several shards."""
    options = {"dtype": "float32", "batches_per_shard": 2, "verbose": 0, **options}
    return kd.cache_teacher(
        model(1) if teacher is None else teacher,
        dataset() if data is None else data,
        path,
        **options,
    )


def read(data):
    """All of a joined dataset: inputs, outputs and taps of all rows, arrays."""
    inputs, outputs, taps = [], [], []
    for element in data:
        x = element[0]
        inputs.append(x["inputs"].numpy())
        outputs.append(keras.tree.map_structure(np.asarray, x["keras_kd_teacher"]["outputs"]))
        (found,) = x["keras_kd_teacher"]["taps"].values()
        taps.append(keras.tree.map_structure(np.asarray, found))
    together = lambda *parts: np.concatenate(parts)  # noqa: E731
    return (
        np.concatenate(inputs),
        keras.tree.map_structure(together, *outputs),
        keras.tree.map_structure(together, *taps),
    )


def contents(path):
    """Every file of a cache, by its path within it; without locks, which are empty."""
    return {
        file.relative_to(path).as_posix(): file.read_bytes()
        for file in sorted(path.rglob("*"))
        if file.is_file() and file.parent.name != "locks"
    }


def from_logits():
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def trained(teacher, data, losses=None, mode="graph", epochs=2, student=None):
    """The history and the student of a fit."""
    student = model(2) if student is None else student
    distiller = kd.Distiller(teacher, student, losses)
    options = {"eager": {"run_eagerly": True}, "graph": {"jit_compile": False}}
    options["xla"] = {"jit_compile": True}
    distiller.compile(keras.optimizers.SGD(0.1), from_logits(), **options[mode])
    history = distiller.fit(data, epochs=epochs, shuffle=False, verbose=0).history
    return history, student
