"""A test that leaves a setting of Keras or TensorFlow changed fails, and the setting is put back.

What the next test of the same process sees must not depend on which tests ran before it. Which
files share a process depends on their durations: a leak shows long after the test that made it.
"""

import sys

import pytest


@pytest.fixture(autouse=True)
def settings_as_before():
    """Compares the settings before a test with those after it."""
    if "keras" not in sys.modules:
        yield
        return
    before = {name: read() for name, (read, _) in _settings().items()}
    yield
    left = []
    for name, (read, write) in _settings().items():
        after = read()
        if after != before[name]:
            write(before[name])
            left.append(f"{name}: {before[name]!r} became {after!r}")
    assert not left, f"the test left settings changed: {', '.join(left)}"


def _settings():
    """`{name: (read, write)}`."""
    import keras
    import tensorflow as tf

    config = keras.config
    return {
        "dtype policy": (lambda: config.dtype_policy().name, config.set_dtype_policy),
        "floatx": (config.floatx, config.set_floatx),
        "epsilon": (config.epsilon, config.set_epsilon),
        "image data format": (config.image_data_format, config.set_image_data_format),
        "traceback filtering": (config.is_traceback_filtering_enabled, _filter_tracebacks),
        "eager functions": (tf.config.functions_run_eagerly, tf.config.run_functions_eagerly),
        "XLA for all": (tf.config.optimizer.get_jit, tf.config.optimizer.set_jit),
    }


def _filter_tracebacks(enabled):
    import keras

    if enabled:
        keras.config.enable_traceback_filtering()
    else:
        keras.config.disable_traceback_filtering()
