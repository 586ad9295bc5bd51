"""A real server of the Open Inference Protocol, MLServer, which runs an ONNX file."""

import json
import os
import pathlib
import shutil
import socket
import subprocess
import time
import urllib.request

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_kd as kd
from tests import extras
from tests.cache import caches

extras.require("onnxruntime")
extras.require("urllib3")
HERE = pathlib.Path(__file__).parent
# It ends with this process: its standard input is then closed.
START = (
    "import os, sys, threading\n"
    "end = lambda: (sys.stdin.read(), os._exit(0))\n"
    "threading.Thread(target=end, daemon=True).start()\n"
    "from mlserver.cli import main\n"
    "main()"
)
ROWS, STEPS = 640, 80


def free_ports(count):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


class MLServer:
    """A process of MLServer.

    Args:
        folder: A folder of its own, for settings and its log.
        file: The ONNX file.
    """

    def __init__(self, folder, file):
        self.folder = folder
        self.http, self.grpc, metrics = free_ports(3)
        (folder / "model").mkdir(parents=True)
        shutil.copy(HERE / "mlserver_onnx.py", folder / "model")
        settings = {
            "host": "127.0.0.1", "http_port": self.http, "grpc_port": self.grpc,
            "metrics_port": metrics, "parallel_workers": 0, "debug": False,
        }  # fmt: skip
        model = {
            "name": "net",
            "implementation": "mlserver_onnx.OnnxModel",
            "versions": ["v1"],
            "parameters": {"uri": str(file), "version": "v1"},
            "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, caches.FEATURES]}],
            "outputs": [
                {"name": "logits", "datatype": "FP32", "shape": [-1, caches.CLASSES]},
                {"name": "hidden", "datatype": "FP32", "shape": [-1, 16]},
            ],
        }
        (folder / "settings.json").write_text(json.dumps(settings))
        (folder / "model" / "model-settings.json").write_text(json.dumps(model))
        self.start()

    def start(self):
        python = extras.require_folder("mlserver") / "bin" / "python"
        # One file for all starts: what went wrong is at its end.
        with open(self.folder / "log", "ab") as log:
            self.process = subprocess.Popen(
                [python, "-c", START, "start", str(self.folder)],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env={"PATH": os.environ["PATH"], "HOME": str(self.folder), "OMP_NUM_THREADS": "1"},
            )

    def wait(self):
        """Until it is ready."""
        end = time.monotonic() + 120
        while time.monotonic() < end:
            assert self.process.poll() is None, self.log()
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.http}/v2/health/ready") as got:
                    if got.status == 200:
                        return
            except OSError:
                time.sleep(0.1)
        raise AssertionError(self.log())

    def log(self):
        return (self.folder / "log").read_text()[-4000:]

    def kill(self):
        """As a machine's out-of-memory killer does: signal 9."""
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """An ONNX file: two layers, and the first one's values as a second output."""
    onnx = extras.require("onnx")
    rng = np.random.default_rng(7)
    one, two = rng.normal(size=(caches.FEATURES, 16)), rng.normal(size=(16, caches.CLASSES))
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "one"], ["sum"]),
            helper.make_node("Tanh", ["sum"], ["hidden"]),
            helper.make_node("MatMul", ["hidden", "two"], ["logits"]),
        ],
        "net",
        [helper.make_tensor_value_info("x", kind, ["batch", caches.FEATURES])],
        [
            helper.make_tensor_value_info("logits", kind, ["batch", caches.CLASSES]),
            helper.make_tensor_value_info("hidden", kind, ["batch", 16]),
        ],
        [
            onnx.numpy_helper.from_array(one.astype("float32"), "one"),
            onnx.numpy_helper.from_array(two.astype("float32"), "two"),
        ],
    )
    opset = [helper.make_opsetid("", 17)]
    path = tmp_path_factory.mktemp("file") / "net.onnx"
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), path)
    return path


@pytest.fixture(scope="module")
def servers(file, tmp_path_factory):
    pair = [MLServer(tmp_path_factory.mktemp("server") / "s", file) for _ in range(2)]
    try:
        for server in pair:
            server.wait()
        yield pair
    finally:
        for server in pair:
            server.kill()


def urls(servers, scheme):
    ports = [server.http if scheme == "http" else server.grpc for server in servers]
    return [f"{scheme}://127.0.0.1:{port}" for port in ports]


@pytest.mark.parametrize("scheme", ["http", "grpc"])
def test_it_gives_what_onnx_runtime_gives_in_the_process(servers, file, scheme):
    x, _ = caches.arrays()
    teacher = kd.teachers.Served(urls(servers, scheme), "net", output="logits")
    here = kd.teachers.OnnxTeacher(file, output="logits", threads=1)
    outputs, taps = teacher.predict(x, ["hidden"])
    expected, expected_taps = here.predict(x, ["hidden"])
    np.testing.assert_array_equal(outputs, expected)
    np.testing.assert_array_equal(taps["hidden"], expected_taps["hidden"])
    assert (teacher.description.name, teacher.description.version) == ("net", "v1")
    assert teacher.output_names == ["logits"]
    teacher.close()


@pytest.mark.parametrize("scheme", ["http", "grpc"])
def test_what_it_refuses_raises(servers, scheme):
    with pytest.raises(ValueError, match=r"cannot be a server.*[Mm]odel absent.* not found"):
        kd.teachers.Served(urls(servers, scheme), "absent").bind(None)
    with pytest.raises(ValueError, match="cannot be a server.*v2 not found"):
        kd.teachers.Served(urls(servers, scheme), "net", version="v2").bind(None)


class Killing(keras.callbacks.Callback):
    """Kills and restarts both servers in turn, while `fit` goes on."""

    def __init__(self, servers):
        super().__init__()
        one, two = servers
        self.actions = {
            5: [one.kill],
            10: [one.start],
            35: [one.wait, two.kill],
            40: [two.start],
            70: [two.wait, one.kill],
            75: [one.start],
        }

    def on_train_batch_end(self, batch, logs=None):
        for action in self.actions.pop(batch, ()):
            action()


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["http", "grpc"])
def test_the_student_is_the_same_while_servers_are_killed(servers, file, scheme):
    for server in servers:
        server.wait()
    x, y = caches.arrays(ROWS)
    data = tf.data.Dataset.from_tensor_slices((x, y)).batch(ROWS // STEPS)
    weights = []
    served = kd.teachers.Served(
        urls(servers, scheme), "net", output="logits", timeout=10, give_up_after=120, pause=0.2
    )
    killing = Killing(servers)
    for teacher, callbacks in (
        (kd.teachers.OnnxTeacher(file, output="logits", threads=1), []),
        (served, [killing]),
    ):
        distiller = kd.Distiller(teacher, caches.model(2))
        distiller.compile(keras.optimizers.Adam(0.01), caches.from_logits(), jit_compile=False)
        distiller.fit(data, callbacks=callbacks, verbose=0)
        weights.append(distiller.student.get_weights())
    for one, other in zip(*weights, strict=True):
        np.testing.assert_array_equal(one, other)
    assert killing.actions == {}
    statistics = served.statistics()
    assert statistics["retries"] >= 1
    assert all(each["failures"] for each in statistics["servers"].values())
    served.close()
