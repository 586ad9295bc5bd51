"""Measurements and candidates made by hand, so that every number is known."""

import numpy as np

from keras_kd.measurement import Measurement
from keras_kd.reporting import comparison as findings
from keras_kd.reporting import statistics
from keras_kd.reporting.comparison import BASELINE, EXPORT, STUDENT, TEACHER, Candidate
from keras_kd.reporting.result import Report

CLASSES = 4


def labels(rows=400, classes=CLASSES):
    return np.arange(rows) % classes


def predictions(truth, wrong, classes=CLASSES, shift=1):
    """The truth but for these rows, which get the class `shift` further on."""
    made = np.array(truth)
    made[wrong] = (made[wrong] + shift) % classes
    return made


def classifier(truth, said, *, classes=CLASSES, names=None, size=10_000, latency=100.0, **changes):
    """A `Measurement` of a classifier from its predictions."""
    names = list(range(classes)) if names is None else names
    confusion = np.zeros((classes, classes), int)
    np.add.at(confusion, (truth, said), 1)
    per_class = [
        {
            "label": names[i],
            "support": int(confusion[i].sum()),
            "recall": float(confusion[i, i] / max(confusion[i].sum(), 1)),
            "precision": float(confusion[i, i] / max(confusion[:, i].sum(), 1)),
            "f1": 0.0,
        }
        for i in range(classes)
    ]
    accuracy = float(np.mean(truth == said))
    made = {
        "name": "model",
        "kind": "keras",
        "task": "multiclass",
        "samples": len(truth),
        "quality": {"accuracy": accuracy, "ece": 0.03, "f1_macro": accuracy},
        "per_class": per_class,
        "reliability": reliability(len(truth), accuracy),
        "confusion": confusion.tolist(),
        "teacher": None,
        "size": {"parameters": size / 4, "bytes": size, "macs": 12_345.0},
        "latency": latency
        and {
            "runtime": "keras",
            "threads": 1,
            "batch_size": 1,
            "median_us": latency,
            "p95_us": latency * 1.2,
        },
        "notes": [],
        "predictions": said,
        "labels": truth,
    }
    return Measurement(**{**made, **changes})


def reliability(rows, accuracy):
    counts = np.array([rows // 10, rows // 5, rows - rows // 10 - rows // 5])
    return [
        {
            "low": low,
            "high": low + 0.2,
            "count": int(count),
            "confidence": low + 0.1,
            "accuracy": min(1.0, low + 0.1 + (accuracy - 0.8) / 3),
        }
        for low, count in zip((0.4, 0.6, 0.8), counts, strict=True)
    ]


def regression(truth, said, **changes):
    errors = np.asarray(said, float) - truth
    made = {
        "name": "model",
        "kind": "keras",
        "task": "regression",
        "samples": len(truth),
        "quality": {"mae": float(abs(errors).mean()), "rmse": float((errors**2).mean() ** 0.5)},
        "per_class": [],
        "reliability": [],
        "confusion": None,
        "teacher": None,
        "size": {},
        "latency": None,
        "notes": [],
        "predictions": np.asarray(said, float),
        "labels": np.asarray(truth, float),
    }
    return Measurement(**{**made, **changes})


def with_errors(truth, counts, **options):
    """A `Measurement` for each count of wrong rows: the first rows, so that they are nested."""
    return [classifier(truth, predictions(truth, slice(0, n)), **options) for n in counts]


def candidates(baseline=None, student=None, teacher=None, exports=None):
    """Candidates in the order of the report, from lists of measurements."""
    made = [
        Candidate(name, role, found)
        for name, role, found in (
            ("teacher", TEACHER, teacher),
            ("labels only", BASELINE, baseline),
            ("distilled", STUDENT, student),
        )
        if found is not None
    ]
    return made + [Candidate(name, EXPORT, found) for name, found in (exports or {}).items()]


def compared(key=None, **sides):
    """A `Comparison` of such candidates."""
    made = candidates(**sides)
    found = [one for each in made for one in each.measurements]
    return findings.compare(statistics.choose_metric(found, key), made)


def report(options=None, **sides):
    """A `Report` of such candidates."""
    return Report(compared(**sides), **(options or {}))
