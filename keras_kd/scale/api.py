"""`run`: one function in several processes that train in step, on the machines of a Ray cluster."""

from collections.abc import Callable
from typing import Any

from keras_kd._utils import progress, validation
from keras_kd.scale import ray_hosts, supervision
from keras_kd.scale.worker import ATTEMPT


def run(
    function: Callable,
    workers: int,
    *,
    engine: str = "ray",
    resources: dict[str, float] | None = None,
    retries: int = 3,
    address: str | None = None,
    env: dict[str, str] | None = None,
    timeout: float | None = None,
    verbose: int | str = 1,
) -> list:
    """Calls a function in several processes that train in step, and keeps them going.

    Each process gets its place in `TF_CONFIG`, so `tf.distribute.MultiWorkerMirroredStrategy()`
    made in the function connects them. When a process or its node is lost, all are stopped and
    started again, in fresh processes: `keras.callbacks.BackupAndRestore` in a folder that all see
    then goes on at the batch of the last backup, and the weights at the end are those of a run from
    which nothing was lost. An error that the function raises is raised here, and not tried again.

    Args:
        function: A function of a `keras_kd.scale.Worker`, which builds data and models itself. It
            is sent to the workers: modules that it imports must be there.
        workers: How many processes, at least 1.
        engine: `"ray"`, Ray's core, `pip install 'keras-kd[ray]'`. Without Ray see
            `keras_kd.scale.from_environment`.
        resources: What each worker takes of its node, such as `{"CPU": 8, "GPU": 1}` or resources
            of your own. Default: one CPU.
        retries: How often all may be started again.
        address: Of a Ray cluster, such as `"auto"`. Default: the one that this process is connected
            to, or that `RAY_ADDRESS` names; else one of this machine is started for the call.
        env: Variables for the environment of the workers' processes.
        timeout: Seconds without a sign of life after which a worker that has begun is lost. What
            it prints is such a sign, and `worker.alive()`. Of workers in step one that hangs makes
            all hang. Default: only processes that have ended are lost.
        verbose: 0: silent. 1: who starts, who is waited for, who was lost. 2: also the lines that
            workers print.

    Returns:
        What the workers returned, in their order. It is sent too: small things, such as a history.

    Raises:
        keras_kd.scale.WorkerError: The function raised an error; workers were lost more than
            `retries` times; or one has other versions of Python, TensorFlow, Keras or keras_kd.
        ImportError: The extra `ray` is missing.
        ValueError: An argument is wrong.

    Example:

    ```python
    import keras
    import numpy as np
    import tensorflow as tf
    import keras_kd as kd

    def train(worker):
        x = np.random.default_rng(0).normal(size=(64, 8)).astype("float32")
        with tf.distribute.MultiWorkerMirroredStrategy().scope():
            teacher = keras.Sequential([keras.Input((8,)), keras.layers.Dense(10)])
            student = keras.Sequential([keras.Input((8,)), keras.layers.Dense(10)])
            distiller = kd.Distiller(teacher, student, alpha=0.0, beta=1.0)
            distiller.compile("adam", loss=None)
        backup = keras.callbacks.BackupAndRestore("/shared/backup", save_freq=100)
        history = distiller.fit(x, batch_size=32, shuffle=False, callbacks=[backup])
        return history.history

    def main():
        first, *others = kd.scale.run(train, workers=4, resources={"CPU": 8, "GPU": 1})
    ```
    """
    function = validation.function("function", function, ("worker",))
    workers = validation.integer("workers", workers, 1)
    validation.one_of("engine", engine, ("ray",))
    retries = validation.integer("retries", retries, 0)
    address = validation.text("address", address, "the address of a Ray cluster", optional=True)
    timeout = None if timeout is None else validation.positive("timeout", timeout)
    environment, wanted = _environment(env), _resources(resources)
    verbose = progress.check_verbose(verbose)
    task = supervision.Task(_pickled(function), workers, retries, environment, timeout, verbose)
    with ray_hosts.RayHosts(workers, wanted, address, verbose) as hosts:
        return supervision.run(hosts, task)


def _resources(given: Any) -> dict[str, float]:
    if given is None:
        return {"CPU": 1.0}
    is_dict = isinstance(given, dict) and given
    if not is_dict or not all(isinstance(name, str) and name for name in given):
        raise validation.invalid(
            "resources", "a dict of names and amounts, such as {'CPU': 8, 'GPU': 1}", repr(given)
        )
    return {
        name: validation.positive(f"resources[{name!r}]", amount) for name, amount in given.items()
    }


def _environment(given: Any) -> dict[str, str]:
    if given is None:
        return {}
    texts = isinstance(given, dict) and all(
        isinstance(each, str) for pair in given.items() for each in pair
    )
    if not texts:
        raise validation.invalid("env", "a dict of texts, or None", repr(given))
    own = sorted({"TF_CONFIG", ATTEMPT} & set(given))
    if own:
        raise validation.invalid("env", f"a dict without {own[0]}, which `run` sets", repr(given))
    return dict(given)


def _pickled(function: Callable) -> bytes:
    cloudpickle = validation.needs("ray.cloudpickle", "keras_kd.scale.run", "ray")
    try:
        return cloudpickle.dumps(function)
    except Exception as error:  # whatever an object's own pickling raises
        raise ValueError(
            f"`function` cannot be sent to the workers: {error}. It holds something of this "
            "process, such as a model, a dataset or a strategy. Build that in the function."
        ) from error
