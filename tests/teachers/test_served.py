"""A teacher behind servers: what is asked, what is answered, how it is saved."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_kd as kd
from keras_kd.teachers import prefetch
from keras_kd.teachers.served import messages
from tests import extras
from tests.cache import caches
from tests.teachers import serving

extras.require("urllib3")

KINDS = {
    "open_inference": serving.HttpServer,
    "binary": lambda model=None: serving.HttpServer(model, has_binary=True),
    "tf_serving": lambda model=None: serving.HttpServer(model, protocol="tf_serving"),
    "tf_serving_grpc": serving.TFServingGrpcServer,
}


def served(*servers, **options):
    protocol = getattr(servers[0], "protocol", "tf_serving")
    return kd.teachers.Served([server.url for server in servers], "m", protocol, **options)


@pytest.fixture
def server():
    with serving.running(serving.HttpServer()) as (one,):
        yield one


@pytest.fixture
def x():
    return caches.arrays()[0]


def two_heads(inputs):
    total = inputs["a"] + np.float32(inputs["ids"])
    return {"first": total @ serving.KERNEL, "second": total * 2}


HEADS = serving.Model(
    two_heads,
    inputs={"a": ("float32", [-1, 5]), "ids": ("int64", [-1, 5])},
    outputs={"first": ("float32", [-1, 7]), "second": ("float32", [-1, 5])},
)


@pytest.mark.parametrize("kind", KINDS)
def test_every_protocol_and_transport_gives_the_models_bits(kind, x):
    with serving.running(KINDS[kind]()) as (one,):
        teacher = served(one)
        np.testing.assert_array_equal(teacher(x), x @ serving.KERNEL)
        assert teacher.description.version == "1"
        (spec,) = teacher.input_specs().values()
        assert (spec.shape, spec.dtype) == ((None, caches.FEATURES), "float32")
        assert teacher.output_names == ["logits"]
        teacher.close()


@pytest.mark.parametrize("kind", KINDS)
def test_several_inputs_and_outputs_go_by_name(kind, x):
    ids = np.arange(x.size).reshape(x.shape)
    with serving.running(KINDS[kind](HEADS)) as (one,):
        teacher = served(one)
        first, second = teacher.predict({"ids": ids, "a": x})[0]
        expected = two_heads({"a": x, "ids": ids})
        np.testing.assert_array_equal(first, expected["first"])
        np.testing.assert_array_equal(second, expected["second"])
        assert teacher.output_names == ["first", "second"]
        chosen = served(one, output="second")
        found, taps = chosen.predict([x, ids], ["first"])  # in the only order that fits
        np.testing.assert_array_equal(found, second)
        np.testing.assert_array_equal(taps["first"], first)
        with pytest.raises(ValueError, match=r"has no output 'third' that could be tapped"):
            chosen.resolve("third")
        for each in (teacher, chosen):
            each.close()


@pytest.mark.parametrize("kind", ["tf_serving", "tf_serving_grpc"])
def test_a_saved_model_behind_tensorflow_serving(tmp_path, kind, x):
    """Its signature is what TensorFlow has written, and it runs here as it would there."""
    model = caches.model(5)
    model.export(tmp_path / "model", verbose=False)
    signature = tf.saved_model.load(tmp_path / "model").signatures["serving_default"]
    (name,) = signature.structured_input_signature[1]
    (output,) = signature.structured_outputs

    def function(inputs):
        return {output: signature(**{name: tf.constant(inputs[name])})[output].numpy()}

    made = serving.Model(
        function, inputs={name: ("float32", [-1, 5])}, outputs={output: ("float32", [-1, 7])}
    )
    with serving.running(KINDS[kind](made)) as (one,):
        teacher = served(one)
        found = teacher.predict(x)[0]
        np.testing.assert_array_equal(found, function({name: x})[output])
        np.testing.assert_allclose(found, model(x), rtol=1e-5, atol=1e-6)
        teacher.close()


def test_a_signature_that_is_not_there_raises():
    with serving.running(KINDS["tf_serving"]()) as (one,):
        message = r"no signature 'other', but \['serving_default'\]: choose one with `signature`"
        with pytest.raises(ValueError, match=message):
            served(one, signature="other").bind(None)


def test_large_batches_are_split_and_joined_over_servers(x):
    with serving.running(serving.HttpServer(), serving.HttpServer()) as both:
        teacher = served(*both, max_batch=16)
        teacher.bind(None)
        for each in both:
            each.requests.clear()
        found = teacher.predict(x)[0]
        np.testing.assert_allclose(found, x @ serving.KERNEL, rtol=1e-6)
        # Over a new connection the probe of two rows comes too.
        sizes = [[rows for rows in each.requests if rows != 2] for each in both]
        assert sorted([*sizes[0], *sizes[1]]) == [7, 16, 16, 16, 16]
        assert all(sizes)


def test_a_model_of_a_fixed_batch_size_gets_full_batches(x):
    model = serving.Model(
        inputs={"x": ("float32", [4, 5])}, outputs={"logits": ("float32", [4, 7])}
    )
    with serving.running(serving.HttpServer(model)) as (one,):
        found = served(one).predict(x)[0]
        np.testing.assert_allclose(found, x @ serving.KERNEL, rtol=1e-6)
        assert set(one.requests) == {4}


def test_shapes_come_from_the_description(server, x):
    teacher = served(server)
    teacher.bind(None)
    server.requests.clear()
    spec = tf.TensorSpec((None, 5), tf.float32)
    function = tf.function(teacher, autograph=False).get_concrete_function(spec)
    assert function.structured_outputs.shape == (None, 7)
    assert server.requests == []
    np.testing.assert_array_equal(function(tf.constant(x)), x @ serving.KERNEL)


def test_shapes_that_are_not_described_are_found_out(x):
    model = serving.Model(outputs={"logits": ("float32", [-1, -1])})
    with serving.running(serving.HttpServer(model)) as (one,):
        teacher = served(one)
        spec = tf.TensorSpec((None, 5), tf.float32)
        function = tf.function(teacher, autograph=False).get_concrete_function(spec)
        assert function.structured_outputs.shape == (None, 7)
        np.testing.assert_array_equal(function(tf.constant(x)), x @ serving.KERNEL)


def test_a_batch_without_rows(server):
    assert served(server).predict(np.zeros((0, 5), "float32"))[0].shape == (0, 7)


def test_a_probe_of_ones_own_and_sizes_that_are_open():
    seen = []

    def function(inputs):
        seen.append(inputs["x"].shape)
        return {"logits": inputs["x"].mean(axis=1, keepdims=True)}

    model = serving.Model(
        function, inputs={"x": ("float32", [-1, -1])}, outputs={"logits": ("float32", [-1, 1])}
    )
    with serving.running(serving.HttpServer(model)) as (one,):
        served(one).bind(None)
        served(one, probe=np.ones((3, 9))).bind(None)
    assert set(seen) == {(2, 32), (3, 9)}


def test_inputs_that_do_not_fit(server):
    with pytest.raises(ValueError, match=r"input 'x' of shape \(None, 5\).*\(2, 6\)"):
        served(server).predict(np.zeros((2, 6), "float32"))


def test_inputs_of_other_names():
    with serving.running(serving.HttpServer(HEADS)) as (one,):
        message = r"takes \['a: float32 \[any, 5\]', 'ids.*preprocess=lambda inputs: \{'a': ..., 'i"
        with pytest.raises(ValueError, match=message):
            served(one).predict({"b": np.ones((2, 5)), "ids": np.ones((2, 5), int)})


def test_a_model_of_texts_is_refused():
    class Texts(serving.HttpServer):
        def described(self, path):
            status, content = super().described(path)
            if "inputs" in content:
                content["inputs"][0]["datatype"] = "BYTES"
            return status, content

    with (
        serving.running(Texts()) as (one,),
        pytest.raises(ValueError, match="is of type BYTES, with which no teacher works here"),
    ):
        served(one).bind(None)


def test_a_model_that_is_not_described_is_refused():
    model = serving.Model()
    model.inputs = {}
    message = "does not describe inputs and outputs of 'm': in MLServer's model-settings.json"
    with (
        serving.running(serving.HttpServer(model)) as (one,),
        pytest.raises(ValueError, match=message),
    ):
        served(one).bind(None)


# With `fit`, caches and files.


def test_a_distiller_is_saved_and_loaded(tmp_path, server):
    options = {"max_batch": 16, "timeout": 7.0, "in_flight": 3, "tolerance": 0.01}
    teacher = served(server, probe={"x": np.ones((2, 5), "float32")}, **options)
    distiller = kd.Distiller(teacher, caches.model(2))
    distiller.compile("adam", caches.from_logits())
    distiller.fit(caches.dataset(), verbose=0)
    distiller.save(tmp_path / "distiller.keras")
    again = keras.models.load_model(tmp_path / "distiller.keras")
    config, expected = again.teacher.get_config(), teacher.get_config()
    probes = [keras.saving.deserialize_keras_object(x.pop("probe")) for x in (config, expected)]
    assert config == expected
    np.testing.assert_array_equal(probes[0]["x"], probes[1]["x"])
    for each in (distiller, again):
        each.fit(caches.dataset(), shuffle=False, verbose=0)
    for one, other in zip(distiller.student.weights, again.student.weights, strict=True):
        np.testing.assert_array_equal(one, other)


def test_its_cache_is_of_this_model(tmp_path, server):
    teacher = served(server)
    path = kd.cache_teacher(teacher, caches.dataset(), tmp_path / "c", dtype="float32", verbose=0)
    x, outputs, _ = caches.read(kd.load_cache(path, caches.dataset(), teacher=served(server)))
    np.testing.assert_allclose(outputs, x @ serving.KERNEL, rtol=1e-6)
    other = serving.Model(lambda x: {"logits": x["x"] @ (2 * serving.KERNEL)})
    with (
        serving.running(serving.HttpServer(other)) as (one,),
        pytest.raises(kd.CacheError, match="of another teacher"),
    ):
        kd.load_cache(path, caches.dataset(), teacher=served(one))


def test_members_of_an_ensemble_are_asked_in_parallel(server, x):
    ensemble = kd.teachers.Ensemble([served(server, in_flight=3), serving.linear_teacher()])
    assert ensemble.parallel_batches == 3
    one, _ = caches.trained(ensemble, caches.dataset())
    other, _ = caches.trained(serving.linear_teacher(), caches.dataset())
    for name, values in other.items():
        np.testing.assert_allclose(one[name], values, rtol=1e-5)


def test_the_order_of_batches_is_kept_however_long_each_takes(server, x):
    """The first of eight that are asked for at once takes the longest."""
    distiller = kd.Distiller(served(server, in_flight=8), caches.model(2))
    server.faults.extend([0.2, 0.15, 0.1, 0.05])
    elements = list(prefetch.with_teacher(distiller, caches.dataset()))
    inputs = np.concatenate([each[0]["inputs"] for each in elements])
    outputs = np.concatenate([each[0]["keras_kd_teacher"]["outputs"] for each in elements])
    np.testing.assert_array_equal(inputs, x)
    np.testing.assert_allclose(outputs, x @ serving.KERNEL, rtol=1e-6)
    assert server.most_at_once > 2


def test_statistics(server, x):
    teacher = served(server, max_batch=16)
    teacher.predict(x)
    found = teacher.statistics()
    assert (found["requests"], found["answers"], found["rows"]) == (5, 5, 71)
    assert (found["retries"], found["failures"], found["circuit_openings"]) == (0, 0, 0)
    assert found["seconds"] > 0
    of_server = found["servers"][server.url]
    assert of_server["seconds_slowest"] <= of_server["seconds"] == found["seconds"]
    assert (of_server["circuit"], of_server["last_failure"]) == ("closed", None)


def test_a_teacher_that_is_closed_is_not_asked(server, x):
    teacher = served(server)
    teacher.predict(x)
    teacher.close()
    with pytest.raises(kd.teachers.ServedTeacherError, match="were closed. Make the teacher again"):
        teacher.predict(x)


# Arguments.


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"urls": []}, "an address such as"),
        ({"urls": "localhost:8080"}, "an address such as"),
        ({"urls": "ftp://host:1"}, "an address such as"),
        ({"urls": "grpc://host"}, "of gRPC only host and port"),
        ({"urls": "http://host:99999"}, "Port out of range"),
        ({"urls": "http://user@host:80"}, "without names"),
        ({"urls": ["http://h:80", "http://h/"]}, "different addresses"),
        ({"model": ""}, "the name of a model"),
        ({"protocol": "rest"}, r"one of \('open_inference', 'tf_serving'\)"),
        ({"version": 1.5}, "a text, a whole number, or None"),
        ({"version": "v1", "protocol": "tf_serving"}, "a whole number, or None"),
        ({"signature": "serve"}, "None, unless protocol='tf_serving'"),
        ({"in_flight": 0}, "an integer, at least 1"),
        ({"max_batch": 0}, "an integer, at least 1, or None"),
        ({"timeout": 0}, "a finite number above 0"),
        ({"give_up_after": -1}, "a finite number, at least 0"),
        ({"tolerance": "x"}, "a number"),
    ],
)
def test_wrong_arguments_raise_before_any_server_is_asked(change, message):
    with pytest.raises(ValueError, match=message):
        kd.teachers.Served(**{"urls": "http://localhost:1", "model": "m", **change})


def test_the_messages_of_tensorflow_serving_are_those_of_its_authors():
    """Bytes of ours are read by their generated classes, and the other way round."""
    apis, ours = serving.tf_serving_apis(), messages.tf_serving()
    tensor = tf.make_tensor_proto(np.arange(6.0).reshape(2, 3))
    request = ours.PredictRequest(
        model_spec={"name": "m", "version": {"value": 3}, "signature_name": "s"},
        inputs=[{"key": "x", "value": tensor.SerializeToString()}],
        output_filter=["a", "b"],
    )
    theirs = apis.predict_pb2.PredictRequest.FromString(request.SerializeToString())
    assert (theirs.model_spec.name, theirs.model_spec.version.value) == ("m", 3)
    assert (theirs.model_spec.signature_name, list(theirs.output_filter)) == ("s", ["a", "b"])
    np.testing.assert_array_equal(tf.make_ndarray(theirs.inputs["x"]), tf.make_ndarray(tensor))
    back = ours.PredictRequest.FromString(theirs.SerializeToString(deterministic=True))
    assert back.inputs[0].key == "x"
