"""`to_tflite` as a user meets it: results, bounds, metadata, and clear errors before any work."""

import pathlib

import keras
import numpy as np
import pytest
from keras import layers

import keras_kd as kd
from keras_kd.export import comparison, judging, representative
from keras_kd.export.student import ExportError
from keras_kd.export.tflite import routes
from keras_kd.runtimes import TFLiteFile
from tests.export import students
from tests.export.small import dense, export, rows


def test_the_result_tells_what_the_file_holds(tmp_path):
    x, student = rows(), dense()
    labels = np.argmax(student.predict(x, verbose=0), axis=-1)
    labels[:8] = (labels[:8] + 1) % 3
    done = export(tmp_path, "int8", student=student, representative_data=(x, labels))
    file = TFLiteFile(done.path)
    assert done.operators == {"FULLY_CONNECTED": 2}
    assert done.model_accuracy == 56 / 64
    assert done.rows == 64
    found = file.run(x)[0]
    expected = student.predict(x, verbose=0)
    assert done.agreement == np.mean(found.argmax(-1) == expected.argmax(-1))
    assert done.accuracy == np.mean(found.argmax(-1) == labels)
    assert done.worst_difference == pytest.approx(np.abs(found - expected).max(), rel=1e-6)
    # 8 bits from the least to the largest number
    assert done.inputs[0].scale == pytest.approx((x.max() - x.min()) / 255, rel=1e-5)
    assert "FULLY_CONNECTED" in str(done)
    assert f"{done.bytes:,} bytes" in str(done)


@pytest.mark.parametrize(
    ("dtypes", "route"),
    [(("float32", None), "edge_quantizer"), (("float32", "float32"), "edge_quantizer")],
)
def test_inputs_and_outputs_have_the_types_asked_for(tmp_path, dtypes, route):
    done = export(
        tmp_path,
        "int8",
        representative_data=rows(),
        input_dtype=dtypes[0],
        output_dtype=dtypes[1],
        route=route,
    )
    assert done.inputs[0].dtype == dtypes[0]
    assert done.outputs[0].dtype == (dtypes[1] or "int8")


def test_unsigned_inputs_need_no_process_of_tensorflow(tmp_path):
    options = {"representative_data": rows(), "input_dtype": "uint8", "output_dtype": "uint8"}
    done = export(tmp_path, "int8", **options)
    assert (done.route, done.inputs[0].dtype, done.outputs[0].dtype) == (
        "edge_quantizer",
        "uint8",
        "uint8",
    )


def test_any_number_of_rows_where_asked_for(tmp_path):
    done = export(tmp_path, batch_size=None)
    assert done.inputs[0].shape == (None, 8)
    assert export(tmp_path, batch_size=4, overwrite=True).inputs[0].shape == (4, 8)


@pytest.mark.parametrize(
    "route", ["edge_quantizer", pytest.param("converter", marks=pytest.mark.slow)]
)
def test_integers_in_batches_of_a_fixed_size(tmp_path, route):
    stack = [layers.Flatten(), layers.Dense(3)]
    student = keras.Sequential([keras.Input((2, 4), name="x"), *stack])
    x = rows(20).reshape(20, 2, 4)
    done = export(
        tmp_path, "int8", student=student, representative_data=x, batch_size=8, route=route
    )
    assert done.agreement > 0.9
    assert TFLiteFile(done.path).inputs[0].shape == (8, 2, 4)
    scale = (x.max() - x.min()) / 255  # the last batch, of 4 rows, was seen too
    assert done.inputs[0].scale == pytest.approx(scale, rel=1e-5)


def test_metadata_is_read_back(tmp_path):
    done = export(tmp_path, user_metadata={"classes": ["ä", "b", "c"]})
    noted = kd.export.read_metadata(done.path)
    assert noted["user"] == {"classes": ["ä", "b", "c"]}
    assert noted["keras_kd"] == kd.__version__


def test_a_recipe_of_ai_edge_quantizer(tmp_path):
    from ai_edge_quantizer import recipe

    done = export(tmp_path, recipe.dynamic_wi8_afp32(), representative_data=rows())
    assert done.quantization == "recipe"
    done = export(tmp_path, recipe.dynamic_wi8_afp32(), overwrite=True)  # which needs no data
    with pytest.raises(ValueError, match="`representative_data` is missing"):
        export(tmp_path, recipe.static_wi8_ai8(), overwrite=True)
    kinds = {t for each in TFLiteFile(done.path).operators for t in each.inputs}
    assert "int8" in kinds


def test_a_student_in_mixed_precision_is_written_in_float32(tmp_path):
    policy = keras.DTypePolicy("mixed_float16")
    inputs = keras.Input((8,))
    x = layers.Dense(16, activation="relu", dtype=policy)(inputs)
    student = keras.Model(inputs, layers.Dense(3, dtype=policy)(x))
    done = export(tmp_path, student=student, data=rows())
    kernel = student.layers[1].kernel
    assert kernel.dtype == "float32"
    assert done.worst_difference < 1e-5  # from the student in float32
    # Float16 has 11 bits: the file, which has 24, differs from the student by its rounding only.
    found = TFLiteFile(done.path).run(rows())[0]
    assert 0 < np.abs(found - student.predict(rows(), verbose=0)).max() < 0.02
    assert student.layers[1].compute_dtype == "float16"


def test_a_ruined_file_is_not_written(tmp_path):
    x = rows()
    student = dense()
    with pytest.raises(ExportError, match="min_agreement is 100"):
        export(
            tmp_path, "int4", student=student, representative_data=x, min_agreement=1.0,
            data=rows(1000),
        )  # fmt: skip
    labels = np.argmax(student.predict(rows(1000), verbose=0), axis=-1)
    with pytest.raises(ExportError, match="accuracy falls from 100.00%"):
        export(
            tmp_path, "int4", student=student, data=(rows(1000), labels), max_accuracy_drop=0.001
        )
    assert list(tmp_path.iterdir()) == []


def test_an_existing_file_stays(tmp_path):
    path = tmp_path / "s.tflite"
    path.write_bytes(b"mine")
    with pytest.raises(FileExistsError, match="overwrite=True"):
        export(tmp_path)
    with pytest.raises(ExportError):
        export(tmp_path, "int4", data=rows(1000), min_agreement=1.0, overwrite=True)
    assert path.read_bytes() == b"mine"


def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch):
    write = pathlib.Path.write_bytes

    def full(self, content):
        if self.parent == tmp_path:
            write(self, content[:10])
            raise OSError(28, "No space left on device")
        return write(self, content)

    monkeypatch.setattr(pathlib.Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        export(tmp_path)
    assert list(tmp_path.iterdir()) == []


def subclassed():
    model = students.Subclassed()
    model(rows(2))
    return model


def quantized_by_keras():
    student = dense()
    student.layers[0].quantize("int8")
    return student


def of_any_size():
    return keras.Sequential([keras.Input((None, None, 3)), layers.Conv2D(4, 3)])


def of_text():
    inputs = keras.Input((1,), dtype="string", name="text")
    return keras.Model(inputs, layers.StringLookup(vocabulary=["a", "b"])(inputs))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (of_any_size, "only the batch may be unknown"),
        (of_text, "layer 'string_lookup.*' .* is a StringLookup.*outside of the student"),
        (subclassed, "no input signature"),
        (lambda: kd.Distiller(dense(), dense()), "distiller.student"),
        (quantized_by_keras, "model.quantize has changed layers"),
        (lambda: "student.keras", "must be a keras.Model"),
    ],
)
def test_students_that_cannot_be_exported(tmp_path, make, message):
    with pytest.raises(ValueError, match=message):
        export(tmp_path, student=make())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"quantization": "int5"}, "Received: quantization='int5'"),
        ({"batch_size": 0}, "Received: batch_size=0"),
        ({"input_dtype": "float16"}, "Received: input_dtype='float16'"),
        ({"input_dtype": "int8"}, "computes with floats"),
        ({"quantization": "int4", "route": "converter"}, "Received: route='converter'"),
        ({"route": "best"}, "Received: route='best'"),
        ({"max_accuracy_drop": 0.01}, "needs labels"),
        ({"user_metadata": {"classes": np.arange(3)}}, "`user_metadata` must have values"),
    ],
)
def test_wrong_arguments(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        export(tmp_path, **options)
    assert list(tmp_path.iterdir()) == []


def test_outputs_that_are_all_the_same_are_found():
    expected = rows(16)[:, :3]
    found = np.repeat(expected[:1], 16, axis=0)
    lines = representative.Samples([rows(16)])
    judged = judging.Judgment((judging.Output("y", "multiclass"),))
    with pytest.raises(ExportError, match="same for all 16 samples"):
        comparison.compare([found], [expected], lines, judged)
    found = expected.copy()
    found[2, 1] = np.nan
    with pytest.raises(ExportError, match="holds NaN"):
        comparison.compare([found], [expected], lines, judged)


def test_a_missing_extra_is_named(tmp_path, monkeypatch):
    import importlib

    real = importlib.import_module

    def without(name, *args):
        if name.startswith("ai_edge_quantizer"):
            raise ImportError(name)
        return real(name, *args)

    monkeypatch.setattr(importlib, "import_module", without)
    with pytest.raises(ImportError, match=r"pip install 'keras-kd\[export\]'"):
        export(tmp_path, "int4")


@pytest.mark.parametrize("failures", [1, 2])
def test_converter_is_repeated_if_it_left_floats(tmp_path, monkeypatch, failures):
    convert, calls = routes.convert, []
    float_file = export(tmp_path).path.read_bytes()

    def sometimes(job, route):
        calls.append(route)
        return float_file if len(calls) <= failures else convert(job, route)

    monkeypatch.setattr(routes, "convert", sometimes)
    wanted = {"representative_data": rows(), "route": "converter", "overwrite": True}
    if failures == 2:  # the same operators: it is not asked a third time
        with pytest.raises(ExportError, match="left in float32"):
            export(tmp_path, "int8", **wanted)
        assert len(calls) == 2
    else:
        assert export(tmp_path, "int8", **wanted).float_operators == []
        assert len(calls) == 2
