"""`Served`: a teacher behind one or several servers."""

import hashlib
import itertools
import threading
from collections.abc import Callable, Sequence
from concurrent import futures
from typing import Any

import keras
import numpy as np

from keras_kd import models
from keras_kd._utils import validation
from keras_kd.runtimes import tensors
from keras_kd.runtimes.outputs import FileOutputs
from keras_kd.teachers import host
from keras_kd.teachers.served import addresses, open_inference, tf_serving
from keras_kd.teachers.served import description as descriptions
from keras_kd.teachers.served.circuit import Circuit
from keras_kd.teachers.served.description import ModelDescription
from keras_kd.teachers.served.fleet import Fleet, Patience
from keras_kd.teachers.served.server import Server

PROTOCOLS = ("open_inference", "tf_serving")


@keras.saving.register_keras_serializable(package="keras_kd")
class Served(host.HostTeacher):
    """A model behind one or several servers as a teacher (`pip install 'keras-kd[served]'`).

    Speaks the Open Inference Protocol (KServe's v2: Triton, MLServer, KServe) and TensorFlow
    Serving's, each over HTTP and gRPC. While `fit` runs, `in_flight` batches are asked for ahead of
    the step, in order; servers get them in turn. What fails is asked for elsewhere, after a pause
    that doubles; a server that fails `failures` times in a row is left alone for `pause` seconds
    and more, and checked when it comes back. Where no server answers for `give_up_after` seconds
    `fit` raises a `ServedTeacherError`.

    Every server is asked what it has, when a distiller is made: name, version, inputs and outputs
    must be the same, and the outputs for a probe batch within `tolerance`. Every answer must have
    the promised shape and type, a row for each sample, and finite values.

    Args:
        urls: The address of a server, or a list: `http://`, `https://`, `grpc://` or `grpcs://`,
            host and port. All have the same model.
        model: The model's name on the servers.
        protocol: `"open_inference"` or `"tf_serving"`.
        output: The name or the index of the output that teaches. Default: the only one, or all of
            them as a list, matched by name with the student's outputs. The others can be tapped.
        preprocess: See `Teacher`; in TensorFlow operations.
        name: See `Teacher`.
        version: The model's version. Default: the one that the servers choose, which must then
            stay the same.
        signature: Of `"tf_serving"`, the signature; default: `"serving_default"`.
        max_batch: The most samples of a request: larger batches are split, and joined again.
            Default: batches are sent whole.
        in_flight: How many requests there may be at once, over all servers.
        timeout: Seconds for one request.
        give_up_after: Seconds without a sound answer after which it raises.
        failures: Failures in a row after which a server is left alone.
        pause: Seconds for which it is, at first; doubled up to 16 times that.
        probe: A batch of inputs by which servers of one name are compared, as the model takes them:
            one array or a dict. Default: made from the description; where that leaves sizes open
            they are 32.
        tolerance: How far the outputs for it may be apart, relative to the largest of them.

    Raises:
        ImportError: urllib3 (of `http`) or grpcio (of `grpc`) is missing.
        ServedTeacherError: No server answers, or every one refuses a batch.
        ValueError: An argument is wrong, servers have different models, there is no such output,
            or the inputs do not fit.

    Example:

    ```python
    def distiller(student):  # two servers that have the model "resnet"
        import keras_kd as kd

        urls = ["http://10.0.0.1:8080", "grpc://10.0.0.2:8081"]
        return kd.Distiller(kd.teachers.Served(urls, model="resnet", max_batch=64), student)
    ```
    """

    def __init__(
        self,
        urls: str | Sequence[str],
        model: str,
        protocol: str = "open_inference",
        output: str | int | None = None,
        preprocess: Callable | None = None,
        name: str | None = None,
        *,
        version: str | int | None = None,
        signature: str | None = None,
        max_batch: int | None = None,
        in_flight: int = 8,
        timeout: float = 30.0,
        give_up_after: float = 300.0,
        failures: int = 3,
        pause: float = 1.0,
        probe: Any = None,
        tolerance: float = 1e-3,
        **kwargs: Any,
    ) -> None:
        given = addresses.parse(urls)
        validation.text("model", model, "the name of a model")
        validation.one_of("protocol", protocol, PROTOCOLS)
        # Before Keras makes the layer: how many batches it may be asked for at once.
        self.parallel_batches = validation.integer("in_flight", in_flight, 1)
        super().__init__(preprocess, name or "served_teacher", **kwargs)
        self.urls, self.model_name, self.protocol = tuple(x.url for x in given), model, protocol
        self.output_key = validation.output_key("output", output)
        self.version = _check_version(version, protocol)
        self.signature = _check_signature(signature, protocol)
        self.max_batch = validation.integer("max_batch", max_batch, 1, optional=True)
        self.timeout = validation.positive("timeout", timeout)
        self.give_up_after = validation.positive("give_up_after", give_up_after)
        self.failures = validation.integer("failures", failures, 1)
        self.pause = validation.positive("pause", pause)
        self.tolerance = validation.non_negative("tolerance", tolerance)
        self._probe = models.Untracked(probe)
        patience = Patience(self.timeout, self.give_up_after, self.parallel_batches)
        servers = [self._server(address) for address in given]
        self._fleet = models.Untracked(Fleet(servers, patience, self.tolerance, self.name))
        # Made by the first use of the servers.
        self._choice: models.Untracked = models.Untracked(None)
        self._connecting = models.Untracked(threading.Lock())

    def _server(self, address: addresses.Address) -> Server:
        module = open_inference if self.protocol == "open_inference" else tf_serving
        kind = module.HttpClient if address.is_http else module.GrpcClient
        options = {} if self.signature is None else {"signature": self.signature}
        client = kind(address, self.model_name, self.version, self.parallel_batches, **options)
        return Server(address.url, client, Circuit(self.failures, self.pause))

    # What it is, as the servers say.

    def bind(self, student: keras.Model) -> None:
        super().bind(student)
        self._connected()

    def _connected(self) -> tuple[Fleet, FileOutputs]:
        """The servers and the choice of outputs, after the first use has asked every server."""
        fleet = self._fleet.value
        with self._connecting.value:
            if self._choice.value is None:
                description = fleet.connect(self._probe_of)
                names = [info.name for info in description.outputs]
                self._choice.value = FileOutputs(names, self.output_key, self.name)
        return fleet, self._choice.value

    def _probe_of(self, description: ModelDescription) -> list[np.ndarray]:
        """The probe batch, as the model takes it."""
        probe = self._probe.value
        if probe is None:
            return descriptions.probe_inputs(description)
        return _encoded(keras.tree.map_structure(np.asarray, probe), description)

    @property
    def description(self) -> ModelDescription:
        """What the servers say of the model."""
        return self._connected()[0].expected.description

    def input_specs(self) -> dict[str, Any] | None:
        """That of its only input, under any name; of several only the data tells."""
        inputs = self.description.inputs
        if self.preprocess is not None or len(inputs) != 1:
            return None
        return {"": keras.KerasTensor((None, *inputs[0].shape[1:]), inputs[0].dtype)}

    @property
    def output_names(self) -> list[str] | None:
        """Those that the servers give, unless an exporter numbered them."""
        return self._connected()[1].given_names

    def output_shapes(self, inputs: Any, layers: list) -> Any:
        """See `HostTeacher`; nothing is run where the servers describe the shapes."""
        _, choice = self._connected()
        shapes = {info.name: info.shape for info in self.description.outputs}
        names = choice.wanted(layers)
        if any(not shapes[name] or None in shapes[name][1:] for name in names):
            return super().output_shapes(inputs, layers)
        found = {name: host.Shape((None, *shapes[name][1:])) for name in names}
        return choice.split(found, layers)

    def resolve(self, layer: Any) -> Any:
        return self._connected()[1].resolve(layer)

    def fingerprint(self) -> str:
        """The digest of the model's description and of its outputs for the probe batch."""
        fleet, choice = self._connected()
        expected = fleet.expected
        digest = hashlib.sha256(f"{expected.description.text()} {choice.chosen}".encode())
        for name in sorted(expected.outputs):
            digest.update(np.ascontiguousarray(expected.outputs[name]).tobytes())
        return digest.hexdigest()

    # Its outputs.

    def predict(self, inputs: Any, layers: Any = ()) -> tuple[Any, dict]:
        fleet, choice = self._connected()
        description = fleet.expected.description
        names, arrays = choice.wanted(layers), _encoded(inputs, description)
        rows = len(arrays[0])
        if not rows:
            return choice.split(_without_rows(description, names), layers)
        size = description.rows or min(self.max_batch or rows, rows)
        parts = list(tensors.batches(arrays, size, description.rows is not None))
        inputs_of = [info.name for info in description.inputs]

        def ask(part: list[np.ndarray], kept: int) -> list[np.ndarray]:
            found = fleet.ask(dict(zip(inputs_of, part, strict=True)), names)
            return [found[name][:kept] for name in names]

        answers = list(_in_threads(ask, parts, self.parallel_batches))
        joined = [np.concatenate(each) for each in zip(*answers, strict=True)]
        return choice.split(dict(zip(names, joined, strict=True)), layers)

    def statistics(self) -> dict[str, Any]:
        """What was asked so far.

        Returns:
            `requests`, sound `answers`, `failures`, `retries`, `rows`, `seconds` waited for
            requests (of several at once: their sum), `circuit_openings`, and `servers`: by URL the
            same of each, with the seconds of its slowest answer, the state of its circuit, and its
            last failure in words.
        """
        return self._fleet.value.statistics()

    def close(self) -> None:
        """Closes the connections. The teacher cannot be asked after that."""
        self._fleet.value.close()

    # How it is saved.

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        probe = self._probe.value
        arrays = None if probe is None else keras.tree.map_structure(np.asarray, probe)
        config.update(
            {
                "urls": list(self.urls),
                "model": self.model_name,
                "output": self.output_key,
                "in_flight": self.parallel_batches,
                "probe": keras.saving.serialize_keras_object(arrays),
                **{key: getattr(self, key) for key in _SAVED},
            }
        )
        return config


# Arguments that are saved as they are.
_SAVED = (
    "protocol", "version", "signature", "max_batch", "timeout", "give_up_after", "failures",
    "pause", "tolerance",
)  # fmt: skip


def _check_version(version: Any, protocol: str) -> str | None:
    if version is None:
        return None
    text = str(version) if validation.is_integer(version) else version
    if not isinstance(text, str) or not text or (protocol == "tf_serving" and not text.isdigit()):
        expected = (
            "a whole number, or None"
            if protocol == "tf_serving"
            else ("a text, a whole number, or None")
        )
        raise validation.invalid("version", expected, repr(version))
    return text


def _check_signature(signature: Any, protocol: str) -> str | None:
    if protocol == "tf_serving":
        default = "serving_default" if signature is None else signature
        return validation.text("signature", default, "the name of a signature")
    if signature is not None:
        raise validation.invalid("signature", "None, unless protocol='tf_serving'", repr(signature))
    return None


def _encoded(inputs: Any, description: ModelDescription) -> list[np.ndarray]:
    """The inputs of a batch in the order and types of the model's."""
    infos = list(description.inputs)
    try:
        given = tensors.match_inputs(inputs, infos)
    except ValueError as error:
        names = ", ".join(f"{info.name!r}: ..." for info in infos)
        received = sorted(inputs) if isinstance(inputs, dict) else len(keras.tree.flatten(inputs))
        raise ValueError(
            f"The model {description.name!r} takes {description.input_texts}, which are not the "
            f"batch's inputs. Received: {received}. Let the data give {{{names}}}, or rename them "
            f"with preprocess=lambda inputs: {{{names}}}."
        ) from error
    found = []
    for info in infos:
        array = np.asarray(given[info.name])
        if not info.fits(array.shape):
            raise ValueError(
                f"The model {description.name!r} takes an input {info.name!r} of shape "
                f"{info.shape}. Received an array of shape {array.shape}. Change it with "
                "`preprocess`."
            )
        found.append(info.encoded(array))
    rows = {len(array) for array in found}
    if len(rows) != 1:
        raise ValueError(f"The inputs must have one batch size. Received: {sorted(rows)}")
    return found


def _without_rows(description: ModelDescription, names: list[str]) -> dict[str, np.ndarray]:
    """Outputs for a batch without samples, such as a replica's share of a small last batch."""
    shapes = {info.name: info.shape for info in description.outputs}
    return {
        name: np.zeros((0, *(size or 0 for size in shapes[name][1:])), np.float32) for name in names
    }


def _in_threads(call: Callable, parts: list[tuple], most: int) -> Any:
    """`call` of each part, in order; several at once."""
    if len(parts) == 1:
        return itertools.starmap(call, parts)
    with futures.ThreadPoolExecutor(min(len(parts), most)) as pool:
        return pool.map(lambda part: call(*part), parts)
