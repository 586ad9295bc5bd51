"""Teachers of files, as a run loads them: each gives what the model gives that made it."""

import keras
import numpy as np
import pytest

from tests import extras
from tests.runs import small

extras.require("pydantic")
extras.require("pandas")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("teachers")
    small.write_table(made / "table.csv", 60)
    return made


@pytest.fixture(scope="module")
def model(folder):
    keras.utils.set_random_seed(1)
    made = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    made.save(folder / "teacher.keras")
    made.export(folder / "saved", verbose=False)
    return made


def planned(folder, **teacher):
    from keras_kd.runs import data, reading
    from keras_kd.runs import teacher as teachers

    table = {"table": {"file": str(folder / "table.csv"), "label": "kind"}}
    config = reading.read(small.write(folder, small.base(table, teacher=teacher)))
    teachers.check(config)
    samples = data.load(config)
    return teachers.build(config, samples), samples


def outputs(plan, x):
    from keras_kd.teachers import keras_model, protocol

    teacher = keras_model.adapt(plan.teacher)
    return np.asarray(teacher.predict_batch(protocol.TeacherInputs(keras.ops.array(x))))


def torch_script(folder, model):
    torch = extras.require("torch")
    kernel, bias = (np.array(each) for each in model.get_weights())
    linear = torch.nn.Linear(4, 3)
    with torch.no_grad():
        linear.weight.copy_(torch.from_numpy(kernel.T.copy()))
        linear.bias.copy_(torch.from_numpy(bias))
        torch.jit.trace(linear, torch.zeros(1, 4)).save(folder / "teacher.pt")


def tflite(folder, model):
    import keras_kd as kd

    extras.require("ai_edge_litert")
    path = folder / "teacher.tflite"
    kd.export.to_tflite(model, path, batch_size=None, overwrite=True, verbose=0)


MAKES = {"teacher.pt": torch_script, "teacher.tflite": tflite}


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.*torch.jit.*:FutureWarning")
@pytest.mark.parametrize("name", ["teacher.keras", "saved", "teacher.pt", "teacher.tflite"])
def test_a_file_teaches_what_the_model_would(name, folder, model):
    if name in MAKES:
        MAKES[name](folder, model)
    plan, samples = planned(folder, file=str(folder / name))
    x, _ = samples.arrays("test")
    np.testing.assert_allclose(outputs(plan, x), model(x), rtol=1e-4, atol=1e-5)
    assert plan.epochs == 0
    assert plan.origin == str(folder / name)


def test_a_teacher_of_other_classes_is_refused(folder):
    other = keras.Sequential([keras.Input((4,)), keras.layers.Dense(7)])
    other.save(folder / "other.keras")
    with pytest.raises(ValueError, match=r"line \d+: teacher.file: .*\[batch, 3\].*\[2, 7\]"):
        planned(folder, file=str(folder / "other.keras"))


def test_a_teacher_of_other_inputs_is_refused(folder):
    other = keras.Sequential([keras.Input((9,)), keras.layers.Dense(3)])
    other.save(folder / "other.keras")
    with pytest.raises(ValueError, match=r"teacher.file: it does not take the data.*\[None, 4\]"):
        planned(folder, file=str(folder / "other.keras"))
