"""The C interface of the CUDA kernels on arrays, on whatever plays the device."""

import abc
import ctypes

import ml_dtypes
import numpy as np

from keras_kd.ops.arguments import DIVERGENCES
from keras_kd.ops.backends import shared_library

DTYPES = {"float32": np.float32, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16}
STATISTICS = 6
MESSAGE_BYTES = 512


class Task(ctypes.Structure):
    """`keras_kd::cuda::Task`."""

    _fields_ = [
        ("problem", shared_library.Problem),
        ("temperature", ctypes.c_void_p),
        ("statistics", ctypes.c_void_p),
    ]


class KernelDevice(abc.ABC):
    """Memory, and the functions of `cuda_api.h` that work on it."""

    @abc.abstractmethod
    def allocate(self, array, offset=0):
        """Copies an array to the device; returns its address, `offset` bytes past an even one."""

    @abc.abstractmethod
    def allocate_uninitialized(self, nbytes, offset=0):
        """Returns the address of memory that nobody wrote."""

    @abc.abstractmethod
    def read_bytes(self, address):
        """Returns what an allocation holds, as uint8; all of it must have been written."""

    @abc.abstractmethod
    def function(self, name):
        """Returns a function of the library, as ctypes has it."""

    def call(self, name, *arguments):
        """Calls it; raises ValueError with its message if it fails."""
        message = ctypes.create_string_buffer(MESSAGE_BYTES)
        if self.function(name)(*arguments, message, ctypes.c_int64(MESSAGE_BYTES)):
            raise ValueError(message.value.decode())

    def _pointer(self, array, offset=0):
        return None if array is None else self.allocate(array, offset)

    def run(
        self,
        student,
        teacher,
        labels=None,
        temperature=1.0,
        divergence="forward_kl",
        mixing_weight=0.5,
        hard_weight=None,
        soft_weight=None,
        gradient=True,
        offset=0,
        from_statistics=False,
    ):
        """`_native.hard_and_soft_loss` on the device.

        Args:
            offset: Elements by which the logits lie past an address that is a multiple of 256.
            from_statistics: Whether the gradient comes from a second call, which is given the
                statistics that the first one saved.

        Returns:
            `(hard, soft, gradient)`; `hard` and `gradient` are `None` if not computed.
        """
        rows, classes = student.shape
        size = student.dtype.itemsize
        results = {
            "soft": self.allocate_uninitialized(4 * rows),
            "hard": None if labels is None else self.allocate_uninitialized(4 * rows),
        }
        slope = self.allocate_uninitialized(student.nbytes, offset * size)
        task = Task(
            problem=shared_library.Problem(
                rows=rows,
                classes=classes,
                student=self._pointer(student, offset * size),
                teacher=self._pointer(teacher, offset * teacher.dtype.itemsize),
                student_type=list(DTYPES).index(student.dtype.name),
                teacher_type=list(DTYPES).index(teacher.dtype.name),
                divergence=DIVERGENCES[divergence].code,
                mixing_weight=mixing_weight,
                labels=self._pointer(labels),
                labels_are_int64=labels is not None and labels.dtype == np.int64,
                soft_weight=self._pointer(soft_weight),
                hard_weight=self._pointer(hard_weight),
                gradient=slope if gradient and not from_statistics else None,
                gradient_type=list(DTYPES).index(student.dtype.name),
                **results,
            ),
            temperature=self._pointer(np.float32([temperature])),
            statistics=self.allocate_uninitialized(4 * STATISTICS * rows)
            if from_statistics
            else None,
        )
        workspace, size = self._workspace(task)
        self.call("keras_kd_cuda_losses", ctypes.byref(task), workspace, size, None)
        if from_statistics:
            task.problem.gradient = slope
            self.call("keras_kd_cuda_gradient", ctypes.byref(task), None)
        hard, soft = (self._floats(results[name]) for name in ("hard", "soft"))
        if not gradient:
            return hard, soft, None
        return hard, soft, self.read_bytes(slope).view(student.dtype).reshape(student.shape)

    def _floats(self, address):
        return None if address is None else self.read_bytes(address).view(np.float32)

    def _workspace(self, task):
        size = ctypes.c_int64()
        self.call("keras_kd_cuda_workspace", ctypes.byref(task), ctypes.byref(size))
        if size.value == 0:
            return None, size
        return ctypes.c_void_p(self.allocate_uninitialized(size.value)), size
