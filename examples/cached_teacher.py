"""Compare what a student learns from a living teacher, and from what one has written to disk.

The teacher of `quickstart.py` is asked once, and its answers are kept in float32, in float16, as
the three largest logits, and for several views: 4 randomly shifted copies of each image, one an
epoch, in turn. Then for every seed the same student learns from the teacher and from each cache.
Prints a table with mean and spread over the seeds, the caches' sizes, and how far the student of
the float32 cache is from that of the teacher itself: in the batches that the teacher saw, and in
others, where it rounds otherwise; saves a plot in `--output`.

    python examples/cached_teacher.py
    python examples/cached_teacher.py --methods "living teacher" "float32 cache" --epochs 5

The labels of the shifted images are learned without a teacher too: what shifting gives is not the
teacher's merit. All settings are those of `quickstart.py`; the shifts, of up to 2 pixels of 28,
were not tuned.
"""

import os

if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import functools
import pathlib
import tempfile

import comparison
import numpy as np
import tensorflow as tf
from quickstart import fit, load_data
from training import shuffled

import keras_kd as kd


def cached_teacher(
    methods=None,
    output="cached_teacher_output",
    **settings,
):
    """Compares a living teacher with caches of its answers, and prints a table and their sizes.

    Args:
        methods: Names of the ways to learn, see `METHODS`; default: all.
        output: A folder for the plot.
        **settings: The other arguments of `comparison.settings`: data set, seeds, epochs, rates.

    Returns:
        `{row: the students by seed}`, `{name: teacher}`.
    """
    args = comparison.settings(METHODS, {}, methods, output=output, **settings)
    title = "One student, a teacher alive or on disk"
    with tempfile.TemporaryDirectory() as folder:
        args.caches = pathlib.Path(folder)
        students, teachers = comparison.compare(args, METHODS, comparison.one_teacher, title)
        print_sizes(args)
        if {"living teacher", "float32 cache"} <= set(students):
            print_whether_exact(args, students, teachers)
    return students, teachers


VIEWS = 4
BATCH = 50


def batches(samples):
    """The samples in the order in which the teacher is asked: shuffling comes after the cache."""
    return tf.data.Dataset.from_tensor_slices(samples).batch(BATCH)


def view(samples, number):
    """The samples, each image shifted at random, in the same way each time that it is asked for."""
    side = samples[0].shape[1]
    margin = max(side // 14, 1)

    def shifted(index, sample):
        image, label = sample
        padded = tf.pad(image, [[margin, margin], [margin, margin], [0, 0]])
        seed = tf.stack([tf.constant(number, tf.int64), index])
        return tf.image.stateless_random_crop(padded, image.shape, seed), label

    dataset = tf.data.Dataset.from_tensor_slices(samples).enumerate().map(shifted)
    return dataset.batch(BATCH)


def steps(samples):
    return -(-len(samples[0]) // BATCH)


def train(trial, model, dataset):
    return fit(model, in_order_of(trial, dataset), *settings(trial))


def in_order_of(trial, dataset):
    """Batches in the order in which `quickstart.py` trains on them, from the samples in order."""
    return shuffled(dataset, len(trial.samples[0]), BATCH, trial.seed)


def train_on_views(trial, model, datasets):
    """An epoch is a view; after the last one the first comes again, in another order."""
    each = [in_order_of(trial, dataset) for dataset in datasets]
    joined = functools.reduce(tf.data.Dataset.concatenate, each).repeat()
    return fit(model, joined, *settings(trial), steps_per_epoch=steps(trial.samples))


def settings(trial):
    return trial.args.epochs, trial.args.learning_rate


def living(trial):
    return trial.distill(trial.teachers["teacher"])


def cached(name, **options):
    """A way to learn: from a cache, which is written when the first seed asks for it."""

    def learn(trial):
        data = batches(trial.samples)
        path = trial.args.caches / name
        kd.cache_teacher(trial.teachers["teacher"], data, path, verbose=0, **options)
        student = trial.new_student()
        distiller = trial.distiller(kd.teachers.Cached(path), student)
        train(trial, distiller, kd.load_cache(path, data))
        return student

    return learn


def views_labels_only(trial):
    student = trial.new_student()
    train_on_views(trial, student, [view(trial.samples, number) for number in range(VIEWS)])
    return student


def views_cached(trial):
    path = trial.args.caches / "views"
    views = functools.partial(view, trial.samples)
    teacher = trial.teachers["teacher"]
    kd.cache_teacher(teacher, views, path, dtype="float16", epochs=VIEWS, verbose=0)
    student = trial.new_student()
    distiller = trial.distiller(kd.teachers.Cached(path), student)
    loaded = [kd.load_cache(path, views, epoch=number) for number in range(VIEWS)]
    train_on_views(trial, distiller, loaded)
    return student


METHODS = {
    "labels only": comparison.labels_only,
    "living teacher": living,
    "float32 cache": cached("float32", dtype="float32"),
    "float16 cache": cached("float16", dtype="float16"),
    "top-3 cache": cached("top_3", top_k=3),
    "labels only, 4 views": views_labels_only,
    "cache of 4 views": views_cached,
}


def print_sizes(args):
    print("\nBytes on disk for each sample, fingerprints of the inputs included:")
    for path in sorted(args.caches.iterdir()):
        views = VIEWS if path.name == "views" else 1
        size = sum(file.stat().st_size for file in path.rglob("*.tfrecord"))
        each = f", {size / args.train_samples / views:.1f} for each view" if views > 1 else ""
        print(f"{path.name:10}{size / args.train_samples:>8.1f}{each}")


def print_whether_exact(args, students, teachers):
    pairs = zip(students["living teacher"], students["float32 cache"], strict=True)
    shuffled_again = max(largest_difference(*pair) for pair in pairs)
    print("\nLargest difference of a weight between learning from the teacher and from float32:")
    print(f"in the batches that the teacher saw  {in_same_batches(args, teachers):.2g} (an epoch)")
    print(f"in batches shuffled again            {shuffled_again:.2g}")


def in_same_batches(args, teachers):
    """The largest difference after an epoch in which nothing is shuffled."""
    trial = comparison.Trial(args, load_data(args)[0], 0, teachers)
    path, data = args.caches / "float32", batches(trial.samples)
    learned = []
    for teacher, given in (
        (teachers["teacher"], data),
        (kd.teachers.Cached(path), kd.load_cache(path, data)),
    ):
        learned.append(trial.new_student())
        distiller = trial.distiller(teacher, learned[-1])
        fit(distiller, given, epochs=1, learning_rate=args.learning_rate)
    return largest_difference(*learned)


def largest_difference(one, other):
    pairs = zip(one.get_weights(), other.get_weights(), strict=True)
    return max(float(np.abs(np.subtract(*pair)).max()) for pair in pairs)


if __name__ == "__main__":
    comparison.main(cached_teacher, METHODS)
