"""What a search is worth: the best settings, trained with several seeds, on data no trial saw."""

import dataclasses
import json
import pathlib
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from keras_kd._utils import files, locks, progress
from keras_kd.tuning.building import Training
from keras_kd.tuning.data import TuningData
from keras_kd.tuning.objectives import Objective
from keras_kd.tuning.trials import TrialFailed, Watch, fit

TUNED, DEFAULT, LABELS = "tuned", "default settings", "labels only, tuned"
_FAILURE = "failure"


@dataclasses.dataclass(frozen=True)
class Arm:
    """Students that are trained alike, but for their seeds.

    Attributes:
        name: As the results call it.
        build: A function from a seed to a `Training`.
        batches: A function from the size of a batch and a seed to the training data.
    """

    name: str
    build: Callable[[int], Training]
    batches: Callable[[int, int], tf.data.Dataset]


@dataclasses.dataclass(frozen=True)
class Trained:
    """The students of an arm.

    Attributes:
        students: By seed; empty where one of them failed.
        validated: The metric on validation data, by seed.
        failures: `"seed 1: ..."` of those that broke.
    """

    students: list[keras.Model]
    validated: list[float]
    failures: list[str]


class Finals:
    """Trains the students that are compared; what a killed run left is not trained again.

    Args:
        folder: For them. Several processes may work on it.
        data: The `TuningData`.
        epochs: Of each.
        objective: The metric.
    """

    def __init__(
        self, folder: pathlib.Path, data: TuningData, epochs: int, objective: Objective
    ) -> None:
        self._folder, self._data = folder, data
        self._epochs, self._objective = epochs, objective
        self._here: dict[pathlib.Path, keras.Model] = {}
        folder.mkdir(exist_ok=True)

    def run(self, arms: list[Arm], seeds: list[int], steps: progress.Steps) -> dict[str, Trained]:
        """`{name: Trained}` of each arm."""
        steps.expect(len(arms) * len(seeds))
        waiting = [(arm, seed) for seed in seeds for arm in arms]
        left: list[tuple[Arm, int]] = []
        # First what nobody else is training, then what others are: they may be killed.
        for hold, units in ((locks.held_at_once, waiting), (locks.held, left)):
            for arm, seed in units:
                path = self._path(arm, seed)
                try:
                    with hold(self._folder, path.stem):
                        self._train(arm, seed, path, steps)
                except locks.LockHeldError:
                    left.append((arm, seed))
        return {arm.name: self._load(arm, seeds) for arm in arms}

    def _path(self, arm, seed):
        return self._folder / f"{arm.name.replace(',', '').replace(' ', '-')}-{seed}.keras"

    def _train(self, arm, seed, path, steps):
        label = f"{arm.name}, seed {seed}"
        # The note is written last, so that where it is the student is whole.
        if path.with_suffix(".json").exists():
            steps.skip(f"{label}: there already")
            return
        steps.begin(label)
        made = arm.build(seed)
        watch = Watch(self._objective, None, self._epochs)
        note: dict[str, Any] = {}
        try:
            fit(made, arm.batches(made.batch_size, seed), self._data, self._epochs, [watch])
        except TrialFailed as error:
            note[_FAILURE] = str(error)
        else:
            note[self._objective.name] = watch.value
            files.save(made.student.save, path)
            self._here[path] = made.student
        with files.replace_atomically(path.with_suffix(".json")) as partial:
            partial.write_text(json.dumps(note))

    def _load(self, arm: Arm, seeds: list[int]) -> Trained:
        paths = {seed: self._path(arm, seed) for seed in seeds}
        notes = {
            seed: json.loads(path.with_suffix(".json").read_text()) for seed, path in paths.items()
        }
        failures = [f"seed {s}: {note[_FAILURE]}" for s, note in notes.items() if _FAILURE in note]
        if failures:
            return Trained([], [], failures)
        validated = [note[self._objective.name] for note in notes.values()]
        return Trained([self._student(path) for path in paths.values()], validated, [])

    def _student(self, path):
        if path not in self._here:  # trained by another process, or by an earlier call
            self._here[path] = keras.models.load_model(path, compile=False)
        return self._here[path]
