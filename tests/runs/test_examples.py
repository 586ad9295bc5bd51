"""The configurations of examples/configs run, for a few epochs, on the data of packages."""

import pytest

from keras_kd import __main__
from tests import example_runs, extras
from tests.runs import small

for needed in ("pydantic", "pandas", "sklearn", "ai_edge_litert", "onnxruntime", "tf2onnx"):
    extras.require(needed)

CONFIGS = example_runs.EXAMPLES / "configs"
FEW = ("teacher.train.epochs=2", "training.epochs=2", "report.latency=false")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    example_runs.printed("configs/make_data.py", "--output", folder / "run_data")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "samples", "files"),
    [
        ("image", 1797, ["float32.tflite", "int8.tflite"]),
        ("table", 569, ["float32.onnx", "dynamic.tflite"]),
        ("text", 2400, ["float32.tflite"]),
    ],
)
def test_example_configuration(name, samples, files, data, monkeypatch):
    monkeypatch.setattr("tensorflow.config.experimental.enable_op_determinism", lambda: None)
    monkeypatch.chdir(data)
    words = ["distill", str(CONFIGS / f"{name}.yaml"), "--folder", name, "-q"]
    sets = [each for few in FEW for each in ("--set", few)]
    assert __main__.main([*words, *sets]) == 0
    written = {path.name for path in (data / name).iterdir()}
    assert {"student.keras", "baseline.keras", "report.html", "model_card.md", *files} <= written
    found = small.read_json(data / name / "report.json")
    names = [row["name"] for row in found["rows"]]
    assert names[:3] == ["teacher", "labels only", "distilled"]
    chance = 1 / {"image": 10, "table": 2, "text": 4}[name]
    assert found["rows"][0]["mean"] > chance
    card = (data / name / "model_card.md").read_text()
    tested = int(card.split("\nOn ")[1].split(" test samples")[0])
    assert tested == pytest.approx(0.3 * samples, abs=10)
