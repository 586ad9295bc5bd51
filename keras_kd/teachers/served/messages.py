"""The messages of both protocols that are needed here, declared in Python.

Neither tritonclient nor tensorflow-serving-api, which asks for a TensorFlow of its own, is needed.
The descriptors have a pool of their own and meet no other copy of these packages. Fields that are
not declared are skipped when a message is read. A map is a repeated message of key and value, and
a message that is handed on unread is `bytes`: on the wire these are the same.
"""

import functools
import types
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

# A field is `name number type`; `*` behind the type: repeated.
_OPEN_INFERENCE = {
    "ServerMetadataRequest": "",
    "ServerMetadataResponse": "name 1 string, version 2 string, extensions 3 string*",
    "ModelMetadataRequest": "name 1 string, version 2 string",
    "TensorMetadata": "name 1 string, datatype 2 string, shape 3 int64*",
    "ModelMetadataResponse": (
        "name 1 string, versions 2 string*, platform 3 string, inputs 4 TensorMetadata*, "
        "outputs 5 TensorMetadata*"
    ),
    "Contents": (
        "bool_contents 1 bool*, int_contents 2 int32*, int64_contents 3 int64*, "
        "uint_contents 4 uint32*, uint64_contents 5 uint64*, fp32_contents 6 float*, "
        "fp64_contents 7 double*, bytes_contents 8 bytes*"
    ),
    "Tensor": "name 1 string, datatype 2 string, shape 3 int64*, contents 5 Contents",
    "RequestedOutput": "name 1 string",
    "ModelInferRequest": (
        "model_name 1 string, model_version 2 string, id 3 string, inputs 5 Tensor*, "
        "outputs 6 RequestedOutput*, raw_input_contents 7 bytes*"
    ),
    "ModelInferResponse": (
        "model_name 1 string, model_version 2 string, id 3 string, outputs 5 Tensor*, "
        "raw_output_contents 6 bytes*"
    ),
}
_TF_SERVING = {
    "Version": "value 1 int64",
    "ModelSpec": "name 1 string, version 2 Version, signature_name 3 string",
    "TensorEntry": "key 1 string, value 2 bytes",
    "PredictRequest": "model_spec 1 ModelSpec, inputs 2 TensorEntry*, output_filter 3 string*",
    "PredictResponse": "outputs 1 TensorEntry*, model_spec 2 ModelSpec",
    "GetModelMetadataRequest": "model_spec 1 ModelSpec, metadata_field 2 string*",
    "Any": "type_url 1 string, value 2 bytes",
    "MetadataEntry": "key 1 string, value 2 Any",
    "GetModelMetadataResponse": "model_spec 1 ModelSpec, metadata 2 MetadataEntry*",
    "SignatureEntry": "key 1 string, value 2 bytes",
    "SignatureDefMap": "signature_def 1 SignatureEntry*",
}


@functools.cache
def open_inference() -> types.SimpleNamespace:
    """The messages of the Open Inference Protocol, by name."""
    return _made("inference", _OPEN_INFERENCE)


@functools.cache
def tf_serving() -> types.SimpleNamespace:
    """The messages of TensorFlow Serving's PredictionService, by name."""
    return _made("tensorflow.serving", _TF_SERVING)


def _made(package: str, declared: dict[str, str]) -> types.SimpleNamespace:
    file = descriptor_pb2.FileDescriptorProto(
        name=f"keras_kd/{package}.proto", package=package, syntax="proto3"
    )
    for name, fields in declared.items():
        message = file.message_type.add(name=name)
        for field in filter(None, fields.split(", ")):
            _add_field(message, package, *field.split())
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return types.SimpleNamespace(
        **{
            name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{package}.{name}"))
            for name in declared
        }
    )


def _add_field(message: Any, package: str, name: str, number: str, kind: str) -> None:
    field = message.field.add(name=name, number=int(number))
    field.label = field.LABEL_REPEATED if kind.endswith("*") else field.LABEL_OPTIONAL
    kind = kind.rstrip("*")
    if kind[0].isupper():
        field.type, field.type_name = field.TYPE_MESSAGE, f".{package}.{kind}"
    else:
        field.type = getattr(field, f"TYPE_{kind.upper()}")
