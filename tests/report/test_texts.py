"""The report on a terminal, as Markdown and as JSON."""

import json
import math
import re

import numpy as np
import pytest

from tests.report import made_up, samples


@pytest.fixture(scope="module")
def report():
    return samples.full()


def test_terminal(report):
    text = str(report)
    assert text.startswith(" ".join(report.verdict.split()[:6]))
    lines = text.splitlines()
    head = next(line for line in lines if "accuracy, %" in line)
    assert re.split(r"  +", head.strip()) == [
        *("accuracy, %", "gain, points", "p", "gain kept", "agreement", "ECE", "parameters"),
        *("size", "MACs", "latency", "runtime"),
    ]
    rows = {line.split("  ")[0]: line for line in lines if line.startswith(("distilled ", "int8"))}
    assert "94.2 ± 0.2" in rows["distilled"]
    assert "36.4 KB" in rows["distilled"]
    assert "655 µs" in rows["distilled"]
    assert f"{report.rows[3]['kept']:.0%}".replace("%", " %") in rows["int8"]
    prose = [line for line in lines if not re.search(r"\S  +\S", line) and "---" not in line]
    assert max(map(len, prose)) <= 100


def test_scalars_are_the_numbers_of_the_rows(report):
    found = report.scalars()
    row = next(row for row in report.rows if row["name"] == "distilled")
    renamed = {"mean": "accuracy", "deviation": "accuracy_deviation"}
    for column, value in row.items():
        if column in ("name", "role", "values", "test", "runtime"):  # no numbers
            assert f"distilled/{column}" not in found
        else:
            assert found.get(f"distilled/{renamed.get(column, column)}") == value, column
    # The teacher has no gain over labels only.
    assert "teacher/accuracy" in found
    assert "teacher/gain" not in found
    assert all(type(value) in (int, float) for value in found.values())


def test_columns_without_numbers_are_left_out():
    truth = made_up.labels(100)
    bare = {"latency": None, "size": 4000}
    text = str(
        made_up.report(
            baseline=made_up.with_errors(truth, [20, 21], **bare),
            student=made_up.with_errors(truth, [10, 12], **bare),
        )
    )
    for word in ("latency", "runtime", "agreement", "gain kept"):
        assert word not in text
    assert "size" in text


def test_markdown(report):
    lines = report.to_markdown().splitlines()
    table = [line for line in lines if line.startswith("|")]
    assert len({line.count("|") for line in table[:7]}) == 1  # head, rule, five models
    assert table[1].startswith("| --- | ---: |")
    assert lines[0] == "# Distillation report"
    assert f"**{report.verdict}**" == lines[2]


def test_markdown_takes_no_text_for_markup():
    text = samples.full(exports=[samples.NASTY], title=samples.NASTY).to_markdown()
    assert not re.search(r"(?<!\\)<script", text)
    # Bars within a cell are escaped: the table keeps its columns.
    rows = [line for line in text.splitlines() if line.startswith("| ")][:6]
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in rows}) == 1


def test_json(report, tmp_path):
    report.save_json(tmp_path / "report.json")
    found = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert found == report.to_dict()
    assert found["finding"] == "gain"
    assert found["verdict"] == report.verdict
    assert [row["name"] for row in found["rows"]] == [
        *("teacher", "labels only", "distilled", "int8", "float16")
    ]
    gains = np.subtract(found["rows"][2]["values"], found["rows"][1]["values"])
    assert found["difference"]["by_seed"] == pytest.approx(gains.tolist())
    assert len(found["measurements"]["distilled"]) == 3
    assert "predictions" not in found["measurements"]["distilled"][0]
    assert np.sum(found["confusion_change"]["difference"]) == pytest.approx(0)


def test_json_has_no_numbers_that_json_has_not(tmp_path):
    truth = made_up.labels(100)
    broken = made_up.with_errors(truth, [10], quality={"accuracy": 0.9, "log_loss": math.inf})
    report = made_up.report(student=broken)
    report.save_json(tmp_path / "report.json")
    text = (tmp_path / "report.json").read_text(encoding="utf-8")
    assert "Infinity" not in text
    quality = json.loads(text)["measurements"]["distilled"][0]["quality"]
    assert quality == {"accuracy": 0.9, "log_loss": None}


@pytest.mark.parametrize("save", ["save_html", "save_json", "save_markdown"])
def test_a_file_is_whole_or_as_it_was(save, report, tmp_path, monkeypatch):
    path = tmp_path / "new folder" / "file"
    getattr(report, save)(path)
    before = path.read_bytes()
    assert before

    def full_disk(self, *args, **kwargs):
        with self.open("w") as file:
            file.write("half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(type(path), "write_text", full_disk)
    with pytest.raises(OSError, match="No space left"):
        getattr(report, save)(path)
    assert path.read_bytes() == before
    assert [each.name for each in path.parent.iterdir()] == ["file"]
