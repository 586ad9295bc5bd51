"""Runs from a configuration file: data, teacher, student, exports, report in one folder."""
