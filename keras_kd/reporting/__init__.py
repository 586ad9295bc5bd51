"""`keras_kd.report`: teacher, students and exported files side by side, and what that shows."""

from keras_kd.reporting.api import report

__all__ = ["report"]
