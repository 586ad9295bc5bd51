"""Budgets and ranks of `kd.students.shrink`: how close students come, and what ranks are worth.

The first table: the share of the tightest limit that students of five networks have, by budget and
rank. The second: test accuracy on scikit-learn's digits of students with a quarter of the teacher's
bytes, at once and after a short distillation, by rank; means over seeds, with the smallest and the
largest.

    python benchmarks/shrink.py
    python benchmarks/shrink.py --tables ranks --seeds 3 --epochs 5
"""

import argparse
import os
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ["CUDA_VISIBLE_DEVICES"] = "-1"

import keras
import numpy as np
import tensorflow as tf
from keras import layers

import keras_kd as kd

RANKS = ("position", "magnitude", "activation")
LENGTH, TOKENS = 32, 500


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--seeds", type=int, default=3)
    add("--epochs", type=int, default=5, help="of distillation")
    add("--share", type=float, default=0.25, help="of the teacher's bytes, for the ranks")
    add("--tables", nargs="+", choices=["budgets", "ranks"], default=["budgets", "ranks"])
    return parser.parse_args()


# Networks, and inputs of one batch.


def mlp(width=128, depth=4, shape=(64,)):
    hidden = [layers.Dense(width, activation="relu", name=f"hidden_{i}") for i in range(depth)]
    stack = [keras.Input(shape), layers.Flatten(), *hidden, layers.Dense(10, name="head")]
    return keras.Sequential(stack, name="mlp")


def cnn(filters=32, shape=(8, 8, 1)):
    stack = [keras.Input(shape)]
    for i, factor in enumerate((1, 1, 2, 2)):
        stack += [
            layers.Conv2D(factor * filters, 3, padding="same", use_bias=False, name=f"conv_{i}"),
            layers.BatchNormalization(name=f"norm_{i}"),
            layers.ReLU(name=f"relu_{i}"),
        ]
    return keras.Sequential(
        [*stack, layers.GlobalAveragePooling2D(), layers.Dense(10, name="head")], name="cnn"
    )


def residual(filters=32, blocks=3):
    inputs = keras.Input((32, 32, 3))
    x = layers.Conv2D(filters, 3, padding="same", name="stem")(inputs)
    for i in range(blocks):
        y = layers.BatchNormalization(name=f"norm_{i}_0")(x)
        y = layers.Conv2D(filters, 3, padding="same", name=f"conv_{i}_0")(layers.ReLU()(y))
        y = layers.BatchNormalization(name=f"norm_{i}_1")(y)
        y = layers.Conv2D(filters, 3, padding="same", name=f"conv_{i}_1")(layers.ReLU()(y))
        x = layers.Add(name=f"add_{i}")([x, y])
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(10, name="head")(x), name="residual")


def transformer(width=64, blocks=4, heads=4):
    tokens = keras.Input((LENGTH,), dtype="int32")
    x = layers.Embedding(TOKENS, width, name="embedding")(tokens)
    for i in range(blocks):
        y = layers.LayerNormalization(name=f"norm_{i}_0")(x)
        y = layers.MultiHeadAttention(heads, width // heads, name=f"attention_{i}")(y, y)
        x = layers.Add(name=f"add_{i}_0")([x, y])
        y = layers.LayerNormalization(name=f"norm_{i}_1")(x)
        y = layers.Dense(4 * width, activation="gelu", name=f"up_{i}")(y)
        x = layers.Add(name=f"add_{i}_1")([x, layers.Dense(width, name=f"down_{i}")(y)])
    x = layers.GlobalAveragePooling1D()(layers.LayerNormalization(name="norm")(x))
    return keras.Model(tokens, layers.Dense(10, name="head")(x), name="transformer")


def bert():
    import keras_hub

    backbone = keras_hub.models.BertBackbone(
        vocabulary_size=TOKENS,
        num_layers=4,
        num_heads=4,
        hidden_dim=64,
        intermediate_dim=256,
        max_sequence_length=LENGTH,
    )
    return keras_hub.models.BertTextClassifier(
        backbone, num_classes=10, preprocessor=None, name="bert"
    )


def inputs_of(model, rng, rows=32):
    def one(tensor):
        shape = [rows, *(LENGTH if size is None else size for size in tensor.shape[1:])]
        if "int" not in tensor.dtype:
            return rng.normal(size=shape).astype("float32")
        limits = {"padding_mask": (1, 2), "segment_ids": (0, 2)}
        return rng.integers(*limits.get(tensor.name, (1, TOKENS)), shape).astype("int32")

    inputs = model.inputs[0] if isinstance(model, keras.Sequential) else model.input
    return keras.tree.map_structure(one, inputs)


# How close students come to their budgets.


def size_of(model, x):
    found = kd.measure(
        model, (x, np.zeros(len(keras.tree.flatten(x)[0]), int)), latency=False, verbose=0
    )
    return {key: found.size[key] for key in ("bytes", "macs")}


BUDGETS = {
    "bytes 0.5": {"bytes": 0.5},
    "macs 0.4": {"macs": 0.4},
    "bytes 0.3, macs 0.3": {"bytes": 0.3, "macs": 0.3},
}


def budgets_table(seeds):
    print(f"{'network':14}{'budget':22}{'rank':13}{'share of the limit':>22}{'seconds':>10}")
    for make in (mlp, cnn, residual, transformer, bert):
        for name, shares in BUDGETS.items():
            for rank in RANKS:
                found = [budget_of(make, shares, rank, seed) for seed in range(seeds)]
                reached, seconds = zip(*found, strict=True)
                shown = f"{min(reached):.3f} to {max(reached):.3f}"
                row = f"{make.__name__:14}{name:22}{rank:13}{shown:>22}{np.mean(seconds):>10.1f}"
                print(row, flush=True)


def budget_of(make, shares, rank, seed):
    """The share of the tightest limit, and the seconds that it took."""
    keras.utils.set_random_seed(seed)
    teacher = make()
    x = inputs_of(teacher, np.random.default_rng(seed))
    one = keras.tree.map_structure(lambda value: value[:1], x)
    whole = size_of(teacher, one)
    budget = {key: share * whole[key] for key, share in shares.items()}
    start = time.perf_counter()
    needs_data = rank == "activation" or (make is bert and "macs" in budget)
    data = x if needs_data else None
    student = kd.students.shrink(teacher, budget=budget, rank=rank, data=data, print_fn=None)
    seconds = time.perf_counter() - start
    made = size_of(student, one)
    return max(made[key] / limit for key, limit in budget.items()), seconds


# What ranks are worth.


def digits(shape, seed):
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    x, y = load_digits(return_X_y=True)
    x = (x / 16).astype("float32").reshape(-1, *shape)
    return train_test_split(x, y, test_size=0.3, random_state=seed, stratify=y)


def ranks_table(seeds, share, epochs):
    print(f"{'network':14}{'cut':10}{'rank':13}{'at once':>26}{f'after {epochs} epochs':>26}")
    for make, shape in ((mlp, (64,)), (cnn, (8, 8, 1))):
        found: dict = {}
        for seed in range(seeds):
            keras.utils.set_random_seed(seed)
            data = digits(shape, seed)
            teacher = trained(make(), data)
            found.setdefault(("teacher", ""), []).append((accuracy(teacher, data),))
            limit = share * size_of(teacher, data[0][:1])["bytes"]
            for cut, fixed in {"width": {"depth": 1.0}, "both": {}}.items():
                for rank in RANKS:
                    scores = distilled(teacher, data, rank, limit, fixed, epochs, seed)
                    found.setdefault((cut, rank), []).append(scores)
        for (cut, rank), scores in found.items():
            cells = "".join(f"{spread(column):>26}" for column in zip(*scores, strict=True))
            print(f"{make.__name__:14}{cut:10}{rank:13}{cells}", flush=True)


def spread(values):
    return f"{np.mean(values):.3f} ({min(values):.3f} to {max(values):.3f})"


def compiled(model, rate=1e-3):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(rate), loss, metrics=["accuracy"])
    return model


def trained(model, data):
    x, _, y, _ = data
    compiled(model).fit(x, y, batch_size=64, epochs=30, verbose=0)
    return model


def accuracy(model, data):
    _, x, _, y = data
    return float(np.mean(np.argmax(np.asarray(model(x, training=False)), axis=-1) == y))


def distilled(teacher, data, rank, limit, fixed, epochs, seed):
    """Accuracy at once, and after distillation."""
    keras.utils.set_random_seed(seed)
    x, _, y, _ = data
    student = kd.students.shrink(
        teacher,
        budget={"bytes": limit},
        rank=rank,
        data=x[:300] if rank == "activation" else None,
        print_fn=None,
        **fixed,
    )
    before = accuracy(student, data)
    distiller = compiled(kd.Distiller(teacher, student))
    distiller.fit(x, y, batch_size=64, epochs=epochs, verbose=0)
    return before, accuracy(student, data)


def main():
    arguments = parse_arguments()
    print(f"TensorFlow {tf.__version__}, Keras {keras.__version__}, {arguments.seeds} seeds\n")
    if "budgets" in arguments.tables:
        budgets_table(arguments.seeds)
        print()
    if "ranks" in arguments.tables:
        ranks_table(arguments.seeds, arguments.share, arguments.epochs)


if __name__ == "__main__":
    main()
