"""An epoch of distillation against what it is made of, and against keras.distillation.

A distillation step runs the teacher forward and trains the student, so it cannot take less than
an epoch of plain student training plus the teacher's inference over the same batches
(`teacher.predict`). The first ratio is how close keras_kd comes to that sum; the second compares
it with `keras.distillation.Distiller` and `LogitsDistillation(loss=KLDivergence())`.

Everything runs in this one process: each round has one epoch of each, in turns, on the same
batches and with the same optimizer, loss and metric. The columns are medians over the rounds; a
ratio is the median of the ratios within a round, which other work on the machine disturbs least.
`fit` and `predict` are timed whole, as a user calls them.

    python benchmarks/epoch.py
    python benchmarks/epoch.py --models cnn --repeats 30 --jit
"""

import argparse
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ["CUDA_VISIBLE_DEVICES"] = "-1"  # the CPU is what is measured

import keras
import numpy as np
import tensorflow as tf
from keras import layers
from rounds import measure, median

import keras_kd as kd

TEMPERATURE = 4.0
LABEL_WEIGHT = 0.5
BATCH = 64


def mlp(units, inputs=784, classes=10):
    hidden = [layers.Dense(units, activation="relu") for _ in range(2)]
    return keras.Sequential([layers.Input([inputs]), *hidden, layers.Dense(classes)])


def cnn(filters, depth):
    stack = [layers.Input([32, 32, 3])]
    for level in range(3):
        for _ in range(depth):
            stack += [layers.Conv2D(filters << level, 3, padding="same", use_bias=False)]
            stack += [layers.BatchNormalization(), layers.ReLU()]
        stack += [layers.MaxPooling2D()]
    return keras.Sequential([*stack, layers.GlobalAveragePooling2D(), layers.Dense(10)])


# Name: teacher, student, samples in an epoch.
MODELS = {
    "mlp": (lambda: mlp(512), lambda: mlp(32), 8192),
    "classes": (lambda: mlp(256, 128, 8192), lambda: mlp(64, 128, 8192), 4096),
    "cnn": (lambda: cnn(16, 1), lambda: cnn(4, 1), 2048),
    "deep": (lambda: cnn(32, 2), lambda: cnn(8, 1), 512),
}


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--models", nargs="+", choices=list(MODELS), default=list(MODELS))
    add("--repeats", type=int, default=15)
    add("--threads", type=int, default=len(os.sched_getaffinity(0)))
    add("--jit", action="store_true", help="compile all models with jit_compile=True")
    return parser.parse_args()


def make_batches(model, samples):
    generator = np.random.default_rng(0)
    images = generator.normal(size=(samples, *model.input_shape[1:])).astype("float32")
    labels = generator.integers(0, model.output_shape[-1], samples)
    dataset = tf.data.Dataset.from_tensor_slices((images, labels)).batch(BATCH)
    # tf.data's tuner sleeps for 10, 20, 40 ... ms, and the end of an epoch waits until it wakes:
    # epochs of 180 ms took 180 or 305, by chance.
    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.cache().with_options(options)


def compiled(model, jit):
    model.compile(
        keras.optimizers.Adam(),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=jit,
    )
    return model


def peer_distiller(teacher, student):
    loss = keras.distillation.LogitsDistillation(
        temperature=TEMPERATURE, loss=keras.losses.KLDivergence()
    )
    return keras.distillation.Distiller(teacher, student, loss, student_loss_weight=LABEL_WEIGHT)


def epochs(name, jit):
    """Returns {what: a function that runs one epoch of it}."""
    make_teacher, make_student, samples = MODELS[name]
    teacher = compiled(make_teacher(), jit)
    batches = make_batches(teacher, samples)
    images = batches.map(lambda images, _: images)
    soft_targets = kd.losses.SoftTargets(temperature=TEMPERATURE)
    trained = {
        "student": make_student(),
        "keras_kd": kd.Distiller(
            teacher, make_student(), soft_targets, alpha=LABEL_WEIGHT, beta=1 - LABEL_WEIGHT
        ),
        "keras.distillation": peer_distiller(teacher, make_student()),
    }

    def fit(model):
        compiled(model, jit)
        return lambda: model.fit(batches, epochs=1, shuffle=False, verbose=0)

    calls = {what: fit(model) for what, model in trained.items()}
    return {"teacher": lambda: teacher.predict(images, verbose=0), **calls}


def table_row(name, rounds):
    columns = ["teacher", "student", "keras_kd", "keras.distillation"]
    times = "".join(f"{1000 * median(rounds, lambda r, c=c: r[c]):>20.1f}" for c in columns)
    parts = median(rounds, lambda r: r["keras_kd"] / (r["student"] + r["teacher"]))
    peer = median(rounds, lambda r: r["keras_kd"] / r["keras.distillation"])
    return f"{name:10}{times}{parts:>22.3f}{peer:>22.3f}"


def main():
    arguments = parse_arguments()
    tf.config.threading.set_intra_op_parallelism_threads(arguments.threads)
    print(f"TensorFlow {tf.__version__}, Keras {keras.__version__}, ", end="")
    print(f"{arguments.threads} threads, {arguments.repeats} rounds, jit {arguments.jit}")
    titles = ["teacher.predict", "student.fit", "keras_kd", "keras.distillation"]
    header = "".join(f"{title + ', ms':>20}" for title in titles[:3]) + f"{titles[3]:>20}"
    print(f"{'':10}{header}{'/ (student+teacher)':>22}{'/ keras.distillation':>22}")
    for name in arguments.models:
        keras.utils.set_random_seed(0)
        print(table_row(name, measure(epochs(name, arguments.jit), arguments.repeats)), flush=True)


if __name__ == "__main__":
    main()
