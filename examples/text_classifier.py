"""A text classifier with a pretrained teacher: which section of Debian is this package for?

all-MiniLM-L6-v2, six layers, is fine-tuned on the one-line synopses of packages. Students keep
three of its layers and the words in use: in small models embeddings are half of all parameters. For
each seed one learns from labels only and one from the teacher too, whose outputs are computed once
and kept; both start from the same pretrained weights. `kd.report` compares them.

    python examples/text_classifier.py
    python examples/text_classifier.py --losses logits relations --layers 2 5
    python examples/text_classifier.py --source apt --train-samples 12000

Needs `pip install 'keras-kd[examples,measure]'` and what `minilm.NEEDED` lists.
"""

import os

if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import debian
import keras
import keras_hub
import minilm
from quickstart import write

import keras_kd as kd


def text_classifier(
    train_samples=1440,
    sections=12,
    layers=(1, 3, 5),
    losses=("logits", "hidden"),
    seeds=3,
    epochs=3,
    teacher_epochs=3,
    learning_rate=4e-4,
    temperature=2.0,
    length=16,
    test_samples=1200,
    source="excerpt",
    encoder="minilm",
    output="text_classifier_output",
):
    """Fine-tunes the teacher, distills a student for each seed, and reports what that gave.

    Args:
        train_samples: Lines to train on.
        sections: How many of the largest sections to tell apart.
        layers: Numbers of the teacher's layers that the student keeps, from 0.
        losses: What the student learns of the teacher beside the labels, of `LOSSES`.
        seeds: How many students are trained in each way.
        epochs: Of each student.
        teacher_epochs: Of the teacher.
        learning_rate: Of the students, at most; the teacher has half of it.
        temperature: Of the soft targets.
        length: Tokens of a line, at most.
        test_samples: Lines to judge by.
        source: `"excerpt"` of the package lists, or `"apt"`: those of this machine.
        encoder: `"minilm"`, or the folder of another BERT of Hugging Face.
        output: A folder for the page, the teacher, its outputs and the students.

    Returns:
        The `keras_kd.Report`.
    """
    args = minilm.checked_for_text(OPTIONS, **locals())
    pretrained, train, test, names = load(args)
    teacher = fine_tuned(args, pretrained, train)
    guides = losses_of(args)
    taps = [tap for loss in guides for tap in flat(loss.teacher_layer)]
    cache = work_folder(args) / "_".join(["cache", *args.losses, *map(str, args.layers)])
    kd.cache_teacher(teacher, minilm.batches(train), cache, taps=taps or None, verbose=0)

    def train_student(model):
        is_taught = isinstance(model, kd.Distiller)
        data = kd.load_cache(cache, minilm.batches(train)) if is_taught else minilm.batches(train)
        train_on(model, data, len(train[1]), args.epochs, args.learning_rate)

    report = kd.report(
        teacher,
        make_student=lambda: classifier(minilm.shrunk(pretrained, args.layers), len(names)),
        train=train_student,
        distiller=lambda _, student: kd.Distiller(
            kd.teachers.Cached(cache), student, losses_of(args), alpha=0.3, beta=0.7
        ),
        seeds=args.seeds,
        data=minilm.batches(test),
        class_names=names,
        metric="f1_macro",
        directory=args.output,
        title="Which section is this package for?",
        verbose=2,
    )
    print(report)
    report.save_json(args.output / "report.json")
    report.save_html(args.output / "report.html")
    print(f"Wrote report.html, the teacher and the students to {args.output}")
    return report


LOSSES = ["logits", "hidden", "attention", "relations"]
OPTIONS = {"losses": LOSSES, "source": ["excerpt", "apt"]}


def load(args):
    """The encoder with the words in use, the data to train on and to test on, and the sections."""
    train, test, names = debian.labeled(
        args.source, args.sections, args.train_samples, args.test_samples
    )
    print(f"{len(train[0])} lines to train on, {len(test[0])} to judge by, {len(names)} sections")
    encoder, tokenizer = minilm.trim(args, train[0])
    encoded = [(minilm.encode(tokenizer, texts), labels) for texts, labels in (train, test)]
    return encoder, *encoded, names


def classifier(encoder, classes):
    return keras_hub.models.BertTextClassifier(encoder, classes, preprocessor=None)


def train_on(model, dataset, count, epochs, learning_rate):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    minilm.fit(model, dataset, count, epochs, learning_rate, loss=loss, metrics=["accuracy"])


def work_folder(args):
    """The folder of the teacher and its outputs."""
    of_data = "encoder", "source", "sections", "train_samples", "test_samples", "length"
    return minilm.work_folder(args, *of_data, "teacher_epochs", "learning_rate")


def fine_tuned(args, pretrained, train):
    """The teacher; one of these settings that is there already is not trained again."""
    keras.utils.set_random_seed(1000)
    teacher = classifier(minilm.shrunk(pretrained), args.sections)
    path = work_folder(args) / "teacher.weights.h5"
    if path.exists():
        print(f"The teacher comes from {path}", flush=True)
        teacher.load_weights(path)
        return teacher
    rate, count = args.learning_rate / 2, len(train[1])
    train_on(teacher, minilm.batches(train), count, args.teacher_epochs, rate)
    write(path, teacher.save_weights)
    return teacher


def losses_of(args):
    """The losses that the names in `losses` mean, for a student of the layers `layers`."""
    pairs = [
        (f"backbone/transformer_layer_{old}", f"backbone/transformer_layer_{new}")
        for new, old in enumerate(args.layers)
    ]
    found = []
    for name in args.losses:
        if name == "logits":
            found.append(kd.losses.SoftTargets(args.temperature))
            continue
        for i, layers in enumerate(pairs):
            options = {"name": f"{name}_{i}", "mask_input": "padding_mask"}
            if name == "hidden":
                found.append(kd.losses.HiddenStates(*layers, weight=1 / len(pairs), **options))
                continue
            inside = [f"{layer}/self_attention_layer" for layer in layers]
            if name == "attention":
                found.append(kd.losses.AttentionMaps(*inside, weight=1 / len(pairs), **options))
            elif i == len(pairs) - 1:  # MiniLM: one pair of layers is enough
                found.append(kd.losses.SequenceRelations(*inside, **options))
    return found


def flat(layer):
    """The layers that a loss reads, in a list."""
    if isinstance(layer, (list, tuple)):
        return list(layer)
    return [] if layer is None else [layer]


def main():
    from command_line import run

    run(text_classifier, lambda **given: minilm.checked_for_text(OPTIONS, **given), OPTIONS)


if __name__ == "__main__":
    main()
