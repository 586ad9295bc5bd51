"""`diagnose`: what is wrong with a teacher, a student and their data, before any training."""

from keras_kd.diagnosis.api import diagnose
from keras_kd.diagnosis.finding import Diagnosis, DiagnosisWarning, Finding
from keras_kd.diagnosis.first_batch import first_batch_findings

__all__ = ["Diagnosis", "DiagnosisWarning", "Finding", "diagnose", "first_batch_findings"]
