"""`RayHosts`: hosts of workers on the nodes of a Ray cluster.

Ray's core only: placement, and actors that hold a process each. Ray Train would set
`TF_USE_LEGACY_KERAS`, with which neither Keras 3 nor this package works.
"""

import contextlib
import logging
import os
import socket
import sys
import time
from collections.abc import Iterator
from typing import Any

from keras_kd._utils import progress, validation
from keras_kd.scale import host

# Seconds for a node to answer, and for the cluster to find room for all workers.
_ANSWER, _ROOM = 120.0, 600.0
# Seconds for the head of a cluster to take a connection.
_CONNECT = 15.0
# Keys of `resources` for which Ray has arguments of its own.
_OWN = {"CPU": "num_cpus", "GPU": "num_gpus", "memory": "memory"}


class HostLostError(Exception):
    """The process that holds a worker is gone, or its node."""

    def __init__(self, index: int, reason: str) -> None:
        super().__init__(reason)
        self.index, self.reason = index, reason


class RayHosts:
    """As many hosts as there are workers, spread over the nodes; a context.

    Args:
        workers: How many.
        resources: What each takes of its node, such as `{"CPU": 4, "GPU": 1}`.
        address: Of the cluster. `None`: the one that this process or `RAY_ADDRESS` names, or else
            one of this machine, for as long as the context is open.
        verbose: 0, 1 or 2.
    """

    def __init__(
        self, workers: int, resources: dict[str, float], address: str | None, verbose: int
    ) -> None:
        self._ray = validation.needs("ray", "keras_kd.scale.run", "ray")
        self._workers, self._resources, self._verbose = workers, resources, verbose
        self._address = address
        self._stack = contextlib.ExitStack()
        self._actors: list[Any] = []
        self._polls: dict[int, Any] = {}
        self._group: Any = None

    def __enter__(self) -> "RayHosts":
        with self._stack:
            self._connect()
            self._group = self._placed()
            self._stack.callback(self._remove)
            # By value: a node needs this package in the worker's process only.
            cloudpickle = self._ray.cloudpickle
            cloudpickle.register_pickle_by_value(host)
            self._stack.callback(cloudpickle.unregister_pickle_by_value, host)
            self._actors = [self._new(index) for index in range(self._workers)]
            self.call_all("poll")
            self._stack = self._stack.pop_all()
        return self

    def __exit__(self, *error: Any) -> None:
        with self._stack:
            self.stop()

    def addresses(self) -> list[str]:
        """Under which address the others reach each worker's node."""
        of_node = {each["NodeID"]: each["NodeManagerAddress"] for each in self._ray.nodes()}
        table = self._ray.util.placement_group_table(self._group)
        nodes = table["bundles_to_node_id"]
        found = [of_node[nodes[index]] for index in range(self._workers)]
        # One machine needs no network.
        return found if len(set(found)) > 1 else ["127.0.0.1"] * self._workers

    def call_all(self, method: str, *arguments: Any) -> list[Any]:
        """What a method of each host returns, for the same arguments.

        Raises:
            HostLostError: One does not answer.
        """
        return self.call_each(method, [arguments] * self._workers)

    def call_each(self, method: str, arguments: list[tuple]) -> list[Any]:
        """What a method of each host returns, each for its own arguments."""
        calls = [
            getattr(actor, method).remote(*own)
            for actor, own in zip(self._actors, arguments, strict=True)
        ]
        return [self._answer(index, call) for index, call in enumerate(calls)]

    def poll(self, seen: list[int], seconds: float) -> list[dict[str, Any] | None]:
        """What `Host.poll` says of each; `None` where it has not answered within the seconds.

        Args:
            seen: For each the lines of its output that are known.
            seconds: How long it waits for all of them.
        """
        for index, actor in enumerate(self._actors):
            if index not in self._polls:
                self._polls[index] = actor.poll.remote(seen[index])
        asked = list(self._polls.values())
        answered, _ = self._ray.wait(asked, num_returns=len(asked), timeout=seconds)
        done = [index for index, call in self._polls.items() if call in answered]
        return [
            self._answer(index, self._polls.pop(index)) if index in done else None
            for index in range(self._workers)
        ]

    def stop(self) -> None:
        """Ends all workers' processes; a host that does not answer is given up."""
        self._polls.clear()
        calls = [actor.stop.remote() for actor in self._actors]
        for index, call in enumerate(calls):
            try:
                self._answer(index, call)
            except HostLostError:
                # With it ends its worker, which reads the socket between them.
                self._ray.kill(self._actors[index])

    def replace_lost(self) -> None:
        """Starts new hosts for those that are lost, where the cluster has room for them.

        Raises:
            HostLostError: It has none.
        """
        calls = [actor.poll.remote() for actor in self._actors]
        for index, call in enumerate(calls):
            try:
                self._answer(index, call)
            except HostLostError:
                self._ray.kill(self._actors[index])
                self._actors[index] = self._new(index)
                self._answer(index, self._actors[index].poll.remote(), _ROOM)

    def _answer(self, index: int, call: Any, seconds: float = _ANSWER) -> Any:
        errors = self._ray.exceptions
        try:
            return self._ray.get(call, timeout=seconds)
        except errors.GetTimeoutError:
            raise HostLostError(
                index, f"its node has not answered for {seconds:.0f} seconds"
            ) from None
        except errors.RayActorError as error:
            text = " ".join(str(error).split())
            raise HostLostError(
                index, f"Ray lost its node, or the process there: {text}"
            ) from error

    def _connect(self) -> None:
        ray = self._ray
        if ray.is_initialized():
            if self._address is not None:
                raise ValueError(
                    f"address={self._address!r}: this process is connected to Ray already. Leave "
                    "`address` out to use that, or call ray.shutdown() before."
                )
            return
        address = self._address or os.environ.get("RAY_ADDRESS")
        _check_reachable(address)
        level = logging.WARNING if self._verbose else logging.ERROR
        logging.getLogger("ray").setLevel(level)  # what it says before it reads its own argument
        options = {"logging_level": level, "log_to_driver": False}
        if address is None:
            cpus = max(os.cpu_count() or 1, int(self._resources.get("CPU", 0) * self._workers))
            options |= {"num_cpus": cpus, "include_dashboard": False}
        with _environment(RAY_USAGE_STATS_ENABLED="0"):
            ray.init(address=address or "local", **options)
        self._stack.callback(ray.shutdown)

    def _placed(self) -> Any:
        """A placement group with a bundle for each worker, all at once."""
        util = self._ray.util
        missing = self._missing()
        if missing:
            self._say(f"the cluster lacks, for now: {missing}")
        group = util.placement_group([self._resources] * self._workers, strategy="SPREAD")
        waited, begin = 0.0, time.monotonic()
        while not group.wait(min(_ROOM, progress.SECONDS_BETWEEN_LINES)):
            waited = time.monotonic() - begin
            if waited >= _ROOM:
                util.remove_placement_group(group)
                raise RuntimeError(
                    f"Ray found no room for {self._workers} workers with {self._resources} each "
                    f"within {_ROOM:.0f} seconds. The cluster has "
                    f"{self._ray.cluster_resources()}; free are "
                    f"{self._ray.available_resources()}. Take fewer workers or less for each "
                    "(`resources`), or add nodes."
                )
            self._say(f"waits for room for {self._workers} workers: {progress.duration(waited)}")
        return group

    def _missing(self) -> str:
        has = self._ray.cluster_resources()
        wanted = {name: amount * self._workers for name, amount in self._resources.items()}
        lacks = {name: amount for name, amount in wanted.items() if has.get(name, 0) < amount}
        return ", ".join(f"{amount:g} {name}" for name, amount in lacks.items())

    def _remove(self) -> None:
        for actor in self._actors:
            self._ray.kill(actor)
        self._ray.util.remove_placement_group(self._group)

    def _new(self, index: int) -> Any:
        """The actor of a new host, on the node of the worker's bundle."""
        own = {_OWN[name]: amount for name, amount in self._resources.items() if name in _OWN}
        others = {name: x for name, x in self._resources.items() if name not in _OWN}
        place = self._ray.util.scheduling_strategies.PlacementGroupSchedulingStrategy(
            self._group, placement_group_bundle_index=index
        )
        kind = self._ray.remote(host.Host).options(
            **{"num_cpus": 0, **own}, resources=others, scheduling_strategy=place
        )
        return kind.remote()

    def _say(self, text: str) -> None:
        if self._verbose:
            progress.print_line(f"kd.scale: {text}")


def _check_reachable(address: str | None) -> None:
    """Raises at once for an address that Ray would try for minutes."""
    if address in (None, "auto", "local"):
        return
    name, _, port = str(address).rpartition(":")
    if "://" in str(address) or not name or not port.isdigit():
        raise validation.invalid(
            "address",
            "'auto', or the host:port of a cluster's head; not ray://, Ray's client: submit the "
            "program as a job of the cluster",
            repr(address),
        )
    try:
        socket.create_connection((name, int(port)), _CONNECT).close()
    except OSError as error:
        raise validation.invalid(
            "address", f"a Ray cluster that can be reached ({error})", repr(address)
        ) from error


@contextlib.contextmanager
def _environment(**changes: str) -> Iterator[None]:
    """Variables for the processes that are started meanwhile; those that are set stay."""
    added = {name: value for name, value in changes.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            del os.environ[name]


def search_path() -> list[str]:
    """Where this process finds modules; the functions that are sent may be of them."""
    return [os.path.abspath(each or os.curdir) for each in sys.path]
