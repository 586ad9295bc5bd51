"""The examples run, on little data, and say what they found."""

import re

import pytest

from tests import example_runs, extras, fresh_process

pytestmark = pytest.mark.slow
SMALL = ["--dataset", "digits", "--train-samples", "60", "--epochs", "1"]


def run(name, output, *arguments, seeds=1):
    small = [*SMALL, "--seeds", seeds, "--output", output]
    text = example_runs.printed(name, *small, *arguments)
    assert (output / "accuracy.png").read_bytes().startswith(b"\x89PNG")
    return text


def test_quickstart(tmp_path):
    text = run("quickstart.py", tmp_path / "out", seeds=2)
    assert "Distilled against labels only" in text
    assert (tmp_path / "out" / "student.keras").exists()


def table(text):
    """`{row: the words after its name}` of the table in what an example has printed."""
    lines = text.split("gain over labels only\n")[1].split("±: standard deviation")[0].splitlines()
    return {line[:28].strip(): line[28:].split() for line in lines}


def gains(text, seeds=1):
    """The rows that have a mean and, of several seeds, a spread of the accuracy, and of a gain."""
    rows, size = table(text), 1 if seeds == 1 else 3
    assert len(rows["labels only"]) == size
    return {row for row, words in rows.items() if len(words) == 2 * size and words[size][0] in "+-"}


def test_feature_hints(tmp_path):
    methods = "labels only", "soft targets + hints"
    text = run("feature_hints.py", tmp_path / "out", "--methods", *methods, seeds=2)
    assert gains(text, seeds=2) == {"soft targets + hints"}
    assert len(table(text)["teacher"]) == 1


def test_cached_teacher(tmp_path):
    methods = "living teacher", "float32 cache", "cache of 4 views"
    text = run("cached_teacher.py", tmp_path / "out", "--methods", *methods)
    assert set(table(text)) == {"teacher", *methods}
    assert "in the batches that the teacher saw  0 (an epoch)" in text
    sizes = dict(re.findall(r"^(float32|views) +([0-9.]+)", text, re.MULTILINE))
    assert 40 < float(sizes["float32"]) < 60  # ten logits, and a fingerprint
    assert 80 < float(sizes["views"]) < 160  # four times half of that


def test_mutual(tmp_path):
    text = run("mutual.py", tmp_path / "out", "--methods", "labels only", "3 peers")
    assert gains(text) == {"3 peers, the first", "3 peers, mean of all"}
    assert "teacher" not in table(text)  # nobody learns from one


GENERATIONS = {"born again, generation 1", "born again, generation 2"}
AVERAGES = {"running average", "running average itself"}
EXITS = {"exits on labels, final", "deepest exit, final", "deepest exit, early"}


@pytest.mark.parametrize(
    ("methods", "rows"),
    [
        (["born again", "snapshot"], {"snapshot"} | GENERATIONS),
        (["running average", "virtual teacher"], {"virtual teacher"} | AVERAGES),
        (["exits on labels", "deepest exit"], EXITS),
    ],
)
def test_self_distillation(methods, rows, tmp_path):
    text = run("self_distillation.py", tmp_path / "out", "--methods", "labels only", *methods)
    assert gains(text) == rows
    of_exit = "deepest exit, early: gain over exits on labels, early"
    assert (of_exit in text) == ("deepest exit" in methods)


def test_multi_teacher(tmp_path):
    methods = "labels only", "best teacher", "per_sample_best"
    text = run("multi_teacher.py", tmp_path / "out", "--methods", *methods)
    assert gains(text) == {"best teacher", "per_sample_best"}
    teachers = {row for row, words in table(text).items() if len(words) == 1}
    assert teachers == {"labels only", "teacher 0", "teacher 1", "teacher 2", "(per_sample_best)"}


def test_language_model(tmp_path):
    extras.require_in_a_process("keras_hub", "tokenizers")
    small = ["--lines", 64, "--words", 400, "--length", 24, "--teacher-width", 32, "--epochs", 1]
    methods = ["--methods", "labels only", "on-policy", "--seeds", 2]
    output = ["--output", tmp_path / "out"]
    text = example_runs.printed("language_model.py", *small, *methods, *output)
    assert "64 rows of 24 tokens to train on" in text
    assert re.search(r"^on-policy +[0-9.]+ ± [0-9.]+ +[0-9,]+$", text, re.MULTILINE)
    assert "Against the texts alone: on-policy: " in text
    assert (tmp_path / "out" / "on-policy.keras").exists()


def test_smaller_student(tmp_path):
    extras.require_in_a_process("optuna", "ai_edge_litert")
    small = [*SMALL, "--trials", 3, "--seeds", 2, "--output", tmp_path / "out"]
    text = example_runs.printed("smaller_student.py", *small)
    assert "60 to train on" in text
    assert re.search(r"^quickstart +flat +8 +[0-9,]+ +[0-9.]+ +[0-9.]+ ± [0-9.]+$", text, re.M)
    found = [tmp_path / "out" / "student.keras", "No smaller student of this space"]
    assert found[0].exists() != (found[1] in text)


NAMES = sorted(path.stem for path in example_runs.EXAMPLES.glob("*.py"))
HELPERS = {
    "checks",
    "command_line",
    "comparison",
    "debian",
    "minilm",
    "small_whisper",
    "speech",
    "training",
}
IMPORTED = """
import importlib, inspect, os, sys
import matplotlib.figure, mlxtend.data, sklearn.datasets
before = dict(os.environ)
for name in sys.argv[1:]:
    module = importlib.import_module(name)
    function = getattr(module, name)
    first = next(each for each in vars(module).values() if getattr(each, "__module__", "") == name)
    assert first is function, (name, first)
    assert inspect.signature(function).parameters and "Args:" in function.__doc__, name
assert "argparse" not in {key for name in sys.argv[1:] for key in vars(sys.modules[name])}
assert "command_line" not in sys.modules
assert dict(os.environ) == before
assert os.listdir() == []
"""


def test_an_example_is_a_function_that_is_imported_without_effects(tmp_path):
    """The first thing of each file is a function of its name, with arguments that it explains."""
    extras.require_in_a_process("keras_hub", "matplotlib", "mlxtend", "sklearn", "tokenizers")
    path = f"{fresh_process.ROOT}:{example_runs.EXAMPLES}"
    command = ["-c", IMPORTED, *(name for name in NAMES if name not in HELPERS)]
    env = fresh_process.environment(PYTHONPATH=path)
    done = fresh_process.run_preloaded(command, env=env, cwd=tmp_path, warnings="default")
    assert done.stdout == ""


FROM_NOTEBOOK = """
import pathlib, sys
text = pathlib.Path(sys.argv[1]).read_text()
space = {"__name__": "a notebook"}
exec(compile(text, "cell", "exec"), space)  # as if pasted: no other example can be imported
options = {"dataset": "digits", "train_samples": 60, "epochs": 1, "seeds": 1}
models, scores = space["quickstart"](**options, output="results")
assert set(models) == set(scores) == {"teacher", "labels only", "distilled"}
for wrong in ({"seeds": 0}, {"dataset": "digit"}, {"evaluate_on": "train"}):
    try:
        space["quickstart"](**wrong)
    except ValueError as error:
        assert f"`{next(iter(wrong))}`" in str(error)
    else:
        raise AssertionError(wrong)
"""


def test_the_quickstart_can_be_pasted(tmp_path):
    extras.require_in_a_process("matplotlib", "mlxtend", "sklearn")
    command = ["-c", FROM_NOTEBOOK, example_runs.EXAMPLES / "quickstart.py"]
    done = fresh_process.run_preloaded(command, cwd=tmp_path, warnings="default")
    assert "Distilled against labels only" in done.stdout
    assert (tmp_path / "results" / "student.keras").exists()


@pytest.mark.parametrize(
    ("name", "wrong", "message"),
    [
        ("quickstart.py", ["--seeds", 0], "--seeds must be at least 1, received 0"),
        ("feature_hints.py", ["--methods", "hope"], "invalid choice: 'hope'"),
        ("mutual.py", ["--output", "/dev/null/folder"], "is no folder that can be written to"),
    ],
)
def test_a_wrong_option_is_refused_before_any_work(name, wrong, message):
    extras.require_in_a_process("matplotlib", "mlxtend", "sklearn")
    command = [example_runs.EXAMPLES / name, *map(str, wrong)]
    done = fresh_process.run_preloaded(command, check=False, warnings="default")
    assert done.returncode == 2
    assert message in done.stderr
