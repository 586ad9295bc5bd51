"""`quantization_aware`: makes a student that trains with the numbers of its file."""

import dataclasses

from keras_kd.export import representative, students
from keras_kd.quantization import layout
from keras_kd.quantization.schemes import named
from keras_kd.quantization.student import QuantizationAware


def quantization_aware(
    student, scheme="int8", representative_data=None, *, leave=(), observe_steps=200, name=None
):
    """A student that a `Distiller` trains with the integers of its file."""
    student = students.checked(student, "quantization_aware")
    roundings = []
    if named(scheme).activation_bits:
        arrays, _ = representative.read(representative_data, student)
        representative.check_for_calibration(arrays, student)
        roundings = [dataclasses.asdict(each) for each in layout.found(student, arrays)]
    return QuantizationAware(student, scheme, roundings, leave, observe_steps, name)
