"""What the data of a run becomes: splits, numbers, categories, words and pictures, by hand."""

import numpy as np
import pytest

from tests import extras
from tests.runs import small

extras.require("pydantic")
pandas = extras.require("pandas")


def loaded(folder, data, seed=0):
    from keras_kd.runs import data as datas
    from keras_kd.runs import reading

    return datas.load(reading.read(small.write(folder, small.base(data, seed=seed))))


def test_numbers_are_scaled_by_the_training_part_alone(tmp_path):
    small.write_table(tmp_path / "t.csv", 90)
    frame = pandas.read_csv(tmp_path / "t.csv")
    frame.to_parquet(tmp_path / "t.parquet")
    data = {"table": {"file": str(tmp_path / "t.parquet"), "label": "kind"}}
    samples = loaded(tmp_path, data)
    parts = {part: samples.arrays(part) for part in ("train", "validation", "test")}
    assert {part: len(y) for part, (_, y) in parts.items()} == samples.counts
    assert sum(samples.counts.values()) == 90
    assert samples.counts["test"] == 12  # 15 % of 30 rows of each class
    found = dict(zip(("size", "weight", "color"), samples.preprocessing["columns"], strict=True))
    x = parts["train"][0]
    assert x.shape[1] == 4
    np.testing.assert_allclose(x[:, :2].mean(axis=0), 0, atol=1e-5)
    # Which rows are in the training part is seen by their sizes, which are all different.
    sizes = x[:, 0] * found["size"]["deviation"] + found["size"]["mean"]
    rows = [int(np.argmin(np.abs(frame["size"] - each))) for each in sizes]
    assert len(set(rows)) == len(rows)
    chosen = frame.iloc[rows]
    assert found["size"]["mean"] == pytest.approx(chosen["size"].mean())
    assert found["size"]["deviation"] == pytest.approx(chosen["size"].std(ddof=0))
    assert found["weight"]["mean"] == pytest.approx(chosen["weight"].mean())  # NaN left out
    assert (x[chosen["weight"].isna(), 1] == 0).all()
    assert "3 missing numbers count as the mean" in samples.notes[0]
    assert found["color"]["categories"] == ["blue", "red"]
    np.testing.assert_array_equal(x[:, 2:], [[c == "blue", c == "red"] for c in chosen["color"]])
    assert [samples.classes[i] for i in parts["train"][1]] == chosen["kind"].tolist()


def test_parts_are_drawn_by_the_seed_and_do_not_meet(tmp_path):
    small.write_table(tmp_path / "t.csv", 90)
    data = {"table": {"file": str(tmp_path / "t.csv"), "label": "kind", "columns": ["size"]}}
    firsts = []
    for seed in (0, 0, 1):
        samples = loaded(tmp_path, data, seed)
        mean, deviation = (samples.preprocessing["columns"][0][k] for k in ("mean", "deviation"))
        found = [samples.arrays(part)[0] * deviation + mean for part in samples.parts]
        assert len(np.unique(np.concatenate(found).round(3))) == 90
        firsts.append(np.sort(found[0].ravel()))
    np.testing.assert_array_equal(firsts[0], firsts[1])
    assert not np.allclose(firsts[0], firsts[2])


def test_files_of_their_own_for_validation_and_test(tmp_path):
    for name, rows in (("train", 60), ("validation", 12), ("test", 9)):
        small.write_table(tmp_path / f"{name}.csv", rows)
    paths = {name: str(tmp_path / f"{name}.csv") for name in ("validation", "test")}
    data = {"table": {"file": str(tmp_path / "train.csv"), "label": "kind", **paths}}
    assert loaded(tmp_path, data).counts == {"train": 60, "validation": 12, "test": 9}


def test_whole_numbers_are_classes(tmp_path):
    (tmp_path / "t.csv").write_text("a,b\n" + "".join(f"{i},{i % 2 + 9}\n" for i in range(40)))
    samples = loaded(tmp_path, {"table": {"file": str(tmp_path / "t.csv"), "label": "b"}})
    assert samples.classes == ["9", "10"]


def test_words_are_those_of_the_training_texts(tmp_path):
    data = {"file": str(small.texts(tmp_path)), "text": "said", "label": "who", "length": 5}
    samples = loaded(tmp_path, {"texts": {**data, "vocabulary_size": 12}})
    x, _ = samples.arrays("train")
    assert x.dtype == np.int32
    assert x.shape[1] == 5
    words = samples.preprocessing["vocabulary"]
    assert words[:2] == ["", "[UNK]"]
    assert len(words) == 12
    said = {each.split(",")[0] for each in (tmp_path / "texts.csv").read_text().splitlines()[1:]}
    known = {" ".join(w if w in words else "[UNK]" for w in each.split()) for each in said}
    assert {" ".join(words[i] for i in row) for row in x} <= known


def test_pictures_keep_their_pixels_and_classes(tmp_path):
    folder = small.images(tmp_path, each=8)
    images = {"folder": str(folder), "size": 12, "validation": 0.2, "test": 0.2}
    samples = loaded(tmp_path, {"images": images})
    x, y = samples.arrays("train")
    assert samples.counts == {"train": 12, "validation": 6, "test": 6}
    for pixels, label in zip(x, y, strict=True):  # the bright rows of the class
        rows = pixels.mean(axis=(1, 2)) > 150
        assert np.flatnonzero(rows).tolist() == list(range(4 * label, 4 * label + 4))
    gray = loaded(tmp_path, {"images": {**images, "color": "gray", "size": [6, 4]}})
    assert gray.arrays("test")[0].shape == (6, 6, 4, 1)


def test_pictures_that_do_not_stay_in_memory_are_the_same(tmp_path, monkeypatch):
    from keras_kd.runs import images

    data = {"images": {"folder": str(small.images(tmp_path, each=8)), "size": 6}}
    expected = loaded(tmp_path, data).arrays("train")
    monkeypatch.setattr(images, "_IN_MEMORY", 0)
    found = loaded(tmp_path, data).arrays("train")
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_order_of_an_epoch_is_that_of_its_number(tmp_path):
    import tensorflow as tf

    from keras_kd.runs.samples import EpochOrder

    batches = tf.data.Dataset.range(20).map(lambda i: (i, i)).batch(4)

    def order(epoch, seed=0):
        drawn = EpochOrder(batches, 20, 4, seed)
        drawn.on_epoch_begin(epoch)
        return [int(i) for x, _ in drawn.dataset for i in x]

    assert sorted(order(0)) == list(range(20))
    assert order(3) == order(3)
    assert len({tuple(order(0)), tuple(order(1)), tuple(order(0, seed=1))}) == 3


def test_preprocessing_of_applications():
    import inspect

    import keras

    from keras_kd.runs import teacher

    x = np.random.default_rng(0).uniform(0, 255, (1, 4, 4, 3)).astype("float32")
    modules = [each for _, each in inspect.getmembers(keras.applications, inspect.ismodule)]
    for name in ("MobileNetV2", "ResNet50", "DenseNet121", "EfficientNetB0", "MobileNetV3Small"):
        listed = [each for each in modules if hasattr(each, name)]
        own = (listed or [keras.applications.mobilenet_v3])[0].preprocess_input
        layer = teacher.preprocessing_of(name, 3)
        np.testing.assert_allclose(layer(x), own(x.copy()), atol=1e-4)
        again = type(layer).from_config(layer.get_config())
        np.testing.assert_allclose(again(x), own(x.copy()), atol=1e-4)
