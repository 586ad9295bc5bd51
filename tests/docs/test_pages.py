"""The Python code of the pages runs as it is written: see `pages.py`.

Where a page needs an extra that is missing, its test is skipped: see `tests/extras.py`.
"""

import re

import pytest
import tensorflow as tf

from tests.docs import pages


def name_of(path):
    return path.relative_to(pages.ROOT).as_posix()


WITH_CODE = [path for path in pages.PAGES if any(block.is_run for block in pages.blocks(path))]
DEFINED = re.compile(r"^class ([A-Za-z]\w*(?:Warning|Error))\(", re.MULTILINE)
# What never leaves the package: a cache's reader makes a CacheError of it.
INTERNAL = {"FieldError", "HostLostError", "LockHeldError", "ServerError", "UnsoundError"}


@pytest.fixture
def eagerly():
    """Functions run eagerly: most pages train for a few steps, which would take longer to trace.

    A page that trains for more calls `tf.config.run_functions_eagerly(False)` in hidden code.
    """
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


@pytest.mark.usefixtures("eagerly")
@pytest.mark.filterwarnings("ignore:Even though the `tf.config.experimental_run_functions_eagerly`")
@pytest.mark.filterwarnings("ignore:`shuffle=True` was passed:UserWarning")  # Keras' own
@pytest.mark.parametrize("path", WITH_CODE, ids=name_of)
def test_a_page_runs(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    namespace = {"__name__": "page"}
    for block in pages.blocks(path):
        if block.is_run:
            exec(block.compiled(), namespace)


@pytest.mark.parametrize("path", [*pages.PAGES, *pages.TEXTS], ids=name_of)
def test_code_parses(path):
    found = pages.blocks(path)
    for block in found:
        block.compiled()
    shown = [block for block in found if not block.is_hidden]
    assert len(shown) == pages.fences(path), "a block of Python is not found"


def test_each_warning_and_error_is_explained():
    explained = (pages.DOCS / "troubleshooting.md").read_text(encoding="utf-8")
    found = set()
    for path in (pages.ROOT / "keras_kd").rglob("*.py"):
        found |= set(DEFINED.findall(path.read_text(encoding="utf-8")))
    assert {"CacheError", "DiagnosisWarning", "ExportError"} <= found
    assert {name for name in found - INTERNAL if name not in explained} == set()
