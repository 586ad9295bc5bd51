"""What do the logits of a language model cost, and what is left when they never exist?

Prints, each in a process of its own, peak memory above what was there before (models and their
optimizers, or the inputs of an operation) and processor time:

- a training step of a small GPT-2 of KerasHub as student: alone with Keras' cross-entropy; in a
  naive distiller (softmax and `keras.losses.kl_divergence`); with `SoftTargets`; with `TokenKD`;
- loss and gradients of hidden states and head by themselves, at the widths of a real pair: logits
  materialized, and in chunks of several sizes.

    python benchmarks/language.py
    python benchmarks/language.py --words 8000 --widths 64 128 --head-words 32000
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ["CUDA_VISIBLE_DEVICES"] = "-1"  # the CPU is what is measured

STEPS = ("student alone", "naive", "SoftTargets", "TokenKD")


def parse():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--batch", type=int, default=4)
    add("--length", type=int, default=256)
    add("--words", type=int, default=32000)
    add("--tokens", type=int, default=2048, help="of the second table")
    add("--widths", type=int, nargs=2, default=(1024, 2048), help="student's and teacher's")
    add("--head-words", type=int, default=128000)
    add("--memory-mb", type=float, nargs="*", default=(64, 128, 256))
    add("--repeats", type=int, default=3)
    add("--only", help=argparse.SUPPRESS)  # the measurement that a child process makes
    return parser.parse_args()


def measure(args, call):
    """Peak memory in MB above now, and processor seconds of a call (median)."""
    call()  # traces
    pathlib.Path("/proc/self/clear_refs").write_text("5")  # the peak begins here
    before, seconds = status("VmRSS:"), []
    for _ in range(args.repeats):
        start = time.process_time()
        call()
        seconds.append(time.process_time() - start)
    return {"mb": status("VmHWM:") - before, "seconds": statistics.median(seconds)}


def status(key):
    text = pathlib.Path("/proc/self/status").read_text()
    return int(text.split(key)[1].split()[0]) / 1024


def gpt2(keras_hub, args, layers, width):
    backbone = keras_hub.models.GPT2Backbone(
        vocabulary_size=args.words,
        num_layers=layers,
        num_heads=width // 32,
        hidden_dim=width,
        intermediate_dim=2 * width,
        max_sequence_length=args.length,
    )
    return keras_hub.models.GPT2CausalLM(backbone, preprocessor=None)


def training_step(args, kind):
    import keras
    import keras_hub
    import numpy as np

    import keras_kd as kd

    teacher, student = gpt2(keras_hub, args, 2, 64), gpt2(keras_hub, args, 1, 32)
    rng = np.random.default_rng(0)
    ids = rng.integers(1, args.words, (args.batch, args.length + 1))
    x = {"token_ids": ids[:, :-1], "padding_mask": np.ones_like(ids[:, :-1])}
    x, y = {name: value.astype("int32") for name, value in x.items()}, ids[:, 1:].astype("int32")
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    if kind == "student alone":
        model = student
    elif kind == "naive":
        model = naive_distiller(keras, teacher, student)
    else:
        model = kd.Distiller(teacher, student, getattr(kd.losses, kind)(2.0))
        model.checks_first_batch = False
    model.compile(keras.optimizers.SGD(1e-3), loss=loss, jit_compile=False)
    return measure(args, lambda: model.train_on_batch(x, y))


def naive_distiller(keras, teacher, student):
    class Naive(keras.Model):
        """As in many examples."""

        def __init__(self):
            super().__init__()
            self.student = student
            self._teacher = [teacher]

        def call(self, inputs, training=None):
            return self.student(inputs, training=training)

        def compute_loss(self, x, y, y_pred, sample_weight=None, training=True):
            hard = super().compute_loss(x, y, y_pred, sample_weight)
            logits = self._teacher[0](x, training=False)
            soft = keras.losses.kl_divergence(
                keras.ops.softmax(logits / 2.0), keras.ops.softmax(y_pred / 2.0)
            )
            return 0.5 * hard + 0.5 * 4.0 * keras.ops.mean(soft)

    teacher.trainable = False
    return Naive()


def head_and_loss(args, kind):
    import numpy as np
    import tensorflow as tf

    import keras_kd as kd

    rng = np.random.default_rng(0)

    def random(*shape):
        return tf.Variable(rng.standard_normal(shape, dtype=np.float32) * 0.05)

    hidden = [random(args.tokens, width) for width in args.widths]
    kernels = [random(args.head_words, width) for width in args.widths]
    labels = tf.constant(rng.integers(args.head_words, size=args.tokens))
    weights = 0.5 / args.tokens, 0.5 / args.tokens

    @tf.function(autograph=False)
    def run():
        with tf.GradientTape() as tape:
            if kind == "logits":
                student, teacher = (
                    tf.matmul(h, k, transpose_b=True) for h, k in zip(hidden, kernels, strict=True)
                )
                total, _, _ = kd.ops.combined_loss(student, teacher, labels, *weights, 2.0)
                loss = tf.reduce_sum(total)
            else:
                heads = [kd.ops.LinearHead(kernel, is_tied=True) for kernel in kernels]
                loss = kd.ops.linear_soft_target_loss(
                    hidden[0],
                    heads[0],
                    hidden[1],
                    heads[1],
                    labels,
                    hard_weight=0.5,
                    soft_weight=0.5,
                    temperature=2.0,
                    memory_mb=kind if kind == "auto" else float(kind),
                ).loss
        return tape.gradient(loss, [hidden[0], kernels[0]])

    return measure(args, run)


def child(args, what):
    command = [sys.executable, *sys.argv, "--only", what]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    if found.returncode:
        sys.exit(found.stderr)
    return json.loads(found.stdout.splitlines()[-1])


def table(title, found, base):
    print(f"\n{title:32}{'peak MB':>10}{f'/ {base}':>16}{'CPU s':>10}{f'/ {base}':>16}")
    for name, each in found.items():
        memory, seconds = (each[key] / found[base][key] for key in ("mb", "seconds"))
        print(
            f"{name:32}{each['mb']:>10.0f}{memory:>16.2f}{each['seconds']:>10.2f}{seconds:>16.2f}"
        )


def main():
    args = parse()
    if args.only:
        kind, name = args.only.split(":")
        made = (training_step if kind == "step" else head_and_loss)(args, name)
        print(json.dumps(made))
        return
    logits = args.batch * args.length * args.words * 4 / 2**20
    print(f"{args.batch} x {args.length} tokens, {args.words} words: logits {logits:.0f} MB")
    found = {name: child(args, f"step:{name}") for name in STEPS}
    table("a training step of GPT-2", found, "SoftTargets")
    logits = args.tokens * args.head_words * 4 / 2**20
    print(
        f"\n{args.tokens} tokens, {args.head_words} words, widths {args.widths[0]} and "
        f"{args.widths[1]}: logits {logits:.0f} MB"
    )
    kinds = ["logits", "auto", *(str(each) for each in args.memory_mb)]
    found = {name: child(args, f"head:{name}") for name in kinds}
    found = {name if name == "logits" else f"chunks of {name} MB": x for name, x in found.items()}
    table("loss and gradients", found, "logits")


if __name__ == "__main__":
    main()
