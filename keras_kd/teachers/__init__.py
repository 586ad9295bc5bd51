"""What can teach: Keras models and functions, and more.

Wherever `Distiller` takes a teacher it takes a `keras.Model`, a function, or one of these.
"""

from keras_kd.teachers.base import Teacher
from keras_kd.teachers.cached import Cached
from keras_kd.teachers.ensemble import Ensemble
from keras_kd.teachers.host import HostTeacher
from keras_kd.teachers.keras_model import KerasTeacher
from keras_kd.teachers.no_teacher import DeepestExit, VirtualTeacher
from keras_kd.teachers.onnx import OnnxTeacher
from keras_kd.teachers.own_weights import EMA, Snapshot
from keras_kd.teachers.saved_model import SavedModelTeacher
from keras_kd.teachers.tflite import TFLiteTeacher
from keras_kd.teachers.torch import TorchTeacher

__all__ = [
    "EMA",
    "Cached",
    "DeepestExit",
    "Ensemble",
    "HostTeacher",
    "KerasTeacher",
    "OnnxTeacher",
    "SavedModelTeacher",
    "Snapshot",
    "TFLiteTeacher",
    "Teacher",
    "TorchTeacher",
    "VirtualTeacher",
]
