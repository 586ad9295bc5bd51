"""The commands of `python -m keras_kd`."""
