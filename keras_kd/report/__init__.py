"""`keras_kd.report`: teacher, students and exported files side by side, and what that shows."""

from keras_kd.report.call import report
from keras_kd.report.result import Report

__all__ = ["Report", "report"]
