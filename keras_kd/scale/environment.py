"""`from_environment`: the place among the workers, as Slurm, Kubernetes or `TF_CONFIG` tell it.

TensorFlow's `SlurmClusterResolver` is not used: it cannot be made where there is no GPU (its
`range` has a step of 0), and it sorts nodes as texts while Slurm numbers processes in the order of
its list, so that with `node9` and `node10` every worker has another's address.
"""

import itertools
import json
import os
import re
from typing import Any

from keras_kd._utils import validation
from keras_kd.scale.worker import ATTEMPT, Worker

_KUBERNETES = ("JOB_COMPLETION_INDEX", "KERAS_KD_WORKERS", "KERAS_KD_SERVICE")
# A pod has all ports for itself. On a node of Slurm other jobs run too.
_POD_PORT, _FIRST_PORT, _PORTS = 2222, 20_000, 10_000


def from_environment(port: int | None = None) -> Worker:
    """The place of this process among its job's, with `TF_CONFIG` set accordingly.

    For jobs that something else than `kd.scale.run` starts: `train(kd.scale.from_environment())` is
    then all that each process does. Three places are looked at, in this order:

    - `TF_CONFIG`, if it is there: it stays as it is.
    - Slurm: `SLURM_PROCID`, `SLURM_STEP_NODELIST`, `SLURM_STEP_TASKS_PER_NODE`, which `srun` sets.
    - Kubernetes: `JOB_COMPLETION_INDEX` and `HOSTNAME`, which an Indexed Job or a JobSet set, with
      `KERAS_KD_WORKERS` (how many) and `KERAS_KD_SERVICE` (the headless service) of the manifest.

    Args:
        port: On which the workers listen, the first one of each node. Default: 2222 in Kubernetes,
            and one that depends on the job's number with Slurm.

    Returns:
        The `keras_kd.scale.Worker`.

    Raises:
        ValueError: None of the three is there, or one is incomplete.

    Example:

    ```python
    import keras_kd as kd

    def train(worker):
        print(worker.index, "of", worker.count)

    def main():
        train(kd.scale.from_environment())
    ```
    """
    port = validation.integer("port", port, 1, optional=True)
    if "TF_CONFIG" in os.environ:
        return _given(os.environ["TF_CONFIG"])
    if "SLURM_PROCID" in os.environ:
        index, addresses, attempt = _slurm(port)
    elif "JOB_COMPLETION_INDEX" in os.environ:
        index, addresses, attempt = _kubernetes(port)
    else:
        raise ValueError(
            "This process is in no job that keras_kd knows: neither TF_CONFIG, nor SLURM_PROCID, "
            "nor JOB_COMPLETION_INDEX is set. Start it with srun, as an Indexed Job of Kubernetes, "
            "or by keras_kd.scale.run; or set TF_CONFIG as TensorFlow describes it."
        )
    if index >= len(addresses):
        raise ValueError(
            f"This process is number {index}, from 0 on, of a job with {len(addresses)} workers: "
            f"{addresses}. What the environment says does not fit together."
        )
    os.environ["TF_CONFIG"] = json.dumps(
        {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
    )
    return Worker(index, len(addresses), attempt)


def _given(text: str) -> Worker:
    try:
        config = json.loads(text)
        cluster, task = config["cluster"], config["task"]
        chiefs, workers = (list(cluster.get(kind, [])) for kind in ("chief", "worker"))
        kind, index = task["type"], int(task["index"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            "TF_CONFIG has not the form {'cluster': {'worker': [addresses]}, 'task': {'type': "
            f"'worker', 'index': 0}}}}. Received: {text!r}"
        ) from error
    if kind not in ("chief", "worker") or set(cluster) - {"chief", "worker"}:
        raise ValueError(
            "TF_CONFIG has jobs that do not train in step: expected 'worker', and at most a "
            f"'chief'. Received: {text!r}"
        )
    place = index if kind == "chief" else index + len(chiefs)
    return Worker(place, len(chiefs) + len(workers), _number(ATTEMPT, default=0))


def _slurm(port: int | None) -> tuple[int, list[str], int]:
    index = _number("SLURM_PROCID")
    nodes = expand_nodes(_text("SLURM_STEP_NODELIST", "SLURM_JOB_NODELIST"))
    counts = expand_counts(_text("SLURM_STEP_TASKS_PER_NODE", "SLURM_TASKS_PER_NODE"))
    if len(nodes) != len(counts):
        raise ValueError(
            f"Slurm names {len(nodes)} nodes, {nodes}, and numbers of processes for {len(counts)}, "
            f"{counts}. Start the processes with srun, in which both are those of the step."
        )
    first = port if port is not None else _FIRST_PORT + _number("SLURM_JOB_ID", default=0) % _PORTS
    places = [(node, k) for node, count in zip(nodes, counts, strict=True) for k in range(count)]
    here = os.environ.get("SLURMD_NODENAME")
    if here and index < len(places) and places[index][0] != here:
        raise ValueError(
            f"Process {index} runs on {here!r}, where {places[index][0]!r} was expected: Slurm "
            "deals processes to nodes one by one. Start them with srun --distribution=block."
        )
    addresses = [f"{node}:{first + k}" for node, k in places]
    return index, addresses, _number("SLURM_RESTART_COUNT", default=0)


def _kubernetes(port: int | None) -> tuple[int, list[str], int]:
    missing = [name for name in (*_KUBERNETES, "HOSTNAME") if not os.environ.get(name)]
    if missing:
        raise ValueError(
            f"JOB_COMPLETION_INDEX is set, as in an Indexed Job of Kubernetes, but not {missing}. "
            "Set KERAS_KD_WORKERS to the Job's completions and KERAS_KD_SERVICE to the name of its "
            "headless Service in the manifest."
        )
    index, count = _number("JOB_COMPLETION_INDEX"), _number("KERAS_KD_WORKERS")
    host, service = os.environ["HOSTNAME"].partition(".")[0], os.environ["KERAS_KD_SERVICE"]
    ending = f"-{index}"
    if not host.endswith(ending):
        raise ValueError(
            f"In an Indexed Job the pod with index {index} has a name that ends in {ending!r}. "
            f"Received: HOSTNAME={host!r}"
        )
    job = host.removesuffix(ending)
    number = _POD_PORT if port is None else port
    addresses = [f"{job}-{k}.{service}:{number}" for k in range(count)]
    return index, addresses, _number(ATTEMPT, default=0)


def expand_nodes(text: str) -> list[str]:
    """The names of a node list of Slurm, such as `"a[08-10,12],b"`, in its order.

    Raises:
        ValueError: It is none.
    """
    parts = re.findall(r"(?:[^,\[\]]|\[[^\[\]]*\])+", text)
    if not parts or ",".join(parts) != text:
        raise ValueError(f"Not a node list of Slurm, such as 'node[01-04,7]': {text!r}")
    return [name for part in parts for name in _expand(part, text)]


def _expand(part: str, text: str) -> list[str]:
    pieces = re.split(r"\[([^\]]*)\]", part)  # texts and, between them, what stands in brackets
    choices: list[list[str]] = []
    for k, piece in enumerate(pieces):
        choices.append(
            [x for each in piece.split(",") for x in _range(each, text)] if k % 2 else [piece]
        )
    return ["".join(chosen) for chosen in itertools.product(*choices)]


def _range(text: str, whole: str) -> list[str]:
    found = re.fullmatch(r"(\d+)(?:-(\d+))?", text)
    if found is None:
        raise ValueError(f"Not a node list of Slurm, such as 'node[01-04,7]': {whole!r}")
    first, last = found.group(1), found.group(2) or found.group(1)
    return [str(number).zfill(len(first)) for number in range(int(first), int(last) + 1)]


def expand_counts(text: str) -> list[int]:
    """The numbers of Slurm's processes a node, such as `"2(x3),1"`.

    Raises:
        ValueError: It is none.
    """
    counts: list[int] = []
    for part in text.split(","):
        found = re.fullmatch(r"(\d+)(?:\(x(\d+)\))?", part)
        if found is None:
            raise ValueError(
                f"Not numbers of Slurm's processes a node, such as '2(x3),1': {text!r}"
            )
        counts += [int(found.group(1))] * int(found.group(2) or 1)
    return counts


def _text(*names: str) -> str:
    for name in names:
        if os.environ.get(name):
            return os.environ[name]
    raise ValueError(
        f"SLURM_PROCID is set, but neither of {names}. Start the processes with srun, which sets "
        "them."
    )


def _number(name: str, default: int | None = None) -> Any:
    value = os.environ.get(name)
    if value is None and default is not None:
        return default
    if value is None or not re.fullmatch(r"\d+", value):
        raise ValueError(f"Environment variable {name}: expected a number. Received: {value!r}")
    return int(value)
