"""What can be measured: a Keras model, a file, a function or its texts."""

from keras_kd.measurement.subjects.choice import subject_of

__all__ = ["subject_of"]
