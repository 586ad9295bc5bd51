"""What does a cache of the teacher's outputs cost, and what does it save?

Prints, for a small CNN as student and a larger one as teacher:

- writing: the time of `cache_teacher` as a multiple of `teacher.predict` over the same data;
- an epoch of the student alone, of the student with the living teacher, and with the cache
  (`load_cache`), as multiples of the student alone;
- bytes a sample on disk.

Each round times all of them in turns; ratios are medians of the ratios within a round.

    python benchmarks/cache.py
    python benchmarks/cache.py --classes 1000 --top-k 20
"""

import argparse
import os
import pathlib
import shutil
import tempfile

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ["CUDA_VISIBLE_DEVICES"] = "-1"  # the CPU is what is measured

import keras
import numpy as np
import tensorflow as tf
from keras import layers
from rounds import measure, median

import keras_kd as kd
from keras_kd.teachers.cache.format import bytes_on_disk

SIDE = 32
FORMS = {"float32": {"dtype": "float32"}, "float16": {"dtype": "float16"}}


def parse():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--samples", type=int, default=4096)
    add("--batch", type=int, default=64)
    add("--classes", type=int, default=100)
    add("--top-k", type=int, default=10)
    add("--rounds", type=int, default=7)
    add("--threads", type=int, default=2)
    return parser.parse_args()


def network(widths, classes):
    stack = [layers.Input((SIDE, SIDE, 3))]
    for width in widths:
        stack += [layers.Conv2D(width, 3, padding="same", activation="relu")]
        stack += [layers.MaxPooling2D()]
    return keras.Sequential([*stack, layers.GlobalAveragePooling2D(), layers.Dense(classes)])


def dataset(args):
    rng = np.random.default_rng(0)
    images = rng.normal(size=(args.samples, SIDE, SIDE, 3)).astype("float32")
    labels = rng.integers(args.classes, size=args.samples)
    return tf.data.Dataset.from_tensor_slices((images, labels)).batch(args.batch)


def loss():
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def epoch(model, data):
    model.compile(keras.optimizers.SGD(0.01), loss(), jit_compile=False)
    return lambda: model.fit(data, shuffle=False, verbose=0)


def calls(args, folder):
    data = dataset(args)
    teacher, student = network((32, 64, 128), args.classes), lambda: network((16, 32), args.classes)
    inputs = data.map(lambda x, y: x).prefetch(2)
    forms = {**FORMS, f"top {args.top_k}": {"top_k": args.top_k}}
    found = {
        "student alone": epoch(student(), data.prefetch(2)),
        "living teacher": epoch(kd.Distiller(teacher, student()), data.prefetch(2)),
        "predict": lambda: teacher.predict(inputs, verbose=0),
    }
    sizes = {}
    for name, options in forms.items():
        path = kd.cache_teacher(
            teacher, data, folder / name.replace(" ", "-"), verbose=0, **options
        )
        sizes[name] = bytes_on_disk(path) / args.samples
        joined = kd.load_cache(path, data).prefetch(2)
        found[f"cache, {name}"] = epoch(kd.Distiller(kd.teachers.Cached(path), student()), joined)
        found[f"write, {name}"] = lambda options=options: write(teacher, data, folder, options)
    return found, sizes


def write(teacher, data, folder, options):
    path = folder / "written"
    shutil.rmtree(path, ignore_errors=True)
    kd.cache_teacher(teacher, data, path, verbose=0, **options)


def main():
    args = parse()
    tf.config.threading.set_intra_op_parallelism_threads(args.threads)
    with tempfile.TemporaryDirectory() as name:
        found, sizes = calls(args, pathlib.Path(name))
        rounds = measure(found, args.rounds)
    print(f"{args.samples} images, {args.classes} classes, {args.rounds} rounds")
    print(f"\n{'an epoch of':24}{'/ student alone':>18}{'bytes a sample':>18}")
    for what in found:
        if what.startswith(("write", "predict")):
            continue
        size = sizes.get(what.removeprefix("cache, "))
        ratio = median(rounds, lambda r, w=what: r[w] / r["student alone"])
        print(f"{what:24}{ratio:>18.3f}{'' if size is None else f'{size:>18.0f}'}")
    print(f"\n{'writing':24}{'/ teacher.predict':>18}")
    for what in sizes:
        ratio = median(rounds, lambda r, w=what: r[f"write, {w}"] / r["predict"])
        print(f"{what:24}{ratio:>18.3f}")


if __name__ == "__main__":
    main()
