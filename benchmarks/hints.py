"""What hints and other losses cost a training step.

The first table: a step of distillation with soft targets alone, with two hints (1x1 convolutions
as projectors), and the same in `keras.distillation` (`FeatureDistillation` on the same layers,
which runs an extractor model beside the student). The others: soft targets and one more loss, by
loss, for a small CNN and a small transformer.

Everything runs in this one process: each round has some steps of each, in turns, on one batch and
with the same optimizer. Ratios are medians of the ratios within a round; times are medians.

    python benchmarks/hints.py
    python benchmarks/hints.py --jit --repeats 30
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
CLASSES = 100


def network(filters):
    stack = [layers.Input([32, 32, 3])]
    for level in range(3):
        stack += [
            layers.Conv2D(filters << level, 3, padding="same", use_bias=False),
            layers.BatchNormalization(),
            layers.ReLU(name=f"stage_{level}"),
            layers.MaxPooling2D(),
        ]
    return keras.Sequential(
        [*stack, layers.GlobalAveragePooling2D(name="pooled"), layers.Dense(CLASSES)]
    )


LENGTH, TOKENS = 64, 1000


def transformer(width):
    """Two blocks; attention `attention_<i>`, output `block_<i>`."""
    tokens = layers.Input([LENGTH], dtype="int32")
    x = layers.Embedding(TOKENS, width)(tokens)
    for i in range(2):
        attention = layers.MultiHeadAttention(4, width // 4, name=f"attention_{i}")
        x = layers.LayerNormalization()(x + attention(x, x))
        hidden = layers.Dense(4 * width, activation="gelu")(x)
        x = layers.LayerNormalization(name=f"block_{i}")(x + layers.Dense(width)(hidden))
    pooled = layers.GlobalAveragePooling1D()(x)
    return keras.Model(tokens, layers.Dense(CLASSES)(pooled))


LAYERS = {"teacher_layer": "stage_1", "student_layer": "stage_1"}
POOLED = {"teacher_layer": "pooled", "student_layer": "pooled"}
# Each beside soft targets.
LOSSES = {
    "FeatureHint": lambda: kd.losses.FeatureHint(**LAYERS),
    "AttentionTransfer": lambda: kd.losses.AttentionTransfer(**LAYERS),
    "ChannelWise": lambda: kd.losses.ChannelWise(**LAYERS),
    "NeuronSelectivity": lambda: kd.losses.NeuronSelectivity(**LAYERS),
    "VariationalInformation": lambda: kd.losses.VariationalInformation(**LAYERS),
    "FlowMatrix": lambda: kd.losses.FlowMatrix(*[("stage_1", "stage_2")] * 2),
    "SimilarityPreserving": lambda: kd.losses.SimilarityPreserving(**LAYERS),
    "RelationalDistance": lambda: kd.losses.RelationalDistance(**POOLED),
    "RelationalAngle": lambda: kd.losses.RelationalAngle(**POOLED),
    "ProbabilisticTransfer": lambda: kd.losses.ProbabilisticTransfer(**POOLED),
    "ContrastiveRepresentation": lambda: kd.losses.ContrastiveRepresentation(
        **POOLED, memory_size=1024
    ),
    "DecoupledKD": kd.losses.DecoupledKD,
    "DIST": kd.losses.DIST,
    "LearningWithoutForgetting": kd.losses.LearningWithoutForgetting,
    "LogitStandardization": kd.losses.LogitStandardization,
    "CurriculumTemperature": kd.losses.CurriculumTemperature,
    "SigmoidKD": kd.losses.SigmoidKD,
    "LogitsMSE": kd.losses.LogitsMSE,
    "RegressionKD": kd.losses.RegressionKD,
}
# Of a transformer.
SEQUENCE_LOSSES = {
    "AttentionMaps, mse": lambda: kd.losses.AttentionMaps("attention_1", "attention_1"),
    "AttentionMaps, kl": lambda: kd.losses.AttentionMaps("attention_1", "attention_1", "kl"),
    "HiddenStates": lambda: kd.losses.HiddenStates("block_1", "block_1"),
    "CosineHidden": lambda: kd.losses.CosineHidden("block_1", "block_1"),
}


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--repeats", type=int, default=15)
    add("--steps", type=int, default=8, help="steps of each in a round")
    add("--threads", type=int, default=len(os.sched_getaffinity(0)))
    add("--jit", action="store_true", help="compile all models with jit_compile=True")
    tables = ["hints", "losses", "sequences"]
    add("--tables", nargs="+", choices=tables, default=tables)
    add("--teacher-filters", type=int, default=16)
    add("--student-filters", type=int, default=8)
    return parser.parse_args()


def distiller(arguments, teacher, *more, student=None):
    return compiled(
        arguments,
        kd.Distiller(
            teacher,
            student or network(arguments.student_filters),
            [kd.losses.SoftTargets(TEMPERATURE), *more],
            alpha=LABEL_WEIGHT,
            beta=1 - LABEL_WEIGHT,
        ),
    )


def peer(arguments, teacher, hints):
    losses = [keras.distillation.LogitsDistillation(TEMPERATURE, keras.losses.KLDivergence())]
    # It has no projectors: its hints compare layers of one width.
    losses += [
        keras.distillation.FeatureDistillation(
            loss="mse", teacher_layer_name=name, student_layer_name=name
        )
        for name in hints
    ]
    student = network(arguments.teacher_filters if hints else arguments.student_filters)
    return compiled(
        arguments,
        keras.distillation.Distiller(teacher, student, losses, student_loss_weight=LABEL_WEIGHT),
    )


def compiled(arguments, model):
    model.compile(
        keras.optimizers.Adam(),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=arguments.jit,
    )
    return model


def steps(model, batch, count):
    """A function that runs some training steps."""
    data = tf.data.Dataset.from_tensors(batch).cache().repeat(count)
    options = tf.data.Options()
    options.autotune.enabled = False
    data = data.with_options(options)

    def run():
        model.fit(data, epochs=1, shuffle=False, verbose=0)

    return run


def hints_table(arguments, teacher, batch):
    names = ("stage_1", "stage_2")
    two = [kd.losses.FeatureHint(name, name, name=name) for name in names]
    same = {**vars(arguments), "student_filters": arguments.teacher_filters}
    equal = argparse.Namespace(**same)
    plain = [kd.losses.FeatureHint(name, name, name=name) for name in names]
    models = {
        "soft targets": distiller(arguments, teacher),
        "+ two hints": distiller(arguments, teacher, *two),
        "one width: soft targets": distiller(equal, teacher),
        "one width: + two hints": distiller(equal, teacher, *plain),
        "one width: keras.distillation + two": peer(arguments, teacher, names),
    }
    calls = {name: steps(model, batch, arguments.steps) for name, model in models.items()}
    rounds = measure(calls, arguments.repeats)
    print(f"{'':38}{'ms a step':>10}{'/ without hints':>17}{'/ keras_kd':>12}")
    for name in models:
        base = "soft targets" if not name.startswith("one") else "one width: soft targets"
        own = "one width: + two hints"
        row = f"{name:38}{1000 * median(rounds, lambda r, n=name: r[n]) / arguments.steps:>10.2f}"
        row += f"{median(rounds, lambda r, n=name, b=base: r[n] / r[b]):>17.3f}"
        if name.startswith("one"):
            row += f"{median(rounds, lambda r, n=name, o=own: r[n] / r[o]):>12.3f}"
        print(row, flush=True)


def losses_table(arguments, losses, batch, teacher, make_student):
    def timed(*more):
        made = distiller(arguments, teacher, *more, student=make_student())
        return steps(made, batch, arguments.steps)

    alone = timed()
    for name, make in losses.items():
        rounds = measure({"alone": alone, name: timed(make())}, arguments.repeats)
        ratio = median(rounds, lambda r, n=name: r[n] / r["alone"])
        print(f"{name:38}{ratio:>22.3f}", flush=True)


def main():
    arguments = parse_arguments()
    tf.config.threading.set_intra_op_parallelism_threads(arguments.threads)
    print(f"TensorFlow {tf.__version__}, Keras {keras.__version__}, ", end="")
    print(f"{arguments.threads} threads, {arguments.repeats} rounds, jit {arguments.jit}")
    keras.utils.set_random_seed(0)
    generator = np.random.default_rng(0)
    labels = generator.integers(0, CLASSES, BATCH)
    images = generator.normal(size=(BATCH, 32, 32, 3)).astype("float32")
    teacher = network(arguments.teacher_filters)
    if "hints" in arguments.tables:
        hints_table(arguments, teacher, (images, labels))
    print(f"\n{'soft targets and':38}{'/ soft targets alone':>22}")
    if "losses" in arguments.tables:
        losses_table(
            arguments,
            LOSSES,
            (images, labels),
            teacher,
            lambda: network(arguments.student_filters),
        )
    if "sequences" in arguments.tables:
        tokens = generator.integers(0, TOKENS, (BATCH, LENGTH))
        losses_table(
            arguments,
            SEQUENCE_LOSSES,
            (tokens, labels),
            transformer(128),
            lambda: transformer(64),
        )


if __name__ == "__main__":
    main()
