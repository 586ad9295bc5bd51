"""`import keras_kd` without TensorFlow, and with versions of it that are not the tested ones."""

import subprocess
import sys
import warnings

import pytest

from keras_kd import version
from tests import fresh_process

FAKE = """
__version__ = {version!r}
"""


def import_beside(folder, tensorflow):
    """What `import keras_kd` prints where `tensorflow/__init__.py` holds that text."""
    if tensorflow is not None:
        package = folder / "tensorflow"
        package.mkdir()
        (package / "__init__.py").write_text(tensorflow)
    done = subprocess.run(
        [sys.executable, "-c", "import keras_kd"],
        env=fresh_process.environment(PYTHONPATH=f"{folder}:{fresh_process.ROOT}"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    return done.stderr


def test_without_tensorflow(tmp_path):
    printed = import_beside(tmp_path, 'raise ModuleNotFoundError("No module named tensorflow")')
    assert "ImportError: keras_kd needs TensorFlow" in printed
    assert "pip install tensorflow-cpu" in printed


def test_a_version_that_is_too_old(tmp_path):
    printed = import_beside(tmp_path, FAKE.format(version="2.17.1"))
    assert "expected TensorFlow 2.18 or newer, below 2.22. Received: tensorflow 2.17.1" in printed
    assert "pip install 'tensorflow-cpu>=2.18,<2.22'" in printed


def test_a_folder_of_that_name(tmp_path):
    printed = import_beside(tmp_path, "")
    assert "holds no TensorFlow" in printed


@pytest.mark.parametrize("found", ["2.18.0", "2.21.1", "2.20.0-rc0", "unknown"])
def test_tested_versions_pass(found):
    version.check_tensorflow(found)


@pytest.mark.parametrize("found", ["2.22.0", "2.22.0-dev20260101", "3.0.0"])
def test_a_newer_version_warns(found):
    with pytest.warns(UserWarning, match=rf"Received: tensorflow {found}, which may work"):
        version.check_tensorflow(found)


def test_the_warning_names_the_import():
    program = "import tensorflow; tensorflow.__version__ = '2.22.0'; import keras_kd"
    done = fresh_process.run_preloaded(["-c", program], check=False)
    assert done.returncode == 1  # warnings are errors there
    assert "UserWarning: keras_kd" in done.stderr


def test_the_range_is_that_of_the_extras():
    text = (fresh_process.ROOT / "pyproject.toml").read_text(encoding="utf-8")
    low, high = (".".join(map(str, v)) for v in (version.TENSORFLOW_FROM, version.TENSORFLOW_BELOW))
    for name in ("tensorflow", "tensorflow-cpu"):
        assert f'{name} = ["{name}>={low},<{high}"]' in text


def test_this_tensorflow_is_a_tested_one():
    import tensorflow as tf

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        version.check_tensorflow(tf.__version__)
