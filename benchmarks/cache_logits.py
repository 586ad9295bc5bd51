"""What does it cost to cache a language model's logits, beside the teacher's own pass?

Prints, for a GPT-2 of random weights and its largest logits:

- the time of `cache_teacher(top_k=...)` as a multiple of one pass of the teacher over the same
  data, a traced `tf.function`; tracing is part of both. Medians of rounds that take turns;
- the peak memory of a process that does the one, as a multiple of that of one that does the other;
- bytes a token on disk, by dtype and `top_k`.

    python benchmarks/cache_logits.py
    python benchmarks/cache_logits.py --layers 2 --width 64 --heads 2
"""

import argparse
import functools
import gc
import os
import pathlib
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ["CUDA_VISIBLE_DEVICES"] = "-1"  # the CPU is what is measured

LENGTH = 128
# Of what the table of bytes shows: (dtype, top_k).
FORMS = [(dtype, k) for dtype in ("float32", "float16") for k in (None, 100, 50, 10)]


def parse():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--tokens", type=int, default=2048)
    add("--words", type=int, default=32000)
    add("--top-k", type=int, default=50)
    add("--batch", type=int, default=8, help=f"of sequences of {LENGTH} tokens")
    add("--layers", type=int, default=12)
    add("--width", type=int, default=768)
    add("--heads", type=int, default=12)
    add("--rounds", type=int, default=5)
    add("--threads", type=int, default=2)
    add("--only", choices=["pass", "cache"], help="do this once, and print the peak memory in MB")
    return parser.parse_args()


def teacher(args):
    import keras
    import keras_hub

    keras.utils.set_random_seed(0)
    backbone = keras_hub.models.GPT2Backbone(
        vocabulary_size=args.words,
        num_layers=args.layers,
        num_heads=args.heads,
        hidden_dim=args.width,
        intermediate_dim=4 * args.width,
        max_sequence_length=LENGTH,
    )
    return keras_hub.models.GPT2CausalLM(backbone, preprocessor=None)


def dataset(args):
    import numpy as np
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(args.threads)
    shape = args.tokens // LENGTH, LENGTH
    ids = np.random.default_rng(0).integers(args.words, size=shape).astype("int32")
    inputs = {"token_ids": ids, "padding_mask": np.ones_like(ids)}
    return tf.data.Dataset.from_tensor_slices(inputs).batch(args.batch)


def run_teacher(model, data):
    import tensorflow as tf

    traced = tf.function(lambda inputs: model(inputs, training=False), autograph=False)
    traced = traced.get_concrete_function(data.element_spec)
    for inputs in data:
        traced(inputs)


def write(model, data, folder, top_k, dtype="float16"):
    import keras_kd as kd

    shutil.rmtree(folder, ignore_errors=True)
    return kd.cache_teacher(
        model, data, folder, top_k=top_k, dtype=dtype, fingerprint="one", verbose=0
    )


def peak(args, what):
    """The peak memory of a process of its own that does one thing once, in MB."""
    command = [sys.executable, __file__, "--only", what]
    for name, value in vars(args).items():
        if name != "only":
            command += [f"--{name.replace('_', '-')}", str(value)]
    found = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return float(found.split()[-1])


def seconds(call):
    gc.collect()
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def compare(args, calls):
    data = dataset(args)
    model = teacher(args)
    calls = {name: functools.partial(call, model, data) for name, call in calls.items()}
    for call in calls.values():
        call()
    rounds = []
    for index in range(args.rounds):
        order = list(calls) if index % 2 else list(reversed(calls))
        rounds.append({name: seconds(calls[name]) for name in order})
    ratio = statistics.median(each["cache"] / each["pass"] for each in rounds)
    times = {name: statistics.median(each[name] for each in rounds) for name in calls}
    return model, data, times, ratio


def main():
    args = parse()
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name) / "cache"
        calls = {
            "pass": run_teacher,
            "cache": lambda model, data: write(model, data, folder, args.top_k),
        }
        if args.only is not None:
            import keras_kd  # noqa: F401 - its memory is not that of the call

            data = dataset(args)
            calls[args.only](teacher(args), data)
            print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
            return
        memory = {what: peak(args, what) for what in calls}
        model, data, times, ratio = compare(args, calls)
        sizes = {form: size(model, data, folder, args.tokens, *form) for form in FORMS}
    print(
        f"GPT-2 of {args.layers} layers and width {args.width}: {args.tokens} tokens, "
        f"{args.words} words, top_k={args.top_k}, {args.rounds} rounds"
    )
    print(f"\n{'':24}{'the pass':>12}{'the cache':>12}{'ratio':>8}")
    print(f"{'seconds':24}{times['pass']:>12.2f}{times['cache']:>12.2f}{ratio:>8.2f}")
    print(
        f"{'peak memory, MB':24}{memory['pass']:>12.0f}{memory['cache']:>12.0f}"
        f"{memory['cache'] / memory['pass']:>8.2f}"
    )
    print(f"\n{'bytes a token':24}{'float32':>12}{'float16':>12}")
    for k in dict.fromkeys(k for _, k in FORMS):
        what = "all logits" if k is None else f"top_k={k}"
        print(f"{what:24}{sizes['float32', k]:>12,.0f}{sizes['float16', k]:>12,.0f}")


def size(model, data, folder, tokens, dtype, top_k):
    from keras_kd.teachers.cache.format import bytes_on_disk

    return bytes_on_disk(write(model, data, folder, top_k, dtype)) / tokens


if __name__ == "__main__":
    main()
