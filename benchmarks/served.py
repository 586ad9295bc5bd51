"""How long the steps of `fit` wait for a served teacher: shares of the time, by requests in flight.

    python benchmarks/served.py [--seconds-per-batch 0.1] [--step 0.025] [--json FILE]

Two servers on loopback, each of which answers a batch after the given time, as one with its own GPU
would, and takes any number at once. A step is made to take at least `--step` seconds. Where
`in_flight` answers in the time of one need at most `in_flight` steps, the servers keep up.
"""

import argparse
import http.server
import json
import threading
import time

import keras
import numpy as np
import tensorflow as tf

import keras_kd as kd
from keras_kd.teachers import prefetch

FEATURES, CLASSES, BATCH, STEPS = 64, 100, 32, 200
KERNEL = np.random.default_rng(0).normal(size=(FEATURES, CLASSES)).astype("float32")
DESCRIPTION = {
    "name": "m",
    "versions": ["1"],
    "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, FEATURES]}],
    "outputs": [{"name": "logits", "datatype": "FP32", "shape": [-1, CLASSES]}],
}


class Handler(http.server.BaseHTTPRequestHandler):
    """The Open Inference Protocol with JSON, slow by `seconds`."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    seconds = 0.0

    def log_message(self, *args):
        pass

    def reply(self, content):
        body = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        self.reply(DESCRIPTION)

    def do_POST(self):
        content = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        given = content["inputs"][0]
        x = np.array(given["data"], "float32").reshape(given["shape"])
        time.sleep(self.seconds)
        found = x @ KERNEL
        output = {"name": "logits", "datatype": "FP32", "shape": list(found.shape)}
        self.reply({"model_name": "m", "outputs": [{**output, "data": found.ravel().tolist()}]})


class Share(keras.callbacks.Callback):
    """Adds up from the end of each step until the batch of the next one is there.

    Args:
        step: Seconds that are added to each step.
    """

    def __init__(self, step):
        super().__init__()
        self.step, self.waited, self.total = step, 0.0, 0.0
        self.free = self.came = None

    def delivered(self):
        self.came = self.came or time.perf_counter()

    def on_train_batch_end(self, batch, logs=None):
        # Asleep, not busy: a step on a GPU leaves the CPU to the pipeline.
        time.sleep(self.step)
        now = time.perf_counter()
        if batch >= 20:  # the first ones are traced
            self.waited += 0.0 if self.came is None else max(self.came - self.free, 0.0)
            self.total += now - self.free
        self.free, self.came = now, None


def share(urls, in_flight, step):
    """The share of the time that steps wait."""
    teacher = kd.teachers.Served(urls, "m", in_flight=in_flight)
    student = keras.Sequential([keras.Input((FEATURES,)), keras.layers.Dense(CLASSES)])
    distiller = kd.Distiller(teacher, student, alpha=0.0, beta=1.0)
    distiller.compile("sgd", None, jit_compile=False)
    x = np.random.default_rng(1).normal(size=(BATCH * STEPS, FEATURES)).astype("float32")
    data = tf.data.Dataset.from_tensor_slices(x).batch(BATCH)
    waiting = Share(step)
    distiller.checks_first_batch = False
    asked = prefetch.with_teacher(distiller, data, waiting.delivered)
    distiller.fit(asked, callbacks=[waiting], verbose=0)
    found = teacher.statistics()
    teacher.close()
    return {
        "in_flight": in_flight,
        "share": waiting.waited / waiting.total,
        "seconds_per_request": found["seconds"] / found["requests"],
        "milliseconds_per_step": 1e3 * waiting.total / (STEPS - 20),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds-per-batch", type=float, default=0.1)
    parser.add_argument("--step", type=float, default=0.025)
    parser.add_argument("--json")
    options = parser.parse_args()
    Handler.seconds = options.seconds_per_batch
    servers = [http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) for _ in range(2)]
    for server in servers:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
    urls = [f"http://127.0.0.1:{server.server_address[1]}" for server in servers]
    rows = [share(urls, in_flight, options.step) for in_flight in (1, 2, 4, 8)]
    for row in rows:
        print(
            f"in_flight={row['in_flight']}: {row['share']:.1%} of the time waiting, "
            f"{row['milliseconds_per_step']:.1f} ms a step, "
            f"{1e3 * row['seconds_per_request']:.0f} ms a request"
        )
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(rows, file)
    for server in servers:
        server.shutdown()


if __name__ == "__main__":
    main()
