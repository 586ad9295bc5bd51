"""Small servers on loopback, of both protocols and transports, that fail on request.

They run in threads of the test's process: what is killed is their socket, in the middle of whatever
they do. Their model is a function of NumPy arrays.
"""

import collections
import contextlib
import http.server
import json
import socket
import struct
import sys
import threading
import time
from concurrent import futures

import numpy as np
import tensorflow as tf

from tests import extras
from tests.cache import caches

KERNEL = np.random.default_rng(4).normal(size=(caches.FEATURES, caches.CLASSES)).astype("float32")
PROBE_ROWS = 2
TYPES = {"float32": "FP32", "float64": "FP64", "int64": "INT64", "int32": "INT32"}
HTML = b"<!DOCTYPE html>\n<html><title>502 Bad Gateway</title></html>"


class Model:
    """A model: a function from a dict of arrays to another, and what is said of it."""

    def __init__(self, function=None, name="m", version="1", inputs=None, outputs=None):
        self.function = function or (lambda x: {"logits": x["x"] @ KERNEL})
        self.name, self.version = name, version
        self.inputs = inputs or {"x": ("float32", [-1, caches.FEATURES])}
        self.outputs = outputs or {"logits": ("float32", [-1, caches.CLASSES])}


class Server:
    """What servers of all kinds share: faults, a count, a beginning and an end.

    Args:
        model: The `Model`.
        port: The port; 0: any that is free.
    """

    scheme = "http"

    def __init__(self, model=None, port=0):
        self.model = model or Model()
        self.port = port
        self.faults = collections.deque()  # of the next requests for outputs, one each
        self.always = None  # of all of them
        self.requests = []  # rows of each request for outputs
        self.at_once = self.most_at_once = 0
        self.gather = 0  # so many requests must be there at once before one is answered
        self._lock = threading.Condition()
        self.start()

    @property
    def url(self):
        return f"{self.scheme}://127.0.0.1:{self.port}"

    def fault(self):
        with self._lock:
            return self.faults.popleft() if self.faults else self.always

    @contextlib.contextmanager
    def counting(self, rows):
        with self._lock:
            self.requests.append(rows)
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
            self._lock.notify_all()
            if rows != PROBE_ROWS:
                self._lock.wait_for(lambda: self.most_at_once >= self.gather, timeout=10)
        try:
            yield
        finally:
            with self._lock:
                self.at_once -= 1

    def outputs(self, inputs, fault):
        """What the model, or a fault of it, gives."""
        if isinstance(fault, float):
            time.sleep(fault)
        found = self.model.function(inputs)
        name = next(iter(found))
        if fault == "nan":
            found[name] = np.where(np.arange(found[name].shape[-1]) == 1, np.nan, found[name])
        elif fault == "rows":
            found[name] = found[name][:-1]
        elif fault == "shape":
            found[name] = found[name][:, :-1]
        elif fault == "type":
            found[name] = found[name].astype("float64")
        elif fault == "name":
            found = {"other": found[name]}
        wanted = "float64" if fault == "type" else self.model.outputs[name][0]
        return {key: value.astype(wanted) for key, value in found.items()}

    def version_of(self, fault):
        return "7" if fault == "version" else self.model.version


class HttpServer(Server):
    """Over HTTP; `protocol` is `"open_inference"` or `"tf_serving"`.

    Args:
        model: The `Model`.
        protocol: The protocol.
        has_binary: Whether it takes arrays in bytes.
        most: The most samples of a request.
        port: The port.
    """

    def __init__(self, model=None, protocol="open_inference", has_binary=False, most=10**6, port=0):
        self.protocol, self.has_binary, self.most = protocol, has_binary, most
        super().__init__(model, port)

    def start(self):
        server = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def log_message(self, *args):
                pass

            def do_GET(self):
                status, content = server.described(self.path)
                self.reply(status, json.dumps(content).encode())

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                server.answer(self, body)

            def reply(self, status, body, kind="application/json", length=None, **headers):
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(length or len(body)))
                for name, value in headers.items():
                    self.send_header(name.replace("_", "-"), value)
                self.end_headers()
                self.wfile.write(body)
                self.wfile.flush()

        self._server = _Threaded(("127.0.0.1", self.port), Handler)
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def stop(self):
        """As if the process were killed: nothing listens, and open connections break."""
        self._server.shutdown()
        self._thread.join()
        self._server.kill()

    # What it says.

    def described(self, path):
        model = self.model
        if self.always == "no model":
            return 404, {"error": f"Model {model.name} not found"}
        if self.protocol == "tf_serving":
            if not path.startswith(f"/v1/models/{model.name}"):
                return 404, {"error": "Servable not found for request"}
            return 200, {
                "model_spec": {"name": model.name, "signature_name": "", "version": model.version},
                "metadata": {"signature_def": {"signature_def": {"serving_default": {
                    "inputs": _signature(model.inputs), "outputs": _signature(model.outputs),
                    "method_name": "tensorflow/serving/predict",
                }}}},
            }  # fmt: skip
        if path == "/v2":
            extensions = ["binary_tensor_data"] if self.has_binary else []
            return 200, {"name": "test", "version": "0", "extensions": extensions}
        if not path.startswith(f"/v2/models/{model.name}"):
            return 404, {"error": f"Model {path} not found"}
        return 200, {
            "name": model.name, "versions": [model.version], "platform": "",
            "inputs": _tensors(model.inputs), "outputs": _tensors(model.outputs),
        }  # fmt: skip

    # What it answers.

    def answer(self, handler, body):
        fault = self.fault()
        head = handler.headers.get("Inference-Header-Content-Length")
        content = json.loads(body if head is None else body[: int(head)])
        inputs = self._inputs(content, b"" if head is None else body[int(head) :])
        rows = len(next(iter(inputs.values())))
        with self.counting(rows):
            if rows > self.most:
                error = {"error": f"batch of {rows}, at most {self.most}"}
                return handler.reply(400, json.dumps(error).encode())
            if fault == "500":
                return handler.reply(500, b'{"error": "out of memory"}')
            if fault == "400":
                return handler.reply(400, b'{"error": "unexpected inference input"}')
            if fault == "html":
                return handler.reply(200, HTML, "text/html")
            found = self.outputs(inputs, fault)
            parts, extra = self._parts(found, fault, head is not None)
            answered = b"".join(parts)
            if fault == "broken":
                handler.reply(200, answered[: len(answered) // 2], length=len(answered))
                return _break(handler.connection)
            if fault == "trickle":
                handler.reply(200, b"", length=len(answered))
                with contextlib.suppress(OSError):  # the client has gone by then
                    for byte in answered:
                        handler.wfile.write(bytes([byte]))
                        handler.wfile.flush()
                        time.sleep(0.02)
                return None
            return handler.reply(200, answered, **extra)

    def _inputs(self, content, rest):
        if self.protocol == "tf_serving":
            return {
                name: np.array(content["inputs"][name], dtype)
                for name, (dtype, _) in self.model.inputs.items()
            }
        found = {}
        for each in content["inputs"]:
            dtype = next(name for name, given in TYPES.items() if given == each["datatype"])
            size = each.get("parameters", {}).get("binary_data_size")
            if size is None:
                found[each["name"]] = np.array(each["data"], dtype).reshape(each["shape"])
            else:
                array = np.frombuffer(rest[:size], dtype).reshape(each["shape"])
                found[each["name"]], rest = array, rest[size:]
        return found

    def _parts(self, found, fault, is_binary):
        """The parts of the body, and headers."""
        if self.protocol == "tf_serving":
            lists = {name: array.tolist() for name, array in found.items()}
            outputs = next(iter(lists.values())) if len(lists) == 1 else lists
            return [json.dumps({"outputs": outputs}).encode()], {}
        raw = [array.tobytes() for array in found.values()] if is_binary else []
        outputs = []
        for i, (name, array) in enumerate(found.items()):
            head = {"name": name, "datatype": TYPES[array.dtype.name], "shape": list(array.shape)}
            if is_binary:
                data = {"parameters": {"binary_data_size": len(raw[i])}}
            else:
                numbers = array.ravel().tolist()
                data = {"data": [x if np.isfinite(x) else None for x in numbers]}
            outputs.append({**head, **data})
        name = "other" if fault == "model" else self.model.name
        content = {"model_name": name, "model_version": self.version_of(fault), "outputs": outputs}
        body = json.dumps(content).encode()
        extra = {"Inference_Header_Content_Length": str(len(body))} if is_binary else {}
        return [body, *raw], extra


class _Threaded(http.server.ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 64

    def __init__(self, *args):
        self.connections = set()
        super().__init__(*args)

    def get_request(self):
        connection, address = super().get_request()
        self.connections.add(connection)
        return connection, address

    def shutdown_request(self, request):
        self.connections.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request, client_address):
        """Clients go away, and killed servers break their own connections."""

    def kill(self):
        self.server_close()
        for connection in list(self.connections):
            _break(connection)


def _break(connection):
    """Ends a connection as a killed process does: what was on its way is lost."""
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.shutdown(socket.SHUT_RDWR)


def _tensors(declared):
    return [
        {"name": name, "datatype": TYPES[dtype], "shape": shape}
        for name, (dtype, shape) in declared.items()
    ]


def _signature(declared):
    return {
        name: {
            "dtype": f"DT_{ {'float32': 'FLOAT', 'int64': 'INT64', 'int32': 'INT32'}[dtype] }",
            "tensor_shape": {
                "dim": [{"size": str(size), "name": ""} for size in shape],
                "unknown_rank": False,
            },
            "name": f"{name}:0",
        }
        for name, (dtype, shape) in declared.items()
    }


class TFServingGrpcServer(Server):
    """TensorFlow Serving's PredictionService, by the messages that its authors generated."""

    scheme = "grpc"

    def start(self):
        grpc, apis = extras.require("grpc"), tf_serving_apis()
        server = self

        class Service(apis.prediction_service_pb2_grpc.PredictionServiceServicer):
            def GetModelMetadata(self, request, context):  # noqa: N802
                return server.described(request, context)

            def Predict(self, request, context):  # noqa: N802
                return server.answer(request, context)

        self._server = grpc.server(
            futures.ThreadPoolExecutor(16), options=[("grpc.so_reuseport", 0)]
        )
        apis.prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(
            Service(), self._server
        )
        self.port = self._server.add_insecure_port(f"127.0.0.1:{self.port}")
        self._server.start()
        self._apis, self._grpc = apis, grpc

    def stop(self):
        self._server.stop(None).wait()

    def described(self, request, context):
        model, apis = self.model, self._apis
        if request.model_spec.name != model.name:
            context.abort(self._grpc.StatusCode.NOT_FOUND, "Servable not found")
        found = apis.get_model_metadata_pb2.GetModelMetadataResponse()
        found.model_spec.name = model.name
        found.model_spec.version.value = int(model.version)
        signatures = apis.get_model_metadata_pb2.SignatureDefMap()
        signature = signatures.signature_def["serving_default"]
        for tensors, declared in (
            (signature.inputs, model.inputs), (signature.outputs, model.outputs),
        ):  # fmt: skip
            for name, (dtype, shape) in declared.items():
                tensors[name].dtype = tf.dtypes.as_dtype(dtype).as_datatype_enum
                for size in shape:
                    tensors[name].tensor_shape.dim.add(size=size)
        found.metadata["signature_def"].Pack(signatures)
        return found

    def answer(self, request, context):
        fault = self.fault()
        inputs = {name: tf.make_ndarray(each) for name, each in request.inputs.items()}
        with self.counting(len(next(iter(inputs.values())))):
            if fault == "500":
                context.abort(self._grpc.StatusCode.INTERNAL, "out of memory")
            if fault == "400":
                context.abort(self._grpc.StatusCode.INVALID_ARGUMENT, "input size does not match")
            found = self._apis.predict_pb2.PredictResponse()
            for name, array in self.outputs(inputs, fault).items():
                found.outputs[name].CopyFrom(tf.make_tensor_proto(array))
            found.model_spec.name = "other" if fault == "model" else self.model.name
            found.model_spec.version.value = int(self.version_of(fault))
            return found


class _Apis:
    """The generated modules of tensorflow-serving-api."""

    def __init__(self):
        folder = str(extras.require_folder("tf_serving_api"))
        sys.path.append(folder)
        try:
            # Their descriptors go into the process's own pool: once, whoever asks.
            from tensorflow_serving.apis import (
                get_model_metadata_pb2,
                predict_pb2,
                prediction_service_pb2_grpc,
            )
        finally:
            sys.path.remove(folder)
        self.get_model_metadata_pb2 = get_model_metadata_pb2
        self.predict_pb2 = predict_pb2
        self.prediction_service_pb2_grpc = prediction_service_pb2_grpc


def tf_serving_apis():
    return _Apis()


@contextlib.contextmanager
def running(*servers):
    """Stops servers that still run at the end."""
    try:
        yield servers
    finally:
        for server in servers:
            with contextlib.suppress(OSError):
                server.stop()


def linear_teacher():
    """The same model in the process."""
    import keras_kd as kd

    class Linear(kd.teachers.HostTeacher):
        def predict(self, inputs, layers=()):
            return inputs @ KERNEL, {}

    return Linear()
