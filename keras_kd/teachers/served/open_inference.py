"""The Open Inference Protocol (KServe's v2: Triton, MLServer, KServe, OpenVINO, TorchServe)."""

import json
import urllib.parse
from typing import Any

import numpy as np

from keras_kd.runtimes.tensors import TensorInfo
from keras_kd.teachers.served import errors, messages
from keras_kd.teachers.served.addresses import Address
from keras_kd.teachers.served.description import Answer, ModelDescription, shape_of
from keras_kd.teachers.served.grpc_connection import GrpcConnection
from keras_kd.teachers.served.http import HttpConnection

_TYPES = {
    "BOOL": "bool", "UINT8": "uint8", "UINT16": "uint16", "UINT32": "uint32", "UINT64": "uint64",
    "INT8": "int8", "INT16": "int16", "INT32": "int32", "INT64": "int64", "FP16": "float16",
    "FP32": "float32", "FP64": "float64", "BF16": "bfloat16",
}  # fmt: skip
_NAMES = {dtype: name for name, dtype in _TYPES.items()}
_LENGTH = "Inference-Header-Content-Length"
# Triton's and KServe's name of the extension, and that of the specification's draft.
_BINARY = ("binary_tensor_data", "binary_data")
# The field of each type in a gRPC message whose contents are not raw.
_FIELDS = {
    "BOOL": "bool_contents", "UINT8": "uint_contents", "UINT16": "uint_contents",
    "UINT32": "uint_contents", "UINT64": "uint64_contents", "INT8": "int_contents",
    "INT16": "int_contents", "INT32": "int_contents", "INT64": "int64_contents",
    "FP32": "fp32_contents", "FP64": "fp64_contents",
}  # fmt: skip


class HttpClient:
    """A model behind a server that speaks the protocol over HTTP.

    Arrays are sent as JSON, or where the server says that it can as they are in memory.

    Args:
        address: The server's.
        model: The model's name.
        version: Its version; `None`: the one that the server chooses.
        connections: How many requests there may be at once.
    """

    def __init__(self, address: Address, model: str, version: str | None, connections: int) -> None:
        self._connection = HttpConnection(address, connections)
        self._version = version
        self._path = f"/v2/models/{urllib.parse.quote(model, safe='')}"
        if version is not None:
            self._path += f"/versions/{urllib.parse.quote(version, safe='')}"
        self._has_binary = False

    def describe(self, timeout: float) -> ModelDescription:
        """What the server says of the model."""
        server = self._connection.get("/v2", timeout)
        self._has_binary = any(each in _BINARY for each in server.get("extensions") or ())
        found = self._connection.get(self._path, timeout)
        for key in ("name", "inputs", "outputs"):
            if key not in found:
                raise errors.Unavailable(f"the description of the model lacks {key!r}: {found}")
        tensors = {
            key: [(each["name"], each["datatype"], each["shape"]) for each in found[key]]
            for key in ("inputs", "outputs")
        }
        return _described(found["name"], found.get("versions") or (), self._version, tensors)

    def predict(
        self,
        arrays: dict[str, np.ndarray],
        description: ModelDescription,
        names: list[str],
        timeout: float,
    ) -> Answer:
        """The model's outputs for a batch.

        Args:
            arrays: The inputs by name, in the types of the description.
            description: Of the model.
            names: The outputs that are wanted.
            timeout: In seconds.
        """
        del description  # the answer tells types and shapes itself
        send = self._send_binary if self._has_binary else self._send_json
        found, rest = send(arrays, names, timeout)
        try:
            outputs = _read_outputs(found, rest)
        except (KeyError, TypeError, ValueError) as error:
            raise errors.UnsoundAnswer(f"the answer cannot be read: {error!r}") from error
        return Answer(outputs, found.get("model_name") or "", found.get("model_version") or "")

    @property
    def connections(self) -> int:
        """A number that changes when the server may be another process than before."""
        return self._connection.made

    def close(self) -> None:
        """Closes the connections."""
        self._connection.close()

    def _send_json(self, arrays, names, timeout):
        inputs = [
            # Whatever type, `tolist` gives Python's numbers, which JSON writes without loss.
            {**_head(name, array), "data": array.ravel().tolist()}
            for name, array in arrays.items()
        ]
        content = {"inputs": inputs, "outputs": [{"name": name} for name in names]}
        return self._connection.post(f"{self._path}/infer", content, timeout), b""

    def _send_binary(self, arrays, names, timeout):
        raw = [_bytes(array) for array in arrays.values()]
        inputs = [
            {**_head(name, array), "parameters": {"binary_data_size": len(part)}}
            for (name, array), part in zip(arrays.items(), raw, strict=True)
        ]
        outputs = [{"name": name, "parameters": {"binary_data": True}} for name in names]
        head = json.dumps({"inputs": inputs, "outputs": outputs}).encode()
        headers = {"Content-Type": "application/octet-stream", _LENGTH: str(len(head))}
        body = b"".join([head, *raw])
        return self._connection.post_bytes(f"{self._path}/infer", body, headers, timeout, _LENGTH)


class GrpcClient:
    """A model behind a server that speaks the protocol over gRPC.

    Args:
        address: The server's.
        model: The model's name.
        version: Its version; `None`: the one that the server chooses.
        connections: Not used: one channel carries all requests.
    """

    def __init__(self, address: Address, model: str, version: str | None, connections: int) -> None:
        del connections
        self._connection = GrpcConnection(address)
        self._model, self._version = model, version
        self._messages = messages.open_inference()

    def describe(self, timeout: float) -> ModelDescription:
        """What the server says of the model."""
        request = self._messages.ModelMetadataRequest(name=self._model, version=self._version or "")
        found = self._call("ModelMetadata", request, self._messages.ModelMetadataResponse, timeout)
        tensors = {
            key: [(each.name, each.datatype, each.shape) for each in getattr(found, key)]
            for key in ("inputs", "outputs")
        }
        return _described(found.name, found.versions, self._version, tensors)

    def predict(
        self,
        arrays: dict[str, np.ndarray],
        description: ModelDescription,
        names: list[str],
        timeout: float,
    ) -> Answer:
        """The model's outputs for a batch: see `HttpClient.predict`."""
        del description
        request = self._messages.ModelInferRequest(
            model_name=self._model,
            model_version=self._version or "",
            inputs=[_head(name, array) for name, array in arrays.items()],
            outputs=[{"name": name} for name in names],
            raw_input_contents=[_bytes(array) for array in arrays.values()],
        )
        found = self._call("ModelInfer", request, self._messages.ModelInferResponse, timeout)
        raw = list(found.raw_output_contents)
        try:
            outputs = {
                each.name: _array(each.datatype, each.shape, raw[i]) if raw else _of_contents(each)
                for i, each in enumerate(found.outputs)
            }
        except (IndexError, KeyError, ValueError) as error:
            raise errors.UnsoundAnswer(f"the answer cannot be read: {error!r}") from error
        return Answer(outputs, found.model_name, found.model_version)

    @property
    def connections(self) -> int:
        """A number that changes when the server may be another process than before."""
        return self._connection.made

    def close(self) -> None:
        """Closes the channel."""
        self._connection.close()

    def _call(self, method, request, answer, timeout):
        path = f"/inference.GRPCInferenceService/{method}"
        return self._connection.call(path, request, answer, timeout)


def _described(name, versions, version, tensors):
    versions = list(versions)
    if version is None:
        version = versions[0] if len(versions) == 1 else ""
    elif versions and version not in versions:
        raise errors.OtherModel(f"it has the versions {versions} of {name!r}, not {version!r}")
    if not tensors["inputs"] or not tensors["outputs"]:
        raise errors.Rejected(
            f"it does not describe inputs and outputs of {name!r}: in MLServer's "
            "model-settings.json set `inputs` and `outputs`"
        )
    infos = {key: tuple(_info(*each) for each in found) for key, found in tensors.items()}
    return ModelDescription(name, version, infos["inputs"], infos["outputs"])


def _info(name: str, datatype: str, shape: Any) -> TensorInfo:
    if datatype not in _TYPES:
        raise errors.Rejected(
            f"tensor {name!r} is of type {datatype}, with which no teacher works here. Expected "
            f"one of {list(_TYPES)}; serve a model that takes numbers"
        )
    return TensorInfo(name, shape_of(shape), _TYPES[datatype])


def _head(name: str, array: np.ndarray) -> dict[str, Any]:
    return {"name": name, "datatype": _NAMES[array.dtype.name], "shape": list(array.shape)}


def _bytes(array: np.ndarray) -> bytes:
    """The numbers, little-endian and in C order, as the protocol has it."""
    array = np.ascontiguousarray(array)
    return array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()


def _array(datatype: str, shape: Any, raw: bytes) -> np.ndarray:
    return np.frombuffer(raw, np.dtype(_TYPES[datatype])).reshape([int(size) for size in shape])


def _read_outputs(found: dict[str, Any], rest: bytes) -> dict[str, np.ndarray]:
    outputs, start = {}, 0
    for each in found["outputs"]:
        size = (each.get("parameters") or {}).get("binary_data_size")
        if size is None:
            # `null` is how JSON writes NaN; the check of the answer then says so.
            values = np.asarray(each["data"], dtype=None)
            if values.dtype == object:
                values = values.astype(np.float64)
            array = values.astype(_TYPES[each["datatype"]]).reshape(each["shape"])
        else:
            array = _array(each["datatype"], each["shape"], rest[start : start + size])
            start += size
        outputs[each["name"]] = array
    return outputs


def _of_contents(tensor: Any) -> np.ndarray:
    values = getattr(tensor.contents, _FIELDS[tensor.datatype])
    return np.array(values, _TYPES[tensor.datatype]).reshape([int(size) for size in tensor.shape])
