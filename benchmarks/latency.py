"""Does `keras_kd.measure` time a `.tflite` file as LiteRT's own benchmark does?

Prints the median of both and their ratio, for small models in float32 and int8 or for files of
yours. LiteRT's benchmark runs the file through another interface (`CompiledModel`) and rounds to
0.01 ms, so that models below about 0.5 ms say little. Each round times both, one after the other;
ratios are medians over rounds, with the smallest and the largest.

    python benchmarks/latency.py
    python benchmarks/latency.py student.tflite other.tflite --threads 2
"""

import argparse
import contextlib
import io
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import warnings

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["CUDA_VISIBLE_DEVICES"] = "-1"

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from keras_kd import runtimes
from keras_kd.measurement import api

TOOL = "ai_edge_litert.tools.benchmark_litert_model"
SIDE = 96


def parse():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("files", nargs="*", type=pathlib.Path, help=".tflite files; default: models made here")
    add("--threads", type=int, default=1)
    add("--runs", type=int, default=100)
    add("--warmup", type=int, default=10)
    add("--rounds", type=int, default=7)
    return parser.parse_args()


def cnn():
    stack = [layers.Input((SIDE, SIDE, 3))]
    for width in (16, 32, 64):
        stack += [layers.Conv2D(width, 3, padding="same", activation="relu")]
        stack += [layers.MaxPooling2D()]
    return keras.Sequential([*stack, layers.GlobalAveragePooling2D(), layers.Dense(10)])


def separable():
    stack = [layers.Input((SIDE, SIDE, 3)), layers.Conv2D(32, 3, strides=2, activation="relu")]
    for width in (64, 128, 128):
        stack += [layers.SeparableConv2D(width, 3, padding="same", activation="relu")]
    return keras.Sequential([*stack, layers.GlobalAveragePooling2D(), layers.Dense(10)])


def encoder():
    inputs = x = layers.Input((128, 128))
    for _ in range(2):
        x = layers.LayerNormalization()(x + layers.MultiHeadAttention(4, 32)(x, x))
        hidden = layers.Dense(256, activation="relu")(x)
        x = layers.LayerNormalization()(x + layers.Dense(128)(hidden))
    return keras.Model(inputs, layers.Dense(10)(layers.GlobalAveragePooling1D()(x)))


def convert(model, path, int8=False):
    quiet = contextlib.redirect_stdout(io.StringIO())  # the converter lists all variables
    with quiet, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        converter = tf.lite.TFLiteConverter.from_keras_model(model)
        if int8:
            rng = np.random.default_rng(0)
            shape = (1, *model.input_shape[1:])
            samples = [[rng.normal(size=shape).astype("float32")] for _ in range(20)]
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
            converter.representative_dataset = lambda: iter(samples)
        path.write_bytes(converter.convert())
    return path


def made(folder):
    files = []
    for make in (cnn, separable, encoder):
        model, name = make(), make.__name__
        files.append(convert(model, folder / f"{name}_float32.tflite"))
        files.append(convert(model, folder / f"{name}_int8.tflite", int8=True))
    return files


def ours(path, args):
    """Median milliseconds of `keras_kd.measure`'s way."""
    file = runtimes.TFLiteFile(path, args.threads)
    zeros = {x.name: np.zeros([size or 1 for size in x.shape], x.dtype) for x in file.inputs}
    file.set_inputs(file.one_batch(zeros))
    return api.measure_latency(file.invoke, args.warmup, args.runs)["median_us"] / 1000


def theirs(path, args, folder):
    """Median milliseconds of LiteRT's own benchmark."""
    result = folder / "result.json"
    options = {
        "--model": path,
        "--num_runs": args.runs,
        "--warmup_runs": args.warmup,
        "--num_threads": args.threads,
        "--result_json": result,
    }
    words = [str(word) for pair in options.items() for word in pair]
    subprocess.run([sys.executable, "-m", TOOL, *words], check=True, capture_output=True)
    return json.loads(result.read_text())["latency"]["median_ms"]


def main():
    args = parse()
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        files = args.files or made(folder)
        print(f"{args.threads} thread(s), medians of {args.runs} runs, {args.rounds} rounds")
        print(f"{'file':28}{'ours, ms':>10}{'LiteRT, ms':>12}{'ratio':>8}   {'from - to':>13}")
        for path in files:
            rounds = [(ours(path, args), theirs(path, args, folder)) for _ in range(args.rounds)]
            ratios = [a / b for a, b in rounds if b > 0]
            if not ratios:
                print(f"{path.name:28} too quick for LiteRT's benchmark, which rounds to 0.01 ms")
                continue
            medians = [statistics.median(x) for x in zip(*rounds, strict=True)]
            print(
                f"{path.name:28}{medians[0]:>10.3f}{medians[1]:>12.3f}"
                f"{statistics.median(ratios):>8.3f}   {min(ratios):.3f} - {max(ratios):.3f}"
            )


if __name__ == "__main__":
    main()
