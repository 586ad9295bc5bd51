"""Programs in forks of a process with TensorFlow behave as in processes of their own."""

import textwrap

import pytest

from tests import fresh_process

run = fresh_process.run_preloaded


def test_each_program_is_fresh(tmp_path):
    program = "import os, sys; assert 'keras_kd' not in sys.modules; import keras_kd; "
    program += "os.environ['SEEN'] = 'yes'; sys.left = 1; print(sys.argv, os.getcwd())"
    assert run(["-c", program, tmp_path], cwd=tmp_path).stdout == (
        f"['-c', '{tmp_path}'] {tmp_path}\n"
    )
    done = run(["-c", "import os, sys; print(os.environ.get('SEEN'), hasattr(sys, 'left'))"])
    assert done.stdout == "None False\n"


@pytest.mark.parametrize("kind", ["module", "file"])
def test_modules_and_files(kind, tmp_path):
    (tmp_path / "beside.py").write_text("word = 'found'\n")
    (tmp_path / "program.py").write_text(
        "import sys, beside\nif __name__ == '__main__':\n    print(beside.word, sys.argv[1:])\n"
    )
    arguments = ["-m", "program"] if kind == "module" else [tmp_path / "program.py"]
    cwd = tmp_path if kind == "module" else fresh_process.ROOT
    assert run([*arguments, "one", "two"], cwd=cwd).stdout == "found ['one', 'two']\n"


@pytest.mark.parametrize(
    ("program", "code", "message"),
    [
        ("import sys; sys.exit(3)", 3, ""),
        ("import sys; sys.exit('no')", 1, "no\n"),
        ("1 / 0", 1, "ZeroDivisionError: division by zero\n"),
        ("import warnings; warnings.warn('careful')", 1, "UserWarning: careful\n"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", -9, ""),
    ],
)
def test_failures_are_seen(program, code, message):
    done = run(["-c", program], check=False)
    assert done.returncode == code
    assert done.stderr.endswith(message)
    with pytest.raises(AssertionError, match=f"rc {code}"):
        run(["-c", program])


def test_environment_and_tensorflow():
    program = """
        import os
        import tensorflow as tf
        tf.config.set_logical_device_configuration(
            tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
        )
        twice = tf.function(lambda x: 2 * x, jit_compile=True)
        print(float(twice(tf.constant(21.0))), len(tf.config.list_logical_devices()))
        print(os.environ["WORD"])
    """
    env = fresh_process.environment(WORD="here")
    assert run(["-c", textwrap.dedent(program)], env).stdout == "42.0 2\nhere\n"
    shown = run(["-c", "import warnings; warnings.warn('careful')"], warnings="default")
    assert "UserWarning: careful" in shown.stderr
