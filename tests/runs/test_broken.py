"""Broken configurations and data: each error names its place and a remedy, before any model."""

import pytest

from keras_kd import __main__
from tests import extras
from tests.runs import small

extras.require("pydantic")
extras.require("pandas")

GOOD = """\
version: 1
seed: 0
data:
  table:
    file: table.csv
    label: kind
    batch_size: 16
teacher:
  train: {width: 8, epochs: 1}
student:
  shrink: {width: 0.5}
losses:
  - name: SoftTargets
temperature: 4.0
alpha: 0.5
beta: 0.5
training:
  epochs: 1
  optimizer: adam
exports:
  - {name: float, format: tflite}
"""
TABLE = "file: table.csv"
TRAIN = "train: {width: 8, epochs: 1}"
SHRINK = "shrink: {width: 0.5}"
LOSS = "name: SoftTargets"
EXPORT = "{name: float, format: tflite}"
IMAGES = "table:\n    file: table.csv\n    label: kind\n    batch_size: 16"


def images(folder):
    return (IMAGES, f"images:\n    folder: {folder}\n    size: 12")


def texts(more):
    said = "texts:\n    file: texts.csv\n    text: said\n    label: who"
    return (IMAGES, f"{said}\n    {more}")


# What is replaced by what; the line that the error must name, or the option; words of the error.
BROKEN = {
    # Reading.
    "empty": (GOOD, "", 1, "is empty", "keras-kd init image"),
    "a list": (GOOD, "- version: 1\n", 1, "holds a list", "keras-kd init image"),
    "a tab": ("\n    file:", "\n\tfile:", 5, "this is not YAML", "Indent with spaces"),
    "a bracket": (EXPORT, "{name: float", 22, "this is not YAML", "in quotes"),
    "a key twice": ("seed: 0", "seed: 0\nseed: 1", 3, "seed is there twice", "Remove one"),
    "an inner key twice": (
        "    label: kind",
        "    label: kind\n    label: a",
        7,
        "line 6",
        "Remove",
    ),
    "a loop": ("seed: 0", "seed: &a [*a]", 2, "an alias", "Write the values out"),
    "no version": ("version: 1\n", "", 1, "version is missing", "version: 1"),
    "a newer version": ("version: 1", "version: 2", 1, "newer keras_kd", "pip install --upgrade"),
    "version as text": ("version: 1", "version: one", 1, "expected 1", "Write `version: 1`"),
    # Keys.
    "an unknown key": ("seed: 0", "sed: 0", 2, "sed: there is no such key", "Did you mean 'seed'"),
    "an unknown inner key": ("label: kind", "lable: kind", 6, "Allowed: file, label", "'label'"),
    "an unknown key of a training": ("  epochs: 1\n", "  epoch: 1\n", 18, "Allowed", "'epochs'"),
    "an unknown key of an export": (EXPORT, "{nam: a, format: onnx}", 21, "Allowed", "'name'"),
    "an unknown key of a report": ("seed: 0", "report: {latncy: true}", 2, "Allowed", "'latency'"),
    "no data": (IMAGES, "{}", 3, "exactly one of: images, table, texts", "Add one"),
    "no label": ("    label: kind\n", "", 4, "label: it is missing", "Add `label:`"),
    "no teacher": (f"teacher:\n  {TRAIN}\n", "", 1, "teacher: it is missing", "Add `teacher:`"),
    "two teachers": (TRAIN, f"{TRAIN}\n  file: a.keras", 8, "Received: file and train", "Leave"),
    "two students": (SHRINK, f"{SHRINK}\n  file: a.keras", 10, "shrink and file", "Leave"),
    "no student": (SHRINK, "{}", 10, "none of them", "Add one of them"),
    # Values.
    "a seed below 0": ("seed: 0", "seed: -1", 2, "at least 0", "Leave it out for 0"),
    "epochs as text": ("  epochs: 1\n", "  epochs: many\n", 18, "a whole number", "'many'"),
    "no epochs": ("  epochs: 1\n", "  epochs: 0\n", 18, "at least 1", "Leave it out for 20"),
    "half an epoch": ("  epochs: 1\n", "  epochs: 1.5\n", 18, "a whole number", "1.5"),
    "an optimizer": (
        "optimizer: adam",
        "optimizer: adm",
        19,
        "one of: adam",
        "Did you mean 'adam'",
    ),
    "alpha below 0": ("alpha: 0.5", "alpha: -1", 15, "at least 0", "Leave it out for 0.5"),
    "alpha that is infinite": ("alpha: 0.5", "alpha: .inf", 15, "finite", "Leave it out"),
    "nothing to train by": ("alpha: 0.5\nbeta: 0.5", "alpha: 0\nbeta: 0", 1, "both 0", "Raise one"),
    "a batch of none": ("batch_size: 16", "batch_size: 0", 7, "at least 1", "for 32"),
    "a share above 1": (SHRINK, "shrink: {width: 1.5}", 11, "at most 1", "Leave it out for 1"),
    "a temperature of 0": ("temperature: 4.0", "temperature: 0", 14, "above 0", "Meaning"),
    "a temperature without start": (
        "temperature: 4.0",
        "temperature: {end: 1}",
        14,
        "start",
        "Add",
    ),
    "an unknown schedule": (
        "temperature: 4.0",
        "temperature: {start: 4, end: 1, schedule: liner}",
        14,
        "one of: linear",
        "'linear'",
    ),
    "a yes as text": ("beta: 0.5", "beta: 0.5\nbaseline: maybe", 17, "true or false", "for true"),
    "a no that is a column": ("label: kind", "label: no", 6, "a text; put it in quotes", "False"),
    "a validation of all": (TABLE, f"{TABLE}\n    validation: 1.0", 6, "at most 0.9", "0.15"),
    "a function without module": (TRAIN, "function: make", 9, "MODULE:FUNCTION", "own_data:load"),
    "a function in a file": (TRAIN, "function: a.py/b:c", 9, "MODULE:FUNCTION", "own_data:load"),
    "no losses": ("losses:\n  - name: SoftTargets", "losses: []", 12, "at least one", "Leave"),
    "an export's format": ("format: tflite", "format: tflit", 21, "one of: tflite", "'tflite'"),
    "an export's quantization": (
        "format: tflite}",
        "format: tflite, quantization: int7}",
        21,
        "int16x8",
        "'int",
    ),
    "an onnx of int4": (
        "format: tflite}",
        "format: onnx, quantization: int4}",
        21,
        "dynamic",
        "Take",
    ),
    "an export's name": ("name: float", "name: a/b", 21, "letters, digits", "such as int8"),
    "exports of one name": (EXPORT, f"{EXPORT}\n  - {EXPORT}", 1, "there twice", "its own name"),
    "a key that is not searched": (
        "beta: 0.5",
        "beta: 0.5\ntune: {space: {training.learning_rat: [1]}}",
        17,
        "no key that a search may set",
        "Did you mean 'training.learning_rate'?",
    ),
    "a searched loss that is not listed": (
        "beta: 0.5",
        "beta: 0.5\ntune: {space: {losses.3.weight: [1, 2]}}",
        17,
        "there is no section losses.3 in this file",
        "Add it",
    ),
    "a searched value that is none": (
        "beta: 0.5",
        "beta: 0.5\ntune: {space: {student.shrink.width: [0.5, 2]}}",
        17,
        "cannot be 2: ",
        "at most 1",
    ),
    "a searched section": (
        "beta: 0.5",
        "beta: 0.5\ntune: {space: {training: {learning_rate: [0.1, 0.2]}}}",
        17,
        "a list of values",
        "in one piece",
    ),
    "a single choice": (
        "beta: 0.5",
        "beta: 0.5\ntune: {space: {alpha: 1}}",
        17,
        "a list of values",
        "low, high",
    ),
    "an objective": (
        "beta: 0.5",
        "beta: 0.5\ntune: {objective: f1, space: {alpha: [0.1, 0.5]}}",
        17,
        "expected one of: accuracy, loss",
        "objective",
    ),
    "a range that falls": (
        "beta: 0.5",
        "beta: 0.5\ntune: {space: {alpha: {low: 2, high: 1}}}",
        17,
        "low must be below high",
        "Swap them",
    ),
    "a cache without a teacher": (
        "beta: 0.5\ntraining:",
        "beta: 0\ntraining:\n  cache: true",
        1,
        "needs beta",
        "no teacher runs",
    ),
    # Names.
    "a loss": (LOSS, "name: SoftTarget", 13, "kd.losses has no", "Did you mean 'SoftTargets'"),
    "an argument of a loss": (
        LOSS,
        "name: SoftTargets\n    arguments: {divergance: js}",
        14,
        "no such argument",
        "'divergence'",
    ),
    "a value of a loss": (
        LOSS,
        "name: SoftTargets\n    arguments: {divergence: js}",
        14,
        "SoftTargets: ",
        "forward_kl",
    ),
    "a temperature twice": (
        LOSS,
        "name: SoftTargets\n    arguments: {temperature: 2}",
        14,
        "sets it too",
        "Leave one",
    ),
    "a temperature of none": (LOSS, "name: LogitsMSE", 14, "none of the losses", "Leave it out"),
    "logits of none": (
        f"{TRAIN}\nstudent:\n  {SHRINK}\nlosses:\n  - {LOSS}\ntemperature: 4.0",
        f"{TRAIN}\n  from_logits: true\nstudent:\n  {SHRINK}\nlosses:\n  - name: LogitsMSE",
        10,
        "none of the losses asks",
        "Leave it out",
    ),
    "an application": (TRAIN, "application: {name: MobilNetV2}", 9, "has no", "'MobileNetV2'"),
    "an application of a table": (
        TRAIN,
        "application: {name: MobileNetV2}",
        9,
        "it takes images",
        "Name another teacher",
    ),
    "a teacher of no file": (TRAIN, "file: a.keras", 9, "there is no file", "Paths begin where"),
    "a teacher of a kind": (TRAIN, "file: a.pkl", 9, "ends in .keras", "Received: 'a.pkl'"),
    "a folder without a model": (TRAIN, "file: images", 9, "saved_model.pb", "model.export"),
    "an output of nothing": (TRAIN, f"{TRAIN}\n  output: a", 8, "describes a file", "Leave it out"),
    "a student of no file": (SHRINK, "file: a.keras", 11, "there is no file", "Paths begin where"),
    "a width of another's": (
        TRAIN,
        "train: {function: 'a:b', width: 8}",
        9,
        "built-in model",
        "Leave one",
    ),
    # Data.
    "a table of no file": (TABLE, "file: tabel.csv", 5, "there is no file", "Paths begin where"),
    "a table of a kind": (TABLE, "file: table.xlsx", 5, ".csv or .parquet", "Save the table"),
    "a column": ("label: kind", "label: kindd", 6, "no column 'kindd'", "Closest: 'kind'"),
    "a column of the input": (
        "batch_size: 16",
        "columns: [size, wait]",
        7,
        "no column 'wait'",
        "Closest: 'weight'",
    ),
    "the label as a column": ("batch_size: 16", "columns: [kind]", 7, "the answer", "Leave it out"),
    "a label that is measured": ("label: kind", "label: size", 6, "with decimals", "in Python"),
    "no labels": (TABLE, "file: unlabeled.csv", 6, "2 of 6 rows have no label", "Fill them in"),
    "one class": (TABLE, "file: one.csv", 6, "all rows have the label", "two classes or more"),
    "few rows of a class": (TABLE, "file: few.csv", 4, "none would be left", "Add samples"),
    "no rows": (TABLE, "file: none.csv", 5, "has no rows", "Name a file"),
    "a table that is none": (TABLE, "file: broken.parquet", 5, "cannot be read", "Save it again"),
    "names as categories": (TABLE, "file: names.csv", 5, "different texts", "data.table.columns"),
    "a folder of images": (*images("picture"), 5, "there is no folder", "Name a folder"),
    "a folder of one class": (*images("alone"), 5, "Found: only 'ant'", "named by class"),
    "a folder without images": (*images("empty"), 5, "holds no image", "Add some"),
    "an image that is none": (*images("torn"), 4, "'torn/bee/torn.png'", "Replace or remove"),
    "long texts": (*texts("length: 3"), 8, "90 of 90 texts have more than 3", "`length: 5`"),
    "a column of texts": (
        IMAGES,
        "texts:\n    file: texts.csv\n    text: sad\n    label: who",
        6,
        "no column 'sad'",
        "Closest: 'said'",
    ),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("broken")
    small.write_table(made / "table.csv", 60)
    small.texts(made)
    small.images(made, each=4)
    for name in ("alone/ant", "empty/ant", "empty/bee", "torn/ant", "torn/bee"):
        (made / name).mkdir(parents=True)
    picture = (made / "images" / "ant" / "0.png").read_bytes()
    for name in (
        "alone/ant/0",
        "torn/ant/0",
        "torn/ant/1",
        "torn/ant/2",
        "torn/bee/1",
        "torn/bee/2",
    ):
        (made / f"{name}.png").write_bytes(picture)
    (made / "torn" / "bee" / "torn.png").write_bytes(picture[:50])
    (made / "unlabeled.csv").write_text("a,kind\n1,x\n2,\n3,y\n4,\n5,x\n6,y\n")
    (made / "one.csv").write_text("a,kind\n1,x\n2,x\n3,x\n")
    (made / "few.csv").write_text("a,kind\n1,x\n2,x\n3,x\n4,y\n")
    (made / "none.csv").write_text("a,kind\n")
    (made / "broken.parquet").write_bytes(b"PAR1 and no more")
    rows = "".join(f"name {i},{'xy'[i % 2]}\n" for i in range(400))
    (made / "names.csv").write_text(f"a,kind\n{rows}")
    return made


@pytest.fixture
def without_models(folder, monkeypatch):
    """Whoever builds a model fails."""
    from keras_kd.runs import models, run, teacher

    def built(*args):
        raise AssertionError("a model was built")

    monkeypatch.setattr(models, "student", built)
    monkeypatch.setattr(teacher, "build", built)
    # Not in its module: the stages are read when `run` is first imported.
    monkeypatch.setitem(run.STAGES, "teacher", built)
    monkeypatch.setattr("tensorflow.config.experimental.enable_op_determinism", lambda: None)
    monkeypatch.chdir(folder)


@pytest.mark.parametrize("name", BROKEN)
def test_an_error_names_its_place_and_a_remedy(name, folder, without_models, capsys):
    old, new, line, *words = BROKEN[name]
    assert old in GOOD
    (folder / "c.yaml").write_text(GOOD.replace(old, new, 1))
    assert __main__.main(["distill", "c.yaml"]) == 2
    printed = capsys.readouterr().err
    assert f"c.yaml, line {line}:" in printed
    for each in words:
        assert each in printed
    assert "Traceback" not in printed


def test_the_configuration_that_they_break_is_whole(folder, without_models):
    (folder / "c.yaml").write_text(GOOD)
    with pytest.raises(AssertionError, match="a model was built"):
        __main__.main(["distill", "c.yaml"])


# `--set`: the option stands in place of a line.
OPTIONS = {
    "no value": ("training.epochs", "expected KEY=VALUE", "training.epochs=3"),
    "a value": ("training.epochs=many", "training.epochs: expected a whole number", "Leave it out"),
    "a key": ("training.epoch=1", "training.epoch: there is no such key", "Did you mean 'epochs'"),
    "a number of a list": ("exports.4.name=a", "exports is a list of 1", "by its number"),
    "a key of a number": ("seed.a=1", "seed is 0, which holds no keys", "Set seed itself"),
    "no YAML": ("training.optimizer={a", "the value is not YAML", "in quotes"),
    "a searched key": ("tune.space.training.epochs=[1,2]", "no key that a search may set", "learn"),
    "a section of a new key": ("tune.trials=0", "trials: expected a number at least 1", "for 20"),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_an_error_names_the_option(name, folder, without_models, capsys):
    given, *words = OPTIONS[name]
    (folder / "c.yaml").write_text(GOOD)
    assert __main__.main(["distill", "c.yaml", "--set", given]) == 2
    printed = capsys.readouterr().err
    assert f"error: --set {given}: " in printed
    for each in words:
        assert each in printed


def test_all_faults_are_listed_at_once(folder, without_models, capsys):
    broken = GOOD.replace("seed: 0", "seed: -1").replace("adam", "adm")
    (folder / "c.yaml").write_text(broken)
    assert __main__.main(["distill", "c.yaml"]) == 2
    printed = capsys.readouterr().err
    assert "c.yaml, line 2: seed" in printed
    assert "c.yaml, line 19: training.optimizer" in printed


def test_exponents_are_numbers(folder):
    from keras_kd.runs import reading

    (folder / "c.yaml").write_text(GOOD.replace("alpha: 0.5", "alpha: 1e-3"))
    assert reading.read(folder / "c.yaml").values.alpha == 1e-3


def test_no_file_and_no_text(tmp_path, capsys):
    assert __main__.main(["distill", str(tmp_path / "c.yaml")]) == 2
    assert "does not exist" in capsys.readouterr().err
    (tmp_path / "c.yaml").write_bytes(b"version: 1\n\xff\xfe")
    assert __main__.main(["distill", str(tmp_path / "c.yaml")]) == 2
    assert "line 2: this is not text in UTF-8" in capsys.readouterr().err
