"""What a file's tables are packed into."""

import flatbuffers
import numpy as np

import keras_kd as kd
from keras_kd.export.tflite import flatbuffer
from keras_kd.runtimes import tflite
from tests.export import students


def test_constants_lie_at_addresses_that_runtimes_can_use(tmp_path):
    student = students.made("cnn")
    done = kd.export.to_tflite(student, tmp_path / "s.tflite", None)
    content = done.path.read_bytes()
    model = tflite.parse_file(done.path)
    arrays = [bytes(x.data) for x in model.buffers if x.data is not None and len(x.data) >= 64]
    assert len(arrays) >= 5
    for each in arrays:
        assert content.count(each) == 1
        assert content.index(each) % 16 == 0


def test_equal_arrays_are_written_once_and_read_as_before(tmp_path):
    student = students.made("mobile")
    done = kd.export.to_tflite(
        student, tmp_path / "s.tflite", "int8", representative_data=students.rows("mobile")
    )
    model = tflite.parse_file(done.path)
    content, plain = flatbuffer.packed(model), flatbuffers.Builder(0)
    plain.Finish(model.Pack(plain), file_identifier=b"TFL3")
    zeros = [len(x) for x in zero_points(model) if len(x) > 1 and not np.any(x)]
    saved = 8 * (sum(zeros) - sum(set(zeros)))
    assert saved > 300
    padding = 16 * len(model.buffers)
    assert len(content) <= len(plain.Output()) - saved + padding
    again = tflite.schema().ModelT.InitFromPackedBuf(content, 0)
    for one, other in zip(model.subgraphs[0].tensors, again.subgraphs[0].tensors, strict=True):
        assert one.name == other.name
        np.testing.assert_array_equal(one.quantization.scale, other.quantization.scale)
        np.testing.assert_array_equal(one.quantization.zeroPoint, other.quantization.zeroPoint)
        np.testing.assert_array_equal(
            model.buffers[one.buffer].data, again.buffers[other.buffer].data
        )


def zero_points(model):
    found = [x.quantization.zeroPoint for x in model.subgraphs[0].tensors]
    return [each for each in found if each is not None]
