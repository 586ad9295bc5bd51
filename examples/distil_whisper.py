"""distil-whisper in small: a transcriber keeps its encoder, and half or a quarter of its decoder.

A small Whisper learns from transcribed speech. It then writes the transcripts of other speech,
which came with transcripts that are not always right: what differs too much from them is dropped.
Students have the teacher's encoder, which runs over the speech once, and some layers of its
decoder. They learn in three ways, with as many steps: from the transcripts that came with the
speech, from the teacher's, and from these and its probabilities. Sentences that none has heard
judge them.

    python examples/distil_whisper.py
    python examples/distil_whisper.py --layers 3 --seeds 5

The speech is made on the spot, by eSpeak NG; `examples/speech.py` says what that needs. Besides
`pip install 'keras-kd[examples,measure,language]'` and KerasHub:
`pip install --no-deps 'keras-hub>=0.32,<0.33' regex 'tokenizers>=0.21,<0.24'`.
"""

import hashlib
import os
import types

if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import speech
import tensorflow as tf
from checks import check_packages, check_rates, checked_layers
from comparison import is_clear, spread
from quickstart import checked
from small_whisper import DEPTH, Transcriber, inputs_of, make_teacher, shrunk
from training import adam_that_warms_up

import keras_kd as kd

BATCH = 16
WAYS = "transcripts", "pseudo-labels", "distil-whisper"
NEEDED = {
    "keras_hub": "--no-deps 'keras-hub>=0.32,<0.33' regex 'tokenizers>=0.21,<0.24'",
    "jiwer": "'keras-kd[language]'",
    "sklearn": "'keras-kd[measure]'",
}


def distil_whisper(
    train_samples=2000,
    unlabeled_samples=1200,
    test_samples=300,
    voice="espeak",
    wrong=0.1,
    limit=0.2,
    layers=(0, 3),
    width=64,
    seeds=3,
    teacher_epochs=16,
    epochs=4,
    learning_rate=2e-3,
    temperature=2.0,
    output="distil_whisper_output",
):
    """Trains a teacher, has it transcribe, distills students, and prints their word errors.

    Args:
        train_samples: Sentences that the teacher learns from.
        unlabeled_samples: Sentences that it transcribes for the students.
        test_samples: Sentences to judge by.
        voice: `"espeak"`, or `"tones"`: letters as pairs of sines, without any package.
        wrong: Share of the students' sentences whose transcript belongs to another one.
        limit: Word error rate above which a pseudo-label is dropped.
        layers: Numbers of the teacher's decoder layers that the student keeps, from 0 to 3.
        width: Of all models, an even number.
        seeds: How many students are trained in each way.
        teacher_epochs: Of the teacher.
        epochs: Of each student.
        learning_rate: At most; of students a quarter of it.
        temperature: Of the soft targets.
        output: A folder for the pseudo-labels and the students.

    Returns:
        `{name: [keras_kd.measurement.Measurement]}` of decoders, of students one for each seed.
    """
    args = checked_for_speech(**locals())
    data = load(args)
    keras.utils.set_random_seed(1000)
    teacher = make_teacher(args.width)
    train(teacher, inputs_of(*data.train), args.teacher_epochs, args.learning_rate)
    recipe = kd.recipes.distil_whisper(teacher, shrunk(teacher, args.layers))
    test = recipe.encode(inputs_of(*data.test)[0])
    found = {"teacher": [measure(recipe.stages[0].teacher, test, data.test[0])]}
    found["untrained"] = [measure(recipe.stages[0].student, test, data.test[0])]
    datasets = of_students(args, recipe, data.unlabeled)
    counts = {"teacher": teacher.count_params()}
    for seed in range(args.seeds):
        for name in WAYS:
            keras.utils.set_random_seed(seed)
            student = shrunk(teacher, args.layers)
            counts["student"] = student.count_params()
            recipe = kd.recipes.distil_whisper(teacher, student, temperature=args.temperature)
            (stage,) = recipe
            # Without the teacher's probabilities its decoder does not run.
            distiller = stage.distiller(**({} if name == "distil-whisper" else {"beta": 0.0}))
            labels = "transcripts" if name == "transcripts" else "pseudo-labels"
            fit(args, distiller, datasets[labels], seed)
            found.setdefault(name, []).append(measure(stage.student, test, data.test[0]))
            rate = found[name][-1].quality["wer"]
            print(f"seed {seed}, {name}: {rate:.1%} of words are wrong", flush=True)
        student.save(args.output / f"student-{seed}.keras")
    print_table(found, counts)
    print(verdict(found))
    print(f"Wrote the pseudo-labels and the distilled students to {args.output}")
    return found


def load(args):
    """Three parts of sentences and their log-mels; no long one is in two of them."""
    parts, known = {}, []
    sizes = args.train_samples, args.unlabeled_samples, args.test_samples
    for seed, (name, size) in enumerate(zip(("train", "unlabeled", "test"), sizes, strict=True)):
        # Attention learns where a word stands from sentences with few of them.
        words = (1, 2, 3, 4) if name == "train" else (3, 4)
        parts[name] = speech.make(size, args.voice, words, seed=seed, without=known)
        known += parts[name][0]
    texts, sounds = parts["unlabeled"]
    parts["unlabeled"] = with_wrong(texts, args.wrong), sounds
    print(
        f"{sizes[0]} transcribed sentences, {sizes[1]} to be transcribed, {sizes[2]} to judge by",
        flush=True,
    )
    return types.SimpleNamespace(**parts)


def with_wrong(texts, share):
    """The texts, some of which are in one another's place."""
    rng, texts = np.random.default_rng(0), list(texts)
    rows = rng.permutation(len(texts))[: round(share * len(texts))]
    moved = [texts[row] for row in np.roll(rows, 1)]
    for row, text in zip(rows, moved, strict=True):
        texts[row] = text
    return texts


def compile_for(model, learning_rate, steps):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(adam_that_warms_up(learning_rate, steps), loss, jit_compile=False)


def train(teacher, data, epochs, learning_rate):
    x, y = data
    compile_for(teacher, learning_rate, epochs * -(-len(y) // BATCH))
    weight = x["decoder_padding_mask"].astype("float32")
    teacher.fit(x, y, sample_weight=weight, batch_size=BATCH, epochs=epochs, verbose=2)


def of_students(args, recipe, unlabeled):
    """`{labels: dataset of single samples}`, whose sounds have passed the encoder, once."""
    texts, sounds = unlabeled
    digest = hashlib.sha256(sounds.tobytes()).hexdigest()[:8]
    prompts = list(zip(sounds, texts, strict=True))
    transcribe = Transcriber(recipe.stages[0].teacher)

    def write(sounds):
        return transcribe(recipe.encode(inputs_of([""] * len(sounds), sounds)[0]))

    labels = kd.language.label(
        write,
        prompts,
        args.output / f"labels-{digest}",
        keep=kd.language.WordErrorFilter(args.limit),
        batch_size=50,
        fingerprint=digest_of(recipe.stages[0].teacher),
        verbose=2,
    )
    if not labels.kept:
        raise ValueError(
            f"`limit` {args.limit} drops all {labels.prompts} pseudo-labels: the teacher has "
            "learned too little. Pass more `teacher_epochs` or `train_samples`, or a larger `limit`"
        )
    pairs = list(kd.language.load_labels(labels, prompts=prompts))
    kept = [text.numpy().decode() for _, text in pairs], np.stack([each for each, _ in pairs])
    return {
        name: encoded_once(recipe, inputs_of(*given))
        for name, given in {"transcripts": unlabeled, "pseudo-labels": kept}.items()
    }


def digest_of(model):
    """Tells one teacher from another: pseudo-labels of one are not taken for the other's."""
    weights = b"".join(each.tobytes() for each in model.get_weights())
    return hashlib.sha256(weights).hexdigest()


def encoded_once(recipe, data):
    """A dataset of what the decoders take, sample by sample; the encoder runs here alone."""
    batches = tf.data.Dataset.from_tensor_slices(data).batch(BATCH)
    encoded = [(recipe.encode(x), y) for x, y in batches]
    whole = tf.nest.map_structure(lambda *parts: tf.concat(parts, axis=0), *encoded)
    return tf.data.Dataset.from_tensor_slices(whole)


def fit(args, distiller, dataset, seed):
    """As many steps for each way, however many labels it has."""
    steps = args.epochs * -(-args.unlabeled_samples // BATCH)
    compile_for(distiller, args.learning_rate / 4, steps)
    endless = dataset.shuffle(args.unlabeled_samples, seed=seed).repeat().batch(BATCH)
    distiller.fit(endless.take(steps).prefetch(2), shuffle=False, verbose=0)


def measure(decoder, encoded, texts):
    """Errors of greedy decoding, and its time for an utterance whose sound is encoded."""
    transcribe = Transcriber(decoder)
    return kd.measure(
        decoder,
        (keras.tree.map_structure(np.asarray, encoded), np.array(texts)),
        task="speech_recognition",
        generate=lambda _, x: transcribe(x),
        runs=50,
        verbose=0,
    )


def print_table(found, counts):
    print(f"\n{'':16}{'WER, %':>16}{'CER, %':>16}{'parameters':>12}{'decoder':>10}{'ms':>8}")
    for name, each in found.items():
        rates = [[100 * one.quality[figure] for one in each] for figure in ("wer", "cer")]
        cells = [spread(values, digits=1) for values in rates]
        whole = counts["teacher" if name == "teacher" else "student"]
        time = np.median([one.latency["median_us"] for one in each]) / 1000
        print(
            f"{name:16}" + "".join(f"{cell:>16}" for cell in cells) + f"{whole:>12,}"
            f"{each[0].size['parameters']:>10,}{time:>8.2f}"
        )
    print(
        "of sentences that no model has heard; ±: standard deviation over seeds; parameters: with"
    )
    print("the encoder, and without; ms: of the decoder for one utterance")


def verdict(found):
    """What the probabilities gave over the same pseudo-labels, and no more than the seeds show."""
    plain, distilled = ([100 * one.quality["wer"] for one in found[name]] for name in WAYS[1:])
    changes = np.subtract(distilled, plain)
    listed = ", ".join(f"{change:+.2f}" for change in changes)
    said = (
        f"WER of distil-whisper against pseudo-labels: {changes.mean():+.2f} (by seed: {listed})."
    )
    shows = len(changes) > 1 and is_clear(changes)
    return said if shows else f"{said} That is within the noise."


def checked_for_speech(**given):
    """The arguments as attributes, if they make sense.

    Raises:
        ImportError: A package is missing; it says what to install.
        ValueError: An argument is wrong.
    """
    check_packages(NEEDED)
    layers = checked_layers(given["layers"], DEPTH["decoder"])
    for name in ("unlabeled_samples", "test_samples", "teacher_epochs"):
        if given[name] < 1:
            raise ValueError(f"`{name}` must be at least 1, received {given[name]}")
    if not 0 <= given["wrong"] < 1 or given["limit"] < 0:
        raise ValueError(
            "`wrong` must be at least 0 and below 1, and `limit` at least 0, received "
            f"{given['wrong']} and {given['limit']}"
        )
    if given["width"] < 8 or given["width"] % 4:
        raise ValueError(f"`width` must be a multiple of 4, at least 8, received {given['width']}")
    check_rates(given)
    if given["voice"] in speech.VOICES:
        speech.check(given["voice"])
    return checked(OPTIONS, **{**given, "layers": layers})


OPTIONS = {"voice": list(speech.VOICES)}


def main():
    from command_line import run

    run(distil_whisper, checked_for_speech, OPTIONS)


if __name__ == "__main__":
    main()
