"""What does it cost to cache a language model's logits, beside the teacher's own pass?

Prints, for a GPT-2 of random weights and its largest logits:

- the processor time of `cache_teacher(top_k=...)` as a multiple of one pass of the teacher over the
  same data, a traced `tf.function`; tracing is part of both. Medians of rounds that take turns;
- that of reading the cache as a multiple of the steps of a student (a GPT-2 of a sixth of the
  layers, and half the width) that learns from labels over the same data, in the same run;
- the peak memory of a process that does the one, as a multiple of that of one that does the other;
- bytes a token on disk, by dtype and `top_k`.

    python benchmarks/cache_logits.py
    python benchmarks/cache_logits.py --layers 4 --width 256 --heads 8 --batch 4 --length 256
    python benchmarks/cache_logits.py --dtype float16
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

# Of what the table of bytes shows: (dtype, top_k).
FORMS = [
    (dtype, k)
    for k in (None, 100, 50, 10)
    for dtype in ("float32", "float16", "compact")
    if k is not None or dtype != "compact"
]


def parse():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--tokens", type=int, default=2048)
    add("--words", type=int, default=32000)
    add("--top-k", type=int, default=50)
    add("--length", type=int, default=128, help="tokens of a sequence")
    add("--batch", type=int, default=8, help="sequences")
    add("--layers", type=int, default=12)
    add("--width", type=int, default=768)
    add("--heads", type=int, default=12)
    add("--dtype", default="compact", help="of the cache that is timed")
    add("--rounds", type=int, default=5)
    add("--threads", type=int, default=2)
    add("--only", choices=["pass", "cache"], help="do this once, and print the peak memory in MB")
    return parser.parse_args()


def gpt2(args, layers, width):
    import keras
    import keras_hub

    keras.utils.set_random_seed(0)
    backbone = keras_hub.models.GPT2Backbone(
        vocabulary_size=args.words,
        num_layers=layers,
        num_heads=args.heads,
        hidden_dim=width,
        intermediate_dim=4 * width,
        max_sequence_length=args.length,
    )
    return keras_hub.models.GPT2CausalLM(backbone, preprocessor=None)


def teacher(args):
    return gpt2(args, args.layers, args.width)


def dataset(args):
    import numpy as np
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(args.threads)
    shape = args.tokens // args.length, args.length
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
    start = time.process_time()
    call()
    return time.process_time() - start


def read(path, data):
    import keras_kd as kd

    for _ in kd.load_cache(path, data, verify=False):
        pass


def student_steps(args, data):
    """A function that trains a student on labels for an epoch."""
    import keras

    student = gpt2(args, max(1, args.layers // 6), args.width // 2)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    student.compile("adam", loss, weighted_metrics=[], jit_compile=False)
    labeled = data.map(lambda inputs: (inputs, inputs["token_ids"]))
    return lambda: student.fit(labeled, verbose=0)


def compare(args, calls):
    """Median seconds of each, and of the ratios of the second to the first."""
    for call in calls.values():
        call()
    rounds = []
    for index in range(args.rounds):
        order = list(calls) if index % 2 else list(reversed(calls))
        rounds.append({name: seconds(calls[name]) for name in order})
    one, other = calls
    ratio = statistics.median(each[other] / each[one] for each in rounds)
    return {name: statistics.median(each[name] for each in rounds) for name in calls}, ratio


def main():
    args = parse()
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name) / "cache"
        calls = {
            "pass": run_teacher,
            "cache": lambda model, data: write(model, data, folder, args.top_k, args.dtype),
        }
        if args.only is not None:
            import keras_kd  # noqa: F401 - its memory is not that of the call

            data = dataset(args)
            calls[args.only](teacher(args), data)
            print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
            return
        memory = {what: peak(args, what) for what in calls}
        data, model = dataset(args), teacher(args)
        calls = {name: functools.partial(call, model, data) for name, call in calls.items()}
        times, ratio = compare(args, calls)
        reading = {
            "step": student_steps(args, data),
            "read": functools.partial(read, folder, data),
        }
        reading_times, reading_ratio = compare(args, reading)
        small = gpt2(args, 1, 8 * args.heads)  # the bytes are those of any teacher
        sizes = {form: size(small, data, folder, args.tokens, *form) for form in FORMS}
    print(
        f"GPT-2 of {args.layers} layers and width {args.width}: {args.tokens} tokens, "
        f"{args.words} words, top_k={args.top_k}, dtype={args.dtype}, {args.rounds} rounds"
    )
    print(f"\n{'':24}{'the pass':>12}{'the cache':>12}{'ratio':>8}")
    print(f"{'processor seconds':24}{times['pass']:>12.2f}{times['cache']:>12.2f}{ratio:>8.2f}")
    print(
        f"{'peak memory, MB':24}{memory['pass']:>12.0f}{memory['cache']:>12.0f}"
        f"{memory['cache'] / memory['pass']:>8.2f}"
    )
    print(f"\n{'':24}{'the steps':>12}{'reading':>12}{'ratio':>8}")
    print(
        f"{'processor seconds':24}{reading_times['step']:>12.2f}{reading_times['read']:>12.2f}"
        f"{reading_ratio:>8.2f}"
    )
    print(f"\n{'bytes a token':24}{'float32':>12}{'float16':>12}{'compact':>12}")
    for k in dict.fromkeys(k for _, k in FORMS):
        what = "all logits" if k is None else f"top_k={k}"
        shown = [sizes.get((dtype, k)) for dtype in ("float32", "float16", "compact")]
        print(f"{what:24}" + "".join(f"{'-' if n is None else f'{n:,.0f}':>12}" for n in shown))


def size(model, data, folder, tokens, dtype, top_k):
    from keras_kd.teachers.cache.format import bytes_on_disk

    return bytes_on_disk(write(model, data, folder, top_k, dtype)) / tokens


if __name__ == "__main__":
    main()
