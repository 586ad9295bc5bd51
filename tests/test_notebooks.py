"""The notebooks run from top to bottom, each in a kernel of its own, and no warning is shown."""

import json
import re
import sys

import pytest

from tests import extras, fresh_process

NOTEBOOKS = {path.stem: path for path in (fresh_process.ROOT / "docs/notebooks").glob("*.ipynb")}
# Enough to run each line; the figures mean nothing.
FEW = {
    "cached_teacher": {"EPOCHS": 2, "TRAIN_SAMPLES": 100},
    "feature_hints": {"EPOCHS": 2, "SEEDS": 1},
    "first_distillation": {"EPOCHS": 2, "SEEDS": 1},
    "int8_to_device": {"EPOCHS": 2, "SEEDS": 1},
    "self_distillation": {"EPOCHS": 2, "GENERATIONS": 2, "SEEDS": 1},
}
# What they show, beside what their cells print: a part of the HTML of a table.
SHOWN = {
    "cached_teacher": [],
    "feature_hints": ["conv_0", "teacher_shape", "MaxPooling2D"],
    "first_distillation": ["calibration", "labels only", "distilled", "parameters"],
    "int8_to_device": ["int8", "labels only", "tflite", "student.tflite"],
    "self_distillation": [],
}
SETUP = """
import sys, warnings
assert sys.executable == {python!r}
warnings.simplefilter("error")
warnings.filterwarnings("ignore", module="ipykernel")
# As in pyproject.toml: TensorFlow variables with NumPy 2.4, inside Keras' own saving.
warnings.filterwarnings("ignore", "__array__ implementation doesn.t accept a copy keyword")
"""
_TIMEOUT = 300
needs_kernel = pytest.mark.slow


def read(name):
    return json.loads(NOTEBOOKS[name].read_text(encoding="utf-8"))


def source(cell):
    return "".join(cell["source"])


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A function that runs a notebook in this Python, and returns it with its outputs."""
    nbclient, nbformat = extras.require("nbclient"), extras.require("nbformat")
    extras.require_in_a_process("ipykernel")
    command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    spec = tmp_path / "kernels" / "own" / "kernel.json"
    spec.parent.mkdir(parents=True)
    spec.write_text(json.dumps({"argv": command, "display_name": "own", "language": "python"}))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    for variable in ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR"):
        monkeypatch.setenv(variable, str(tmp_path / variable.lower()))
    (tmp_path / "work").mkdir()

    def execute(cells):
        cells = [nbformat.from_dict({**cell, "source": source(cell)}) for cell in cells]
        book = nbformat.v4.new_notebook(cells=cells)
        client = nbclient.NotebookClient(
            book,
            kernel_name="own",
            timeout=_TIMEOUT,
            resources={"metadata": {"path": str(tmp_path / "work")}},
        )
        return client.execute(env=fresh_process.environment())

    return execute


def code(text):
    return {
        "cell_type": "code",
        "id": f"added-{abs(hash(text)) % 10**8}",
        "metadata": {},
        "source": text,
        "outputs": [],
        "execution_count": None,
    }


def texts(book, kind):
    """What the cells of a book have shown of a kind, such as `"text/html"`."""
    outputs = [each for cell in book.cells for each in cell.get("outputs", [])]
    if kind == "stdout":
        return "".join(
            each.text for each in outputs if each.output_type == "stream" and each.name == kind
        )
    return "".join(each.data.get(kind, "") for each in outputs if "data" in each)


def test_there_are_settings_for_each():
    assert set(NOTEBOOKS) == set(FEW) == set(SHOWN)


@pytest.mark.parametrize("name", FEW)
def test_it_is_stored_without_outputs(name):
    book = read(name)
    extras.require("nbformat").validate(book)
    assert set(book["metadata"]) == {"kernelspec", "language_info"}
    for cell in book["cells"]:
        assert cell.get("outputs", []) == []
        assert cell.get("execution_count") is None
    text = NOTEBOOKS[name].read_text(encoding="utf-8")
    assert text == json.dumps(book, indent=1, ensure_ascii=False) + "\n"


@pytest.mark.parametrize("name", FEW)
def test_it_installs_in_colab_only(name):
    first, *others = [source(c) for c in read(name)["cells"] if c["cell_type"] == "code"]
    before, installs = first.split('if "google.colab" in sys.modules:\n')
    assert re.fullmatch(r'    %pip install --quiet "keras-kd\[[a-z,]+\]"', installs)
    assert '"keras-kd[tensorflow-cpu,examples' in before
    assert "Until a release is on PyPI" in before
    assert not any("pip install" in each for each in others)


@pytest.mark.parametrize("name", FEW)
def test_its_prose_has_no_figures_of_results(name):
    """They are printed by the run, and differ with the machine and the versions."""
    prose = [source(c) for c in read(name)["cells"] if c["cell_type"] == "markdown"]
    for text in prose:
        assert not re.search(r"\d ?(%|points|percent|KB|MB|ms|seconds|times)", text), text


@pytest.mark.parametrize("name", FEW)
def test_links_lead_to_what_is_there(name):
    for cell in read(name)["cells"]:
        for path in re.findall(r"`([\w/]+\.(?:ipynb|py))`", source(cell)):
            places = fresh_process.ROOT, fresh_process.ROOT / "docs/notebooks"
            assert any((place / path).is_file() for place in places), path


@needs_kernel
@pytest.mark.parametrize("name", FEW)
def test_it_runs_from_top_to_bottom(name, run):
    extras.require_in_a_process("mlxtend", "sklearn")
    if name == "int8_to_device":
        extras.require_in_a_process("ai_edge_litert", "ai_edge_quantizer")
    cells = read(name)["cells"]
    (at,) = (i for i, c in enumerate(cells) if "parameters" in c["metadata"].get("tags", []))
    assert set(re.findall(r"^(\w+) =", source(cells[at]), re.MULTILINE)) == set(FEW[name])
    changed = "\n".join(f"{key} = {value}" for key, value in FEW[name].items())
    cells.insert(at + 1, code(changed))
    done = run([code(SETUP.format(python=sys.executable)), *cells])
    assert all(cell.execution_count for cell in done.cells if cell.cell_type == "code")
    shown = texts(done, "text/html")
    for part in SHOWN[name]:
        assert part in shown
    assert "Warning" not in "".join(
        each.text
        for cell in done.cells
        for each in cell.get("outputs", [])
        if each.output_type == "stream"
    )


PROGRESS = """
import time
from keras_kd._utils import progress

def rows(count):
    for number in range(count):
        time.sleep(0.001)
        yield number

for _ in progress.iterate(rows(1500), "work", 1500):
    pass
"""
RESULTS = """
import contextlib, io
import keras_kd as kd

with contextlib.redirect_stdout(io.StringIO()) as file:
    list(progress.iterate(range(100), "elsewhere", 100))
assert file.getvalue().count("\\r") == 0 and file.getvalue().count("\\n") == 1
kd.measurement.Measurement("student", "keras", "multiclass", 10, {"accuracy": 0.5})
"""


@needs_kernel
def test_a_kernel_replaces_the_line_of_progress_and_shows_tables(run):
    """What programs that run notebooks keep: one line, and the table as HTML and as text."""
    done = run([code(PROGRESS), code(RESULTS)])
    (output,) = [each for each in done.cells[0].outputs if each.output_type != "stream"]
    assert re.fullmatch(r"work: 1500/1500 - \ds - \dms/batch", output.data["text/plain"])
    assert not texts(done, "stdout")
    (table,) = done.cells[1].outputs
    assert table.output_type == "execute_result"
    assert 'class="keras-kd"' in table.data["text/html"]
    assert "accuracy" in table.data["text/plain"]
