"""`Study`: the trials of a search, in Optuna, shared by all processes that work on its folder.

A process holds a lock of the folder for as long as it runs a trial. The lock ends with the process,
so that a trial whose process was killed is found at once, without clocks, and is begun again with
the same settings. Trials are asked for one process at a time: none runs twice, and there are
exactly as many as wanted.
"""

import contextlib
import dataclasses
import math
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from keras_kd._utils import locks, validation
from keras_kd.tuning.objectives import MAX, Objective
from keras_kd.tuning.space import Range, Settings, Space

SAMPLERS = ("tpe", "random")
# Optuna draws this many at random before it believes what it saw.
_STARTUP = 8
# Short of memory, a trial may kill its process each time.
MOST_ATTEMPTS = 3
# Complete trials from which importances are estimated.
_EXPLAINED = 4
KILLED = f"its process was killed {MOST_ATTEMPTS} times, perhaps for lack of memory"
_STUDY = "study"
# What is noted with a trial. A place is one of the wanted number of trials: what is begun again has
# that of the trial that was killed.
_PLACE, _ATTEMPT, _AGAIN = "place", "attempt", "begun again"
FAILURE, EPOCHS, VALUES, SETTINGS = "failure", "epochs", "values", "settings"


def optuna() -> Any:
    """The engine, or an `ImportError` that says how to install it."""
    return validation.needs("optuna", "keras_kd.tune", "tune")


@dataclasses.dataclass(frozen=True)
class TrialRecord:
    """One trial that has ended.

    Attributes:
        number: From 0, in the order in which they began.
        state: `"complete"`, `"pruned"` or `"failed"`.
        settings: `{name: value}` of what was searched.
        values: `{objective: value}`; the metric alone of pruned ones, nothing of failed ones.
        epochs: How many it was trained for.
        failure: Why it failed, or `None`.
    """

    number: int
    state: str
    settings: dict[str, Any]
    values: dict[str, float]
    epochs: int
    failure: str | None


class _JournalLock:
    """The lock of Optuna's journal, which ends with the process that holds it.

    Optuna's own are files: those of a killed process stand for half a minute, and for ever where
    the path was relative.
    """

    def __init__(self, folder: pathlib.Path) -> None:
        self._folder = folder
        self._held = contextlib.ExitStack()

    def acquire(self) -> bool:
        """Waits for it."""
        self._held.enter_context(locks.held(self._folder, "journal"))
        return True

    def release(self) -> None:
        """Gives it back."""
        self._held.close()


class Study:
    """The trials of one search.

    Args:
        folder: Of the search, shared by all that work on it.
        name: Of the study: `"distilled"` or `"labels-only"`.
        space: What is searched.
        defaults: The settings of the first trial.
        objectives: What is searched for.
        total: How many trials are wanted.
        epochs: Of a whole trial.
        sampler: `"tpe"` or `"random"`.
        prune: Whether poor trials end early.
        seed: Of the settings that are drawn.
    """

    def __init__(
        self,
        folder: pathlib.Path,
        name: str,
        space: Space,
        defaults: dict[str, Any],
        objectives: list[Objective],
        total: int,
        epochs: int,
        sampler: str,
        prune: bool,
        seed: int,
    ) -> None:
        self.name, self.space, self.objectives = name, space, objectives
        self._folder, self._defaults, self._total = folder, defaults, total
        self._sampler, self._seed = sampler, seed
        engine = optuna()
        # Its lines would come between ours; errors and warnings stay.
        engine.logging.set_verbosity(engine.logging.WARNING)
        backend = engine.storages.journal.JournalFileBackend(
            str(folder / "trials.log"), lock_obj=_JournalLock(folder)
        )
        pruner = engine.pruners.NopPruner()
        # Optuna compares one value only.
        self.prunes = prune and len(objectives) == 1 and epochs > 1
        if self.prunes:
            # After a sixth of the epochs, and after a half, the better third goes on. A cut after a
            # ninth takes what learns fast for what learns well: on digits it left weights of the
            # labels above 0.95, which learn little more. Halves, from a quarter on, cost 0.7 of all
            # epochs.
            pruner = engine.pruners.SuccessiveHalvingPruner(
                min_resource=max(1, epochs // 6), reduction_factor=3
            )
        with locks.held(folder, _STUDY):
            self._study = engine.create_study(
                study_name=name,
                storage=engine.storages.JournalStorage(backend),
                directions=["maximize" if o.direction == MAX else "minimize" for o in objectives],
                load_if_exists=True,
                pruner=pruner,
            )
            if not self._trials():
                first = {key: space.start(key, defaults) for key in space.searched}
                self._study.enqueue_trial(first, user_attrs={_PLACE: 0, _ATTEMPT: 1})

    def _trials(self):
        return self._study.get_trials(deepcopy=False)

    @contextlib.contextmanager
    def next_trial(self) -> Iterator["LiveTrial | None"]:
        """The next trial to run, or `None` where all have ended.

        Where other processes run the last ones it waits for them, and takes over what they leave.
        """
        with contextlib.ExitStack() as stack:
            yield self._claim(stack)

    def _claim(self, stack):
        states = optuna().trial.TrialState
        while True:
            with locks.held(self._folder, _STUDY):
                self._bury_dead(states)
                trials = self._trials()
                waiting = any(each.state == states.WAITING for each in trials)
                taken = len(self._counted(trials, states))
                if waiting or taken < self._total:
                    trial = self._study.ask()
                    place = trial.user_attrs.get(_PLACE)
                    if place is None:
                        place = taken
                        trial.set_user_attr(_PLACE, place)
                    # By its place, so that what is drawn depends on no process before.
                    self._study.sampler = self._make_sampler(place)
                    stack.enter_context(locks.held(self._folder, self._lock(trial.number)))
                    return LiveTrial(self, trial)
                running = [each.number for each in trials if each.state == states.RUNNING]
            if not running:
                return None
            with locks.held(self._folder, self._lock(running[0])):
                pass

    def _bury_dead(self, states):
        """Ends trials whose process is gone, and has them begun again."""
        for trial in self._trials():
            is_running = trial.state == states.RUNNING
            if is_running and not locks.is_held(self._folder, self._lock(trial.number)):
                self._study.tell(trial.number, state=states.FAIL)
                attempt = trial.user_attrs.get(_ATTEMPT, 1)
                if attempt < MOST_ATTEMPTS:
                    notes = {**trial.user_attrs, _ATTEMPT: attempt + 1}
                    self._study.enqueue_trial(trial.params, user_attrs=notes)

    def give_back(self, trial: Any) -> None:
        """Ends a trial that something from outside has ended, and has it begun again."""
        states = optuna().trial.TrialState
        with locks.held(self._folder, _STUDY):
            found = next(each for each in self._trials() if each.number == trial.number)
            trial.set_user_attr(_AGAIN, True)
            self._study.tell(trial.number, state=states.FAIL)
            self._study.enqueue_trial(found.params, user_attrs=dict(found.user_attrs))

    def draw_again(self, trial: Any, chosen: dict[str, Any]) -> bool:
        """Puts settings that were not tried yet in place of those that were, and returns whether.

        A trial is the same each time, so that settings tried twice show nothing.

        Args:
            trial: Optuna's, whose settings were chosen.
            chosen: They.
        """
        states = optuna().trial.TrialState
        with locks.held(self._folder, _STUDY):
            others = [each for each in self._trials() if each.number != trial.number]
            tried = [
                each.user_attrs.get(SETTINGS, each.params)
                for each in self._counted(others, states)
                if each.params and each.state != states.WAITING
            ]
            if chosen not in tried:
                return False
            found = next(each for each in self._trials() if each.number == trial.number)
            generator = np.random.default_rng([self._seed, found.user_attrs[_PLACE]])
            new = self.space.untried(tried, generator)
            trial.set_user_attr(_AGAIN, True)
            self._study.tell(trial.number, state=states.FAIL)
            if new is None:  # all settings of the space were tried
                self._total = len(self._counted(self._trials(), states))
            else:
                self._study.enqueue_trial(new, user_attrs=dict(found.user_attrs))
        return True

    def _counted(self, trials, states):
        """Those that are one of the wanted number; others were begun again."""
        return [each for each in trials if not _is_begun_again(each, states)]

    def _lock(self, number):
        return f"{self.name}-{number}"

    def _make_sampler(self, place):
        engine = optuna()
        seed = int(np.random.SeedSequence([self._seed, place]).generate_state(1)[0])
        if self._sampler == "random":
            return engine.samplers.RandomSampler(seed=seed)
        return engine.samplers.TPESampler(seed=seed, n_startup_trials=_STARTUP, constant_liar=True)

    def tell(self, trial: Any, values: list[float] | None, state: str) -> None:
        """Ends a trial.

        Args:
            trial: Optuna's.
            values: By objective, of a complete one.
            state: `"complete"`, `"pruned"` or `"failed"`.
        """
        states = optuna().trial.TrialState
        known = {"complete": states.COMPLETE, "pruned": states.PRUNED, "failed": states.FAIL}
        with locks.held(self._folder, _STUDY):
            self._study.tell(trial, values, state=known[state])

    def settings(self, trial: Any) -> Settings:
        """The settings of a trial of Optuna's, chosen as they are read."""
        return Settings(self.space, self._defaults, lambda name, opts: _suggest(trial, name, opts))

    def records(self) -> list[TrialRecord]:
        """The trials that have ended, but for those that were begun again."""
        states = optuna().trial.TrialState
        named = {states.COMPLETE: "complete", states.PRUNED: "pruned", states.FAIL: "failed"}
        return [
            _record(each, named[each.state])
            for each in self._counted(self._trials(), states)
            if each.state in named
        ]

    def front(self) -> list[int]:
        """Numbers of the trials that no other beats; of one objective the best one."""
        if not any(each.state == "complete" for each in self.records()):
            return []
        best = [self._study.best_trial] if len(self.objectives) == 1 else self._study.best_trials
        return [trial.number for trial in best]

    def importances(self) -> dict[str, float] | None:
        """The share of the spread of the metric that each setting explains, or `None`: unknown."""
        engine = optuna()
        complete = [each for each in self.records() if each.state == "complete"]
        values = {each.values[self.objectives[0].name] for each in complete}
        if len(complete) < _EXPLAINED or len(values) < 2:
            return None
        try:
            return dict(
                engine.importance.get_param_importances(
                    self._study,
                    evaluator=engine.importance.FanovaImportanceEvaluator(seed=self._seed),
                    target=lambda trial: trial.values[0],
                )
            )
        except RuntimeError:  # no setting was read by every complete trial
            return None


def _is_begun_again(trial: Any, states: Any) -> bool:
    if trial.state != states.FAIL or FAILURE in trial.user_attrs:
        return False
    if _AGAIN in trial.user_attrs:
        return True
    return trial.user_attrs.get(_ATTEMPT, 1) < MOST_ATTEMPTS


def _record(trial: Any, state: str) -> TrialRecord:
    attributes = trial.user_attrs
    failure = attributes.get(FAILURE, KILLED) if state == "failed" else None
    settings = attributes.get(SETTINGS, trial.params)
    return TrialRecord(
        trial.number,
        state,
        dict(settings),
        dict(attributes.get(VALUES, {})),
        attributes.get(EPOCHS, 0),
        failure,
    )


def _suggest(trial: Any, name: str, options: Any) -> Any:
    if not isinstance(options, Range):
        return trial.suggest_categorical(name, options)
    low, high, log, step, whole = options
    if whole:
        return trial.suggest_int(name, int(low), int(high), step=int(step or 1), log=log)
    return trial.suggest_float(name, low, high, step=step, log=log)


class LiveTrial:
    """A trial that runs in this process.

    Args:
        study: Its `Study`.
        trial: Optuna's.

    Attributes:
        number: From 0.
        settings: Its `Settings`.
    """

    def __init__(self, study: Study, trial: Any) -> None:
        self._study, self._trial = study, trial
        self.number = trial.number
        self.settings = study.settings(trial)
        self._epochs = 0

    def report(self, epoch: int, value: float) -> bool:
        """Tells the metric after an epoch, from 1; returns whether the trial should end."""
        self._epochs = epoch
        if not self._study.prunes:
            return False
        self._trial.report(value, epoch)
        return bool(self._trial.should_prune())

    def complete(self, values: dict[str, float]) -> None:
        """Ends it with the value of each objective."""
        self._note(values)
        ordered = [values[each.name] for each in self._study.objectives]
        self._study.tell(self._trial, ordered, "complete")

    def prune(self, values: dict[str, float]) -> None:
        """Ends it early."""
        self._note(values)
        self._study.tell(self._trial, None, "pruned")

    def fail(self, why: str) -> None:
        """Records that it failed."""
        self._trial.set_user_attr(FAILURE, why)
        self._note({})
        self._study.tell(self._trial, None, "failed")

    def give_back(self) -> None:
        """Something from outside ends it: it is begun again."""
        self._study.give_back(self._trial)

    def is_repeated(self) -> bool:
        """Whether another trial had the same settings; then others are drawn, and it has ended."""
        return self._study.draw_again(self._trial, self.settings.chosen)

    def _note(self, values):
        self._trial.set_user_attr(EPOCHS, self._epochs)
        self._trial.set_user_attr(SETTINGS, self.settings.chosen)
        self._trial.set_user_attr(VALUES, {k: v for k, v in values.items() if math.isfinite(v)})
