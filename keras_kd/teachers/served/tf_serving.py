"""TensorFlow Serving's REST API and its PredictionService over gRPC."""

import urllib.parse
from typing import Any

import numpy as np
import tensorflow as tf

from keras_kd.runtimes.outputs import sort_names
from keras_kd.runtimes.tensors import TensorInfo
from keras_kd.teachers.served import errors, messages
from keras_kd.teachers.served.addresses import Address
from keras_kd.teachers.served.description import Answer, ModelDescription, shape_of
from keras_kd.teachers.served.grpc_connection import GrpcConnection
from keras_kd.teachers.served.http import HttpConnection

# TensorFlow's message of a tensor, which has no public name.
_TENSOR = type(tf.make_tensor_proto(0.0))


class HttpClient:
    """A signature of a SavedModel behind TensorFlow Serving's REST API.

    Its answers do not say which version has made them: each request names the one described.

    Args:
        address: The server's.
        model: The model's name.
        version: Its version; `None`: the one that the server has.
        connections: How many requests there may be at once.
        signature: The name of the signature.
    """

    def __init__(
        self, address: Address, model: str, version: str | None, connections: int, signature: str
    ) -> None:
        self._connection = HttpConnection(address, connections)
        self._version, self._signature = version, signature
        self._path = f"/v1/models/{urllib.parse.quote(model, safe='')}"

    def describe(self, timeout: float) -> ModelDescription:
        """What the server says of the model."""
        found = self._connection.get(f"{self._of_version(self._version)}/metadata", timeout)
        try:
            spec = found["model_spec"]
            signatures = found["metadata"]["signature_def"]["signature_def"]
            tensors = _signature(signatures, self._signature)
            inputs, outputs = (
                {name: _json_info(name, each) for name, each in tensors[key].items()}
                for key in ("inputs", "outputs")
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise errors.Unavailable(f"the metadata cannot be read: {error!r}") from error
        return _described(spec["name"], str(spec.get("version", "")), inputs, outputs)

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
            names: The outputs that are wanted; all come.
            timeout: In seconds.
        """
        del names
        content = {
            "signature_name": self._signature,
            "inputs": {name: array.tolist() for name, array in arrays.items()},
        }
        path = f"{self._of_version(description.version)}:predict"
        found = self._connection.post(path, content, timeout)
        if "outputs" not in found:
            raise errors.UnsoundAnswer(f"the answer has no 'outputs', but {sorted(found)}")
        infos, values = description.outputs, found["outputs"]
        if len(infos) == 1 and not isinstance(values, dict):
            values = {infos[0].name: values}
        try:
            outputs = {
                info.name: np.array(values[info.name], np.dtype(info.dtype))
                for info in infos
                if info.name in values
            }
        except (TypeError, ValueError) as error:
            raise errors.UnsoundAnswer(f"the answer cannot be read: {error!r}") from error
        return Answer(outputs)

    @property
    def connections(self) -> int:
        """A number that changes when the server may be another process than before."""
        return self._connection.made

    def close(self) -> None:
        """Closes the connections."""
        self._connection.close()

    def _of_version(self, version):
        return f"{self._path}/versions/{version}" if version else self._path


class GrpcClient:
    """A signature of a SavedModel behind TensorFlow Serving's PredictionService.

    Args:
        address: The server's.
        model: The model's name.
        version: Its version, a number; `None`: the one that the server has.
        connections: Not used: one channel carries all requests.
        signature: The name of the signature.
    """

    def __init__(
        self, address: Address, model: str, version: str | None, connections: int, signature: str
    ) -> None:
        del connections
        self._connection = GrpcConnection(address)
        self._model, self._version, self._signature = model, version, signature
        self._messages = messages.tf_serving()

    def describe(self, timeout: float) -> ModelDescription:
        """What the server says of the model."""
        request = self._messages.GetModelMetadataRequest(
            model_spec=self._spec(self._version), metadata_field=["signature_def"]
        )
        answer = self._messages.GetModelMetadataResponse
        found = self._call("GetModelMetadata", request, answer, timeout)
        spec = found.model_spec
        packed = {each.key: each.value.value for each in found.metadata}
        read = self._messages.SignatureDefMap.FromString(packed.get("signature_def", b""))
        signatures = {each.key: each.value for each in read.signature_def}
        # TensorFlow's own message of a signature, which is public as a field of this one only.
        signature = tf.compat.v1.MetaGraphDef().signature_def[self._signature]
        signature.ParseFromString(_signature(signatures, self._signature))
        inputs, outputs = (
            {name: _proto_info(name, each) for name, each in tensors.items()}
            for tensors in (signature.inputs, signature.outputs)
        )
        version = str(spec.version.value) if spec.HasField("version") else ""
        return _described(spec.name, version, inputs, outputs)

    def predict(
        self,
        arrays: dict[str, np.ndarray],
        description: ModelDescription,
        names: list[str],
        timeout: float,
    ) -> Answer:
        """The model's outputs for a batch: see `HttpClient.predict`."""
        request = self._messages.PredictRequest(
            model_spec=self._spec(description.version or None),
            inputs=[
                {"key": name, "value": tf.make_tensor_proto(array).SerializeToString()}
                for name, array in arrays.items()
            ],
            output_filter=names,
        )
        found = self._call("Predict", request, self._messages.PredictResponse, timeout)
        outputs = {each.key: _tensor(each.value) for each in found.outputs}
        spec = found.model_spec
        version = str(spec.version.value) if spec.HasField("version") else ""
        return Answer(outputs, spec.name, version)

    @property
    def connections(self) -> int:
        """A number that changes when the server may be another process than before."""
        return self._connection.made

    def close(self) -> None:
        """Closes the channel."""
        self._connection.close()

    def _spec(self, version):
        number = None if version is None else {"value": int(version)}
        return {"name": self._model, "version": number, "signature_name": self._signature}

    def _call(self, method, request, answer, timeout):
        path = f"/tensorflow.serving.PredictionService/{method}"
        return self._connection.call(path, request, answer, timeout)


def _signature(signatures: Any, name: str) -> Any:
    if name not in signatures:
        raise errors.Rejected(
            f"the model has no signature {name!r}, but {sorted(signatures)}: choose one with "
            "`signature`"
        )
    return signatures[name]


def _described(name, version, inputs, outputs):
    if not inputs or not outputs:
        raise errors.Rejected(f"the signature of {name!r} has no inputs, or no outputs")
    ordered = [tuple(found[key] for key in sort_names(found)) for found in (inputs, outputs)]
    return ModelDescription(name, version, *ordered)


def _json_info(name: str, tensor: dict[str, Any]) -> TensorInfo:
    shape = tensor["tensor_shape"]
    sizes = [each["size"] for each in shape.get("dim") or ()]
    number = tf.compat.v1.TensorInfo.DESCRIPTOR.fields_by_name["dtype"].enum_type
    kind = number.values_by_name[tensor["dtype"]].number
    return _info(name, kind, None if shape.get("unknown_rank") else sizes)


def _proto_info(name: str, tensor: Any) -> TensorInfo:
    shape = tensor.tensor_shape
    return _info(name, tensor.dtype, None if shape.unknown_rank else [x.size for x in shape.dim])


def _info(name: str, kind: int, sizes: list | None) -> TensorInfo:
    dtype = tf.dtypes.as_dtype(kind)
    if not (dtype.is_floating or dtype.is_integer or dtype.is_bool):
        raise errors.Rejected(
            f"tensor {name!r} is of type {dtype.name}, with which no teacher works here: serve a "
            "signature that takes and gives numbers"
        )
    if sizes is None:
        raise errors.Rejected(
            f"the shape of tensor {name!r} is not known: export the model with a signature whose "
            "inputs and outputs have a rank"
        )
    return TensorInfo(name, shape_of(sizes), dtype.name)


def _tensor(raw: bytes) -> np.ndarray:
    try:
        return tf.make_ndarray(_TENSOR.FromString(raw))
    except (TypeError, ValueError) as error:
        raise errors.UnsoundAnswer(f"a tensor cannot be read: {error!r}") from error
