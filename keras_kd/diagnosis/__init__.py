"""What is wrong with a teacher, a student and their data, before any training."""

from keras_kd.diagnosis.finding import DiagnosisWarning, Finding
from keras_kd.diagnosis.first_batch import first_batch_findings
from keras_kd.diagnosis.result import Diagnosis
from keras_kd.diagnosis.run import diagnose

__all__ = ["Diagnosis", "DiagnosisWarning", "Finding", "diagnose", "first_batch_findings"]
