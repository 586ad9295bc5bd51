"""A text model for a device: whose documentation is this? From a transformer to a small file.

The data is on every machine that runs this: the first sentences of the docstrings of four packages,
each with the package that it comes from. Names that would give a package away are left out. A
transformer teaches a smaller one; the student is written in several quantizations, and `kd.report`
tells what the files keep of the gain.

    python examples/text_to_device.py

Needs `pip install 'keras-kd[examples,export,measure]'`.
"""

import ast
import importlib.util
import os
import pathlib
import re

if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
from keras import layers
from to_device import EXPORTS, OPTIONS, checked_for_files

import keras_kd as kd


def text_to_device(
    train_samples=1500,
    seeds=3,
    epochs=8,
    temperature=2.0,
    exports=("float32", "dynamic", "int8"),
    output="text_to_device_output",
):
    """Distills a transformer for each seed, writes it as files, and reports what they keep.

    Args:
        train_samples: Docstrings to train on.
        seeds: How many students are trained in each way.
        epochs: Of each model.
        temperature: Of the soft targets.
        exports: Quantizations of the files, of `to_device.EXPORTS`.
        output: A folder for the page, the students and the files.

    Returns:
        The `keras_kd.Report`.
    """
    args = checked_for_files(**locals())
    samples, judged_by = load_data(args.train_samples)
    print(f"{len(samples[0])} docstrings to train on, {len(judged_by[0])} to judge by")
    keras.utils.set_random_seed(1000)
    teacher = make_transformer(64, blocks=2)
    train(teacher, samples, args.epochs)

    def distiller(teacher, student):
        losses = kd.losses.SoftTargets(args.temperature)
        return kd.Distiller(teacher, student, losses, alpha=0.3, beta=0.7)

    report = kd.report(
        teacher,
        make_student=lambda: make_transformer(16, blocks=1),
        train=lambda model: train(model, samples, args.epochs),
        distiller=distiller,
        seeds=args.seeds,
        exports={name: writer(name, samples) for name in args.exports},
        data=judged_by,
        class_names=PACKAGES,
        directory=args.output,
        title="Whose documentation is this?",
        verbose=False,
    )
    print(report)
    report.save_html(args.output / "report.html")
    print(f"Wrote report.html, the students and the files to {args.output}")
    return report


PACKAGES = ["keras", "matplotlib", "numpy", "sklearn"]
GIVE_AWAY = re.compile(r"\b(keras|matplotlib|pyplot|numpy|np|sklearn|scikit|axes|artist)\b", re.I)
WORDS, VOCABULARY = 24, 3000


def docstrings(package):
    """The beginnings of the docstrings of a package, each once."""
    folder = pathlib.Path(importlib.util.find_spec(package).origin).parent
    found = {}
    for path in sorted(folder.rglob("*.py")):
        if "test" in str(path.relative_to(folder)):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8", errors="replace"))):
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and ast.get_docstring(node):
                words = GIVE_AWAY.sub(" ", " ".join(ast.get_docstring(node).split()[:WORDS]))
                if len(words.split()) >= 6:
                    found[words] = None
    return list(found)


def load_data(count):
    """`(ids, labels)` to train on and to test on, as many of each package."""
    texts = [docstrings(package) for package in PACKAGES]
    size = min(len(each) for each in texts)
    rng = np.random.default_rng(0)
    chosen = [rng.permutation(np.array(each, dtype=object))[:size] for each in texts]
    order = rng.permutation(size * len(PACKAGES))
    words = np.concatenate(chosen)[order].astype(str)
    labels = np.repeat(np.arange(len(PACKAGES)), size)[order].astype("int32")
    if count > len(words) // 2:
        raise ValueError(f"train_samples must be at most {len(words) // 2}, received {count}")
    vectorize = layers.TextVectorization(VOCABULARY, output_sequence_length=WORDS)
    vectorize.adapt(words[:count])
    ids = vectorize(words).numpy().astype("int32")
    return (ids[:count], labels[:count]), (ids[count:], labels[count:])


class Positions(layers.Layer):
    """Adds a learned vector for each position."""

    def build(self, shape):
        self.positions = self.add_weight(shape=shape[1:], initializer="uniform", name="positions")

    def call(self, inputs):
        return inputs + self.positions


def make_transformer(width, blocks):
    inputs = keras.Input((WORDS,), dtype="int32", name="ids")
    x = Positions()(layers.Embedding(VOCABULARY, width)(inputs))
    for _ in range(blocks):
        attended = layers.MultiHeadAttention(4, width // 4)(x, x)
        x = layers.LayerNormalization(epsilon=1e-5)(layers.Add()([x, attended]))
        wide = layers.Dense(width)(layers.Dense(2 * width, activation="gelu")(x))
        x = layers.LayerNormalization(epsilon=1e-5)(layers.Add()([x, layers.Dropout(0.2)(wide)]))
    x = layers.Dropout(0.3)(layers.GlobalAveragePooling1D()(x))
    return keras.Model(inputs, layers.Dense(len(PACKAGES))(x))


def train(model, samples, epochs):
    steps = epochs * -(-len(samples[0]) // 32)
    model.compile(
        keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(2e-3, steps)),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    return model.fit(*samples, batch_size=32, epochs=epochs, verbose=0)


def writer(name, samples):
    """A function that writes a student as a file of that quantization."""

    def write(student, path):
        rows = samples[0][:300]
        options = {"representative_data": rows, "min_agreement": 0.0, "verbose": 0}
        kd.export.to_tflite(student, path, EXPORTS[name], **options)  # the report tells the loss

    return write


def main():
    from command_line import run

    run(text_to_device, checked_for_files, OPTIONS)


if __name__ == "__main__":
    main()
