import pytest


def why_not():
    """Why these tests cannot run here; empty if they can."""
    import tensorflow as tf

    from keras_kd.ops.backends import xla

    if not tf.config.list_physical_devices("GPU"):
        return "no GPU is visible to TensorFlow"
    return xla.unavailable_on_gpu()


def pytest_collection_modifyitems(items):
    mine = [item for item in items if item.get_closest_marker("gpu")]
    reason = why_not() if mine else ""
    for item in mine:
        if reason:
            item.add_marker(pytest.mark.skip(reason=reason))
