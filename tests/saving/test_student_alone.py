"""The student is a plain Keras model: it loads and predicts where keras_kd is not installed."""

import keras
import numpy as np
import tensorflow as tf

from tests import fresh_process
from tests.distiller import linear

LOAD = """
import sys
import numpy as np

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "keras_kd":
            raise ImportError("keras_kd is not installed here")

sys.meta_path.insert(0, Blocker())
folder = sys.argv[1]
x = np.load(folder + "/x.npy")
import keras
import tensorflow as tf

np.save(folder + "/keras.npy", keras.models.load_model(folder + "/student.keras").predict(x))
exported = tf.saved_model.load(folder + "/exported")
np.save(folder + "/saved_model.npy", exported.serve(x))
"""


def test_student_loads_without_keras_kd(tmp_path):
    x, y = linear.data()
    distiller = linear.compiled(*linear.pair(), mode="graph")
    distiller.fit(x, y, epochs=2, verbose=0)
    student = distiller.student
    student.save(tmp_path / "student.keras")
    student.export(tmp_path / "exported", verbose=False)
    assert b"KerasKd" not in (tmp_path / "exported" / "saved_model.pb").read_bytes()
    np.save(tmp_path / "x.npy", x)
    (tmp_path / "load.py").write_text(LOAD)
    fresh_process.run_preloaded([tmp_path / "load.py", tmp_path])
    expected = student.predict(x, verbose=0)
    for name in ("keras", "saved_model"):
        np.testing.assert_allclose(np.load(tmp_path / f"{name}.npy"), expected, rtol=1e-6)


def test_exported_graphs_hold_no_operation_of_ours(tmp_path):
    x, y = linear.data()
    distiller = linear.compiled(*linear.pair(), mode="graph")
    distiller.fit(x, y, verbose=0)
    distiller.export(tmp_path / "exported", verbose=False)
    assert b"KerasKd" not in (tmp_path / "exported" / "saved_model.pb").read_bytes()
    exported = tf.saved_model.load(tmp_path / "exported")
    np.testing.assert_allclose(
        exported.serve(x), keras.ops.convert_to_numpy(distiller(x)), rtol=1e-6
    )
