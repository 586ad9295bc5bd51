"""Reports with everything in them, for what is read and looked at."""

import numpy as np

from tests.report import made_up

NASTY = '<script>alert("x")</script> & "quotes" | `ticks` *stars*'
NAMES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


def said(truth, accuracy, seed, classes):
    """Predictions with this accuracy: hard rows are wrong in most seeds."""
    rng = np.random.default_rng(seed)
    hard = 0.7 * np.random.default_rng(99).random(len(truth)) + 0.3 * rng.random(len(truth))
    wrong = hard < np.quantile(hard, 1 - accuracy)
    steps = 1 + (np.arange(len(truth)) // 7) % 3
    return np.where(wrong, (truth + steps) % classes, truth)


def full(names=NAMES, exports=("int8", "float16"), rows=2000, **options):
    """A report of three seeds with a clear gain."""
    classes = len(names)
    truth = np.arange(rows) % classes

    def models(accuracies, seed, agreement=None, **changes):
        teacher = None if agreement is None else {"agreement": agreement, "kl": 0.1}
        return [
            made_up.classifier(
                truth,
                said(truth, accuracy, seed + i, classes),
                classes=classes,
                names=names,
                teacher=teacher,
                **changes,
            )
            for i, accuracy in enumerate(accuracies)
        ]

    sides = {
        "teacher": models([0.949], 1, size=827_688, latency=900.0),
        "baseline": models([0.918, 0.906, 0.924], 10, 0.93, size=36_400, latency=640.0),
        "student": models([0.942, 0.940, 0.944], 20, 0.97, size=36_400, latency=655.0),
        "exports": {
            name: models(
                [0.941 - 0.001 * i, 0.940, 0.942 - 0.001 * i],
                30 + i,
                0.968,
                size=13_056 * (i + 1),
                latency=19.0 * (i + 1),
            )
            for i, name in enumerate(exports)
        },
    }
    brightness = ["dark" if row % 3 else "bright" for row in range(rows)]
    options = {"slice_keys": {"brightness": brightness}, "notes": ["a note"], **options}
    options.setdefault("environment", {"Processor": "one of two cores"})
    return made_up.report(options, **sides)
