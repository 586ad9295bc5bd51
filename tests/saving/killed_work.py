"""A process that imports TensorFlow once, and is forked for each piece of work that is killed.

`python -m tests.saving.killed_work` reads lines of JSON, `{"work", "folder", "events",
"options"}`, and answers each with a line. The work is killed (SIGKILL) at its event of that number:
a step of training, or something that it does to files in the folder. None of these is a matter of
time, so the same numbers kill at the same moments.
"""

import json
import os
import pathlib
import signal
import sys
import traceback

import h5py
import keras
import numpy as np
import tensorflow as tf

import keras_kd as kd
from keras_kd._utils.files import replace_atomically

_OF_FILES = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate", "shutil.rmtree"}


class Events:
    """Counts what happens, and kills the process at one of the events."""

    def __init__(self, folder, last):
        self.count, self._folder, self._last = 0, os.fspath(folder), last
        self._dies = False

    def happens(self, opened=None):
        if self._dies:
            return
        self.count += 1
        if self.count == self._last:
            self._dies = True
            if opened is not None:  # the moment after it was opened, and before it was written
                os.close(os.open(opened, os.O_WRONLY | os.O_CREAT | os.O_TRUNC))
            os.kill(os.getpid(), signal.SIGKILL)

    def of_system(self, name, arguments):
        """An audit hook of Python."""
        if name == "open":
            path, mode, flags = arguments
            writes = any(char in (mode or "") for char in "wxa+") or flags & os.O_CREAT
            if writes and self._is_inside(path):
                self.happens(opened=path)
        elif name in _OF_FILES and self._is_inside(arguments[0]):
            self.happens()

    def _is_inside(self, path):
        return isinstance(path, (str, os.PathLike)) and os.fspath(path).startswith(self._folder)

    def watch_hdf5(self):
        """HDF5 writes in C, where no hook sees it: each array of a file is an event."""
        create = h5py.Group.create_dataset

        def counted(*args, **kwargs):
            self.happens()
            return create(*args, **kwargs)

        h5py.Group.create_dataset = counted


class Steps(keras.callbacks.Callback):
    """Each step of training is an event."""

    def __init__(self, events):
        super().__init__()
        self._events = events

    def __deepcopy__(self, memo):
        return self

    def on_train_batch_end(self, batch, logs=None):
        self._events.happens()


def _data():
    generator = np.random.default_rng(0)
    x = generator.normal(size=(24, 5)).astype("float32")
    return x, generator.integers(0, 3, 24)


def _network(width):
    layers = [keras.layers.Dense(width, "relu"), keras.layers.Dropout(0.3), keras.layers.Dense(3)]
    return keras.Sequential([keras.Input((5,)), *layers])


def _compiled():
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    return {"optimizer": keras.optimizers.Adam(0.01), "loss": loss, "run_eagerly": True}


def _keep(folder, model):
    with replace_atomically(folder / "result.npz") as partial:
        np.savez(partial, *model.get_weights())


def fit(folder, events, is_endless=False, **options):
    """A training with `BackupAndRestore`; its weights are the result."""
    student = _network(3)
    distiller = kd.Distiller(kd.teachers.EMA(student), student, alpha=0.3)
    distiller.compile(**_compiled())
    backup = keras.callbacks.BackupAndRestore(folder / "backup", **options)
    callbacks = [Steps(events), kd.callbacks.TemperatureSchedule(5.0, 2.0, by="step"), backup]
    x, y = _data()
    rows = {"batch_size": 4}
    if is_endless:
        x = tf.data.Dataset.from_tensor_slices((x, y)).batch(4).repeat()
        y, rows = None, {"steps_per_epoch": 6}
    distiller.fit(x, y, epochs=3, callbacks=callbacks, shuffle=False, verbose=0, **rows)
    _keep(folder, distiller)


def born_again(folder, events):
    """Two generations in a folder."""
    made = kd.BornAgain(_network(3), generations=2, directory=folder / "models")
    made.compile(**_compiled())
    rows = {"batch_size": 8, "verbose": 0}
    report = made.fit(*_data(), epochs=1, callbacks=[Steps(events)], **rows)
    _keep(folder, report.students[-1])


def report(folder, events):
    """A report with trainings, written as a page and as JSON."""

    def train(model):
        model.compile(**_compiled())
        model.fit(*_data(), batch_size=8, verbose=0, callbacks=[Steps(events)])

    found = kd.report(
        _network(4),
        make_student=lambda: _network(3),
        train=train,
        seeds=1,
        data=_data(),
        latency=False,
        directory=folder,
        verbose=False,
    )
    found.save_html(folder / "report.html")
    found.save_json(folder / "report.json")


def to_tflite(folder, events):
    """An export over one that is there."""
    del events
    for _ in range(2):
        kd.export.to_tflite(_network(3), folder / "student.tflite", overwrite=True)


def to_onnx(folder, events):
    """An export over one that is there."""
    del events
    for _ in range(2):
        kd.export.to_onnx(_network(3), folder / "student.onnx", overwrite=True)


def distill(folder, events, config):
    """A run of a configuration, which goes on where there is one."""
    # Imported here: the other works do without the extra.
    from keras_kd.runs import folder as folders
    from keras_kd.runs import reading, run, samples

    samples.EpochOrder.on_train_batch_end = lambda self, batch, logs=None: events.happens()
    tf.config.experimental.enable_op_determinism()
    resume = folders.RunFolder(folder).is_begun()
    run.distill(reading.read(config), folder, resume=resume, quiet=True)


WORKS = {each.__name__: each for each in (fit, born_again, report, to_tflite, to_onnx, distill)}


def _forked(request):
    """Does a piece of work in a process of its own; says how it ended."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        code = 1
        try:
            folder = pathlib.Path(request["folder"])
            folder.mkdir(parents=True, exist_ok=True)
            events = Events(folder, request.get("events"))
            sys.addaudithook(events.of_system)
            events.watch_hdf5()
            keras.utils.set_random_seed(1)
            WORKS[request["work"]](folder, events, **request.get("options", {}))
            os.write(writing, json.dumps({"events": events.count}).encode())
            code = 0
        except BaseException:  # noqa: BLE001 the parent reports it
            os.write(writing, json.dumps({"error": traceback.format_exc()[-4000:]}).encode())
        finally:
            os._exit(code)  # nothing of the parent's is ended twice
    os.close(writing)
    with os.fdopen(reading) as file:
        said = file.read()
    _, status = os.waitpid(child, 0)
    is_killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    return {"killed": is_killed, **json.loads(said or "{}")}


if __name__ == "__main__":
    for line in sys.stdin:
        print("answer " + json.dumps(_forked(json.loads(line))), flush=True)
