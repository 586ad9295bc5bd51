"""Servers that fail, or are killed, while a student is taught."""

import contextlib
import os
import re

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_kd as kd
from tests import extras
from tests.cache import caches
from tests.teachers import serving

extras.require("urllib3")

QUICK = {"timeout": 5.0, "give_up_after": 20.0, "pause": 0.02}


def served(*servers, connects=True, **options):
    urls = [server.url for server in servers]
    protocol = getattr(servers[0], "protocol", "tf_serving")
    teacher = kd.teachers.Served(urls, "m", protocol, **{**QUICK, **options})
    if connects:
        teacher.bind(None)
    return teacher


@pytest.fixture
def pair():
    with serving.running(serving.HttpServer(), serving.HttpServer()) as servers:
        yield servers


@pytest.fixture
def x():
    return caches.arrays()[0]


# A request that fails is asked for again, and what the server did is reported.

FAULTS = {
    "500": "HTTP 500: out of memory",
    "400": "HTTP 400: unexpected inference input",
    "html": r"not JSON but text/html, '<!DOCTYPE html>': a proxy or another program",
    "broken": "the connection was closed in the middle of the answer",
    "nan": r"output 'logits' has \d+ of \d+ values that are NaN or infinite",
    "rows": r"shape \(\d+, 7\) for \d+ samples: it must have one row for each",
    "shape": r"shape \(\d+, 6\); the server had described \[any, 7\]",
    "type": "of type float64, not float32",
    "name": r"no output 'logits', but \['other'\]",
    "model": "model 'other' has answered instead of 'm'",
    "version": "version '7' has answered instead of '1'",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_another_server_answers_what_one_fails(pair, x, fault):
    bad, good = pair
    teacher = served(*pair)
    bad.always = fault
    for _ in range(4):
        np.testing.assert_array_equal(teacher(x), x @ serving.KERNEL)
    assert len(good.requests) >= 4
    of_bad = teacher.statistics()["servers"][bad.url]
    assert of_bad["failures"] > 0
    assert re.search(FAULTS[fault], of_bad["last_failure"])
    assert teacher.statistics()["servers"][good.url]["last_failure"] is None


@pytest.mark.parametrize("fault", FAULTS)
def test_where_all_fail_the_error_says_what_each_one_did(pair, x, fault):
    teacher = served(*pair, give_up_after=1.0, failures=100)
    for server in pair:
        server.always = fault
    with pytest.raises(kd.teachers.ServedTeacherError, match=FAULTS[fault]) as raised:
        teacher.predict(x)
    for server in pair:
        assert server.url in str(raised.value)


@pytest.mark.parametrize("fault", ["trickle", 1.0])
def test_an_answer_has_a_time_limit_as_a_whole(x, fault):
    with serving.running(serving.HttpServer()) as (server,):
        teacher = served(server, timeout=0.3, give_up_after=0.5)
        server.always = fault
        with pytest.raises(kd.teachers.ServedTeacherError, match=r"within 0\.\d+ s \(`timeout`\)"):
            teacher.predict(x)


def test_a_batch_for_which_every_server_gives_nan_is_not_asked_for_forever(x):
    def function(inputs):
        return {"logits": np.where(inputs["x"][:, :1] > 50, np.nan, inputs["x"] @ serving.KERNEL)}

    model = serving.Model(function)
    with serving.running(serving.HttpServer(model), serving.HttpServer(model)) as both:
        teacher = served(*both, give_up_after=1000.0)
        x[3, 0] = 99.0
        message = r"refuses a batch, or answers it unsoundly(.|\n)*7 of 497 values that are NaN"
        with pytest.raises(kd.teachers.ServedTeacherError, match=message):
            teacher.predict(x)


def test_a_batch_that_is_too_large_for_every_server_is_refused_and_split(x):
    with serving.running(serving.HttpServer(most=64), serving.HttpServer(most=64)) as both:
        teacher = served(*both, give_up_after=1000.0)
        message = r"HTTP 400: batch of 71, at most 64(.|\n)*`max_batch`"
        with pytest.raises(kd.teachers.ServedTeacherError, match=message):
            teacher.predict(x)
        found, _ = served(*both, max_batch=64).predict(x)
        np.testing.assert_allclose(found, x @ serving.KERNEL, rtol=1e-6)


# At the beginning.


def test_servers_with_other_models_are_named():
    other = serving.Model(outputs={"logits": ("float32", [-1, 9])})
    with serving.running(serving.HttpServer(), serving.HttpServer(other)) as (one, two):
        message = rf"{two.url} has outputs \[.logits: float32 \[any, 9\].\] instead of"
        with pytest.raises(ValueError, match=message):
            kd.Distiller(served(one, two, connects=False), caches.model(2))


@pytest.mark.parametrize("change", [{"version": "2"}, {"name": "m2"}])
def test_servers_with_another_version_or_name_are_named(change):
    other = serving.HttpServer(serving.Model(**change))
    message = f"server {other.url} cannot be|{other.url} has version '2' instead of '1'"
    with (
        serving.running(serving.HttpServer(), other) as both,
        pytest.raises(ValueError, match=message),
    ):
        kd.Distiller(served(*both, connects=False), caches.model(2))


def test_a_server_whose_model_gives_other_numbers_is_named():
    other = serving.Model(lambda x: {"logits": x["x"] @ (1.01 * serving.KERNEL)})
    with serving.running(serving.HttpServer(), serving.HttpServer(other)) as both:
        message = rf"{both[1].url} cannot be a server.*off by 0.01 of the largest, where 0.001"
        with pytest.raises(ValueError, match=message):
            kd.Distiller(served(*both, connects=False), caches.model(2))
        kd.Distiller(served(*both, connects=False, tolerance=0.02), caches.model(2))


def test_a_server_that_is_away_at_first_is_asked_when_it_comes(pair, x):
    one, two = pair
    two.stop()
    teacher = served(*pair, connects=False)
    with pytest.warns(UserWarning, match=rf"1 of 2 servers .* do not answer: {two.url}: no conn"):
        teacher.predict(x)
    two.start()
    one.stop()
    np.testing.assert_array_equal(teacher.predict(x)[0], x @ serving.KERNEL)


def test_no_server_at_first(pair):
    for server in pair:
        server.stop()
    with pytest.raises(kd.teachers.ServedTeacherError, match=r"for 0.2 s \(`give_up_after`\)"):
        kd.Distiller(served(*pair, give_up_after=0.2, connects=False), caches.model(2))


def test_a_proxy_instead_of_a_server_is_named():
    class Proxy(serving.HttpServer):
        def described(self, path):
            raise AssertionError

        def start(self):
            super().start()
            handler = self._server.RequestHandlerClass
            handler.do_GET = lambda each: each.reply(200, serving.HTML, "text/html")

    with (
        serving.running(Proxy()) as (proxy,),
        pytest.raises(kd.teachers.ServedTeacherError, match="not JSON but text/html, '<!DOCT"),
    ):
        kd.Distiller(served(proxy, give_up_after=0.2, connects=False), caches.model(2))


def test_another_model_after_a_restart_is_refused(pair, x):
    one, two = pair
    teacher = served(*pair)
    teacher.predict(x)
    two.stop()
    two.model = serving.Model(lambda x: {"logits": x["x"] @ -serving.KERNEL})
    two.start()
    asked = len(two.requests)
    one.always = 0.01
    for _ in range(20):
        np.testing.assert_array_equal(teacher.predict(x)[0], x @ serving.KERNEL)
    assert len(two.requests) > asked  # the probe
    assert "gives other numbers" in teacher.statistics()["servers"][two.url]["last_failure"]
    assert teacher.statistics()["servers"][two.url]["circuit"] != "closed"


# While `fit` runs.

ROWS, EPOCHS = 480, 1


def data(rows=ROWS):
    x, y = caches.arrays(rows)
    return tf.data.Dataset.from_tensor_slices((x, y)).batch(caches.BATCH)


class At(keras.callbacks.Callback):
    """Calls functions at the end of steps."""

    def __init__(self, actions):
        super().__init__()
        self.actions, self.step = dict(actions), 0

    def on_train_batch_end(self, batch, logs=None):
        self.step += 1
        self.actions.pop(self.step, lambda: None)()


def distiller(teacher, seed=2):
    made = kd.Distiller(teacher, caches.model(seed))
    made.compile(keras.optimizers.Adam(0.01), caches.from_logits(), jit_compile=False)
    return made


def weights(made):
    return [np.array(each) for each in made.student.weights]


@pytest.fixture(scope="module")
def expected():
    made = distiller(serving.linear_teacher())
    made.fit(data(), epochs=2, verbose=0)
    return made


def assert_same(one, other):
    for a, b in zip(weights(one), weights(other), strict=True):
        np.testing.assert_array_equal(a, b)


KINDS = {
    "open_inference": serving.HttpServer,
    "binary": lambda: serving.HttpServer(has_binary=True),
    "tf_serving": lambda: serving.HttpServer(protocol="tf_serving"),
    "tf_serving_grpc": serving.TFServingGrpcServer,
}


@pytest.mark.parametrize("kind", KINDS)
def test_servers_are_killed_and_restarted_while_fit_goes_on(expected, kind):
    with serving.running(KINDS[kind](), KINDS[kind]()) as (one, two):
        made = distiller(served(one, two, in_flight=4))
        counts = {}

        def restart(server):
            counts[server.url] = len(server.requests)
            server.start()

        actions = {
            5: one.stop, 15: lambda: restart(one), 25: two.stop, 40: lambda: restart(two),
            60: one.stop, 70: lambda: restart(one), 85: two.stop, 100: lambda: restart(two),
        }  # fmt: skip
        callback = At(actions)
        made.fit(data(), epochs=2, callbacks=[callback], verbose=0)
        assert_same(made, expected)
        assert callback.actions == {}
        # While the other was away it was the only one.
        assert len(one.requests) > counts[one.url]
        statistics = made.teacher.statistics()
        assert statistics["retries"] > 0
        assert statistics["answers"] >= 120
        made.teacher.close()


def test_no_server_left_raises_out_of_fit_and_the_training_resumes(tmp_path, pair, expected):
    one, two = pair

    def stop():
        one.stop()
        two.stop()

    backup = keras.callbacks.BackupAndRestore(tmp_path / "backup", save_freq=5)
    first = distiller(served(*pair, give_up_after=0.5))
    message = r"No server of the teacher .*for 0.5 s(.|\n)*refused(.|\n)*BackupAndRestore"
    with pytest.raises(kd.teachers.ServedTeacherError, match=message) as raised:
        first.fit(data(), epochs=2, callbacks=[At({40: stop}), backup], verbose=0)
    for server in pair:
        assert server.url in str(raised.value)
        server.start()
    second = distiller(served(*pair), seed=3)  # which only the backup makes equal
    backup = keras.callbacks.BackupAndRestore(tmp_path / "backup", save_freq=5)
    second.fit(data(), epochs=2, callbacks=[backup], verbose=0)
    assert_same(second, expected)


def test_a_cache_of_a_teacher_without_servers_raises_its_own_error(tmp_path, pair):
    teacher = served(*pair, give_up_after=0.2)
    teacher.predict(caches.arrays()[0])
    for server in pair:
        server.always = "500"
    with pytest.raises(kd.teachers.ServedTeacherError, match="HTTP 500: out of memory"):
        kd.cache_teacher(teacher, data(), tmp_path / "cache", verbose=0)


def test_as_many_batches_are_in_flight_ahead_of_the_step_as_was_said():
    """More than TensorFlow has threads: the server answers none before all of them are there."""
    count = (os.cpu_count() or 1) + 3
    with serving.running(serving.HttpServer()) as (server,):
        made = distiller(served(server, in_flight=count))
        server.gather = count
        made.fit(data(caches.BATCH * 2 * count), verbose=0)
        assert server.most_at_once == count


def test_requests_are_bounded_where_each_batch_is_four():
    with serving.running(serving.HttpServer()) as (server,):
        made = distiller(served(server, in_flight=3, max_batch=2))
        server.always = 0.01
        made.fit(data(240), verbose=0)
        assert 1 < server.most_at_once <= 3


def test_an_evaluation_raises_its_error_too(pair):
    made = distiller(served(*pair, give_up_after=0.2))
    for server in pair:
        server.always = "html"
    with contextlib.ExitStack() as stack:
        stack.enter_context(pytest.raises(kd.teachers.ServedTeacherError, match="text/html"))
        made.evaluate(data(80), with_teacher=True, verbose=0)
