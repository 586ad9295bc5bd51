"""What can teach: Keras models and functions, and more.

Wherever `Distiller` takes a teacher it takes a `keras.Model`, a function, or one of these.
"""

from keras_kd.teachers.cache.teacher import Cached
from keras_kd.teachers.ensemble import Ensemble
from keras_kd.teachers.foreign import OnnxTeacher, TFLiteTeacher, TorchTeacher
from keras_kd.teachers.host import HostTeacher
from keras_kd.teachers.keras_model import KerasTeacher, SavedModelTeacher
from keras_kd.teachers.protocol import Teacher
from keras_kd.teachers.self_distillation import EMA, DeepestExit, Snapshot, VirtualTeacher
from keras_kd.teachers.served.errors import ServedTeacherError
from keras_kd.teachers.served.teacher import Served

__all__ = [
    "EMA",
    "Cached",
    "DeepestExit",
    "Ensemble",
    "HostTeacher",
    "KerasTeacher",
    "OnnxTeacher",
    "SavedModelTeacher",
    "Served",
    "ServedTeacherError",
    "Snapshot",
    "TFLiteTeacher",
    "Teacher",
    "TorchTeacher",
    "VirtualTeacher",
]
