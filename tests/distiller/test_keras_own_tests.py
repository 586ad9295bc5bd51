"""Keras' own tests of `keras.distillation.Distiller`, run where they lie, with our `Distiller`.

The one that asks for a frozen teacher is left out: the caller's teacher stays as it was.
"""

import functools
import pathlib
import types
import unittest

import keras
import pytest

import keras_kd as kd

FREEZES = "test_teacher_freezing"


@functools.cache
def their_tests():
    """The test class of the installed Keras, its import of `Distiller` replaced."""
    path = pathlib.Path(keras.__file__).parent / "src" / "distillation" / "distiller_test.py"
    text = path.read_text()
    theirs = "from keras.src.distillation.distiller import Distiller"
    assert theirs in text
    module = types.ModuleType("their_tests")
    text = text.replace(theirs, "from keras_kd import Distiller")
    text = text.replace("@pytest.mark.requires_trainable_backend", "# a mark of their suite")
    exec(compile(text, str(path), "exec"), module.__dict__)
    assert module.Distiller is kd.Distiller

    class Frozen(module.TestDistiller):
        """With a teacher that the caller has frozen, which one of the tests looks at."""

        def setUp(self):
            super().setUp()
            self.teacher.trainable = False

    return Frozen


@pytest.fixture(autouse=True)
def filtered_tracebacks():
    """Keras' `TestCase.setUp` turns the filter of tracebacks off for the rest of the process."""
    yield
    keras.config.enable_traceback_filtering()


def run(name):
    result = unittest.TestResult()
    their_tests()(name).run(result)
    assert result.testsRun == 1
    assert not result.skipped
    return [text for _, text in (*result.errors, *result.failures)]


NAMES = unittest.TestLoader().getTestCaseNames(their_tests())


@pytest.mark.filterwarnings("ignore:keras_kd, first batch")
@pytest.mark.parametrize("name", [name for name in NAMES if name != FREEZES])
def test_of_keras(name):
    problems = run(name)
    assert not problems, problems[0]


def test_the_teacher_is_not_frozen():
    """The difference by design, which is why one of their tests is left out."""
    (problem,) = run(FREEZES)
    assert "new_teacher.trainable" in problem
    assert len(NAMES) >= 10
