"""`keras_kd.report`: teacher, students and exported files side by side, and what that shows."""

from keras_kd.report.call import report

__all__ = ["report"]
