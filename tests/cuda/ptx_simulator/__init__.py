"""Runs the PTX of CUDA kernels on the CPU, with checks and counters; see the README."""

from .counters import Counters
from .device import Device
from .fault import Fault
from .kernel import Kernel, load

__all__ = ["Counters", "Device", "Fault", "Kernel", "load"]
