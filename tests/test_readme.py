"""README.md: short, runs, prints what it says; its links and figures are those of docs."""

import contextlib
import io
import json
import re

import pytest

from tests import extras
from tools import picture_report

README = (extras.ROOT / "README.md").read_text(encoding="utf-8")
MEASURED = (extras.ROOT / "docs" / "benchmarks" / "measured.md").read_text(encoding="utf-8")
# Other processors round otherwise, and over 30 epochs that moves a few of 597 images.
TOLERANCE = 0.02


def test_it_is_short():
    assert len(README.encode()) <= 8192


def test_links_lead_to_files():
    links = re.findall(r"\]\(([^)\s]+)\)", README)
    local = [link for link in links if not link.startswith("https://")]
    assert len(local) > 10
    for link in local:
        assert (extras.ROOT / link).is_file(), link


def test_the_code_prints_what_it_says(tmp_path, monkeypatch):
    extras.require("sklearn")
    monkeypatch.chdir(tmp_path)
    code, result = re.search(r"```python\n(.*?)```\n\n```\n(.*?)```", README, re.DOTALL).groups()
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, "README.md", "exec"), {"__name__": "readme"})
    assert (tmp_path / "student.keras").exists()
    found, expected = (
        [line.rpartition(" ") for line in text.splitlines()]
        for text in (printed.getvalue(), result)
    )
    assert [words for words, *_ in found] == [words for words, *_ in expected]
    for one, other in zip(found, expected, strict=True):
        assert float(one[2]) == pytest.approx(float(other[2]), abs=TOLERANCE)


def test_figures_are_those_of_the_benchmark_page():
    results = README.partition("## Results")[2].partition("## From")[0]
    figures = re.findall(r"\d+\.\d+ ± \d+\.\d+", results)
    assert len(figures) == 7
    for figure in [*figures, "91.80 ± 1.18", "-0.10 to -0.43", "2.6x", "11.9x", "1.48", "1.07"]:
        assert figure in MEASURED, figure


def test_the_picture_shows_the_figures():
    """`tools/picture_report.py` makes both from one run; the figures stand in the text too."""
    image = extras.require("PIL.Image")
    with image.open(picture_report.PICTURE) as picture:
        assert picture.size == picture_report.SIZE
        assert picture.text[picture_report.KEY] == picture_report.digest()
    rows = json.loads(picture_report.FIGURES.read_text(encoding="utf-8"))["rows"]
    rows = {row["name"]: row for row in rows}
    for name, digits in (("labels only", 1), ("distilled", 2), ("int8", 1)):
        row = rows[name]
        text = f"{100 * row['mean']:.{digits}f} ± {100 * row['deviation']:.{digits}f}"
        assert text in README, text
        assert text in MEASURED, text
    for name in ("float32", "int8", "int4"):
        assert f"{rows[name]['bytes'] / 1000:.3g}" in MEASURED
    assert (
        f"{rows['int8']['bytes'] / 1000:.3g} of {rows['float32']['bytes'] / 1000:.3g} KB" in README
    )


def test_commands_are_targets():
    makefile = (extras.ROOT / "Makefile").read_text()
    for target in re.findall(r"\bmake ([a-z]+)", README):
        assert f"\n{target}:" in makefile
