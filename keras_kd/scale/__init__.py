"""Many workers: one function in several processes that train in step.

`run` starts them on a Ray cluster and starts all of them again when one is lost; `from_environment`
finds the place of a process that Slurm or Kubernetes has started.
"""

from keras_kd.scale.api import run
from keras_kd.scale.environment import from_environment
from keras_kd.scale.worker import Worker, WorkerError

__all__ = ["Worker", "WorkerError", "from_environment", "run"]
