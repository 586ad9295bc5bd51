"""Bugs for `make test`: each takes one behavior away, which the tests named beside it must notice.

A bug is found by its text, a test by its name, wherever the files are: both may move. A test that
fails because a bug no longer fits the code (it names what is gone) does not count.
"""

import dataclasses
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

from tools.seeded_bugs.planting import ROOT

SECONDS = 900  # of the tests of one bug, which take 20 to 60
PACKAGE, TESTS = "keras_kd", "tests"
# How a test fails that a bug was not made for: its text was taken from other code.
UNFIT = re.compile(
    r"^E +((Name|Attribute|Import|ModuleNotFound|Syntax|Indentation|UnboundLocal)Error.*)$",
    re.MULTILINE,
)


@dataclasses.dataclass(frozen=True)
class Bug:
    """A replacement of text that the package has once, and the tests that must notice.

    Attributes:
        what: What is taken away.
        code: The text.
        replacement: What stands there instead.
        tests: Names of test functions, with the case in brackets where one is enough.
    """

    what: str
    code: str
    replacement: str
    tests: tuple


BUGS = [
    Bug(
        "the hard loss counts padding: the outputs' mask is lost",
        "keras.Model.compute_loss(self, None, y, y_pred, sample_weight)",
        "keras.Model.compute_loss(self, None, y, tf.identity(y_pred), sample_weight)",
        ("test_hard_and_soft_loss_divide_by_the_positions_that_count[distiller-eager]",),
    ),
    Bug(
        "sample weights do not reach the distillation losses",
        "loss.weighted(teacher_outputs, student_outputs, weight, mask, **context)",
        "loss.weighted(teacher_outputs, student_outputs, None, mask, **context)",
        ("test_sample_weight_reaches_a_loss_of_the_users",),
    ),
    Bug(
        "T^2 is left out of TensorFlow's soft loss",
        "arguments.temperature_squared(temperature) * divergence",
        "divergence",
        ("test_soft_targets[tensorflow-eager-forward_kl-7]",),
    ),
    Bug(
        "the teacher runs as in training, and its BatchNormalization moves",
        "self.model(models.own_inputs(self.model, inputs), training=False)",
        "self.model(models.own_inputs(self.model, inputs), training=True)",
        ("test_training_leaves_the_teacher_as_it_was[eager]",),
    ),
    Bug(
        "a step keeps the alpha and beta that it was traced with",
        "tuple(map(as_tensor, variables))",
        "tuple(tf.constant(traced_value(each)) for each in variables)",
        ("test_changes_between_two_fits",),
    ),
    Bug(
        "a fit that resumes begins its epoch again",
        "self._batches = self._left_out = restored.batches",
        "self._batches = self._left_out = 0",
        ("test_resumes_within_an_epoch[eager]",),
    ),
    Bug(
        "the digest of a cache's files is not compared",
        "digest(value) != expected",
        "not isinstance(value, dict)",
        ("test_damage_is_noticed_and_named[manifest of another value]",),
    ),
    Bug(
        "alpha without labels is not refused",
        "y is None and alpha != 0 and self._model.needs_labels()",
        "y is None and alpha < 0 and self._model.needs_labels()",
        ("test_each_fit_is_checked_not_each_tracing[arrays]",),
    ),
    Bug(
        "the history weighs a small batch as a large one",
        "total.update_state(value, sample_weight=rows)",
        "total.update_state(value)",
        ("test_changes_between_two_fits",),
    ),
    Bug(
        "an exported file is not held to the float model",
        "comparison.check_bounds(compared, options.name, options.bounds, outliers)",
        "pass",
        ("test_a_ruined_file_is_not_written",),
    ),
    Bug(
        "the trained ranges go to other places of the file",
        "low, high = bounds[match.point]",
        "low, high = list(bounds.values())[-1 - list(bounds).index(match.point)]",
        ("test_what_was_trained_is_in_the_file[causal]",),
    ),
    Bug(
        "a hint does not wait for its start_epoch",
        "self._epoch < self.start_epoch",
        "self._epoch < 0",
        ("test_the_weight_of_each_epoch[options1-weights1]",),
    ),
]


def main(words=()):
    """Tries all bugs, or those whose description has one of `words`; ends the process."""
    bugs = [bug for bug in BUGS if not words or any(word in bug.what for word in words)]
    with tempfile.TemporaryDirectory() as name:
        scratch = pathlib.Path(name)
        copy_tree(scratch)
        everything = [test for bug in bugs for test in bug.tests]
        code, printed = run_tests(scratch, everything)
        if code != 0:
            sys.exit(f"The tests fail without a bug:\n{printed[-4000:]}")
        survivors = 0
        for bug in bugs:
            failure = failure_with(bug, scratch)
            print(f"{'caught' if failure else 'SURVIVES':10}{bug.what}", flush=True)
            if failure:
                print(f"{'':10}{failure}", flush=True)
            survivors += not failure
    print(f"{len(bugs) - survivors} of {len(bugs)} seeded bugs caught")
    sys.exit(1 if survivors else 0)


def copy_tree(scratch):
    """What the tests need of the tree, in `scratch`; the native library is not copied."""
    ignored = shutil.ignore_patterns("__pycache__", "lib")
    for folder in (PACKAGE, TESTS, "tools"):
        shutil.copytree(ROOT / folder, scratch / folder, ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", scratch)
    os.symlink(ROOT / PACKAGE / "lib", scratch / PACKAGE / "lib")


def failure_with(bug, scratch):
    """How the tests fail with a bug, which is taken out again; `None` where they pass."""
    path = find_one(scratch / PACKAGE, bug.code)
    text = path.read_text()
    path.write_text(text.replace(bug.code, bug.replacement))
    try:
        code, printed = run_tests(scratch, bug.tests)
    finally:
        path.write_text(text)
    if code not in (0, 1):
        sys.exit(f"pytest ended with {code} for {bug.what!r}:\n{printed[-4000:]}")
    unfit = UNFIT.search(printed)
    if code == 1 and unfit:
        sys.exit(f"{bug.what!r} does not fit the code: {unfit[1]}. Update the list of bugs.")
    return " ".join(re.findall(r"^E +(\S.*)$", printed, re.MULTILINE)[:3]) if code else None


def find_one(folder, text):
    """The one file below a folder that has a text, and has it once."""
    found = {path: path.read_text().count(text) for path in folder.rglob("*.py")}
    found = {path: count for path, count in found.items() if count}
    if sum(found.values()) != 1:
        sys.exit(
            f"{folder.name} holds {text!r} {sum(found.values())} times, expected once: update the "
            "list of bugs."
        )
    return next(iter(found))


def run_tests(scratch, tests):
    """pytest's exit code and output for tests, each `name` or `name[case]`."""
    nodes = []
    for test in tests:
        name = test.partition("[")[0]
        nodes.append(f"{find_one(scratch / TESTS, f'def {name}(')}::{test}")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *nodes],
        cwd=scratch,
        env={
            **os.environ,
            "CUDA_VISIBLE_DEVICES": "-1",
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONPATH": os.fspath(scratch),
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS,
    )
    return done.returncode, done.stdout + done.stderr
