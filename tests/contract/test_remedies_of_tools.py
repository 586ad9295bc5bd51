"""What messages of measure, report, diagnose, shrink and sequences say to do is done here."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_kd as kd
from tests import extras
from tests.contract import fits
from tests.contract import tool_worlds as worlds
from tests.contract import wrong_calls_of_models as of_models
from tests.contract import wrong_calls_of_reports as of_reports
from tests.contract.tool_worlds import X, Y
from tests.contract.wrong_calls_of_tools import diagnose, images, measure, onnx


def message(call, kind=ValueError):
    with pytest.raises(kind, match=".") as found:
        call()
    return str(found.value)


class TestMeasure:
    def test_data(self):
        assert "Pass (inputs, labels)" in message(lambda: measure(data=(X, None)))
        assert "np.asarray(x)" in message(lambda: measure(data=(X.tolist(), Y)))
        assert ".batch(256)" in message(lambda: measure(data=worlds.batches().unbatch()))
        assert ".take(number_of_batches)" in message(
            lambda: measure(data=worlds.batches().repeat())
        )
        expected = measure().quality
        rows = worlds.batches().unbatch()
        for data in (
            (np.asarray(X.tolist(), "float32"), Y),
            rows.batch(256),
            worlds.batches().repeat().take(3),
        ):
            assert measure(data=data).quality == pytest.approx(expected, rel=1e-5)

    def test_names_and_numbers_of_classes(self):
        text = message(lambda: measure(class_names=["a", "b"]))
        assert "Pass one name for each, in the order of the outputs" in text
        assert measure(class_names=list("abcd")).per_class[1]["label"] == "b"
        assert "Leave out 99" in message(lambda: measure(top_k=(2, 99)))
        assert "top_2_accuracy" in measure(top_k=(2,)).quality
        one = worlds.model(1, 1)
        numbers = (X, Y * 0.5)
        assert "Leave it out, or set `task`" in message(
            lambda: measure(one, numbers, class_names=["no", "yes"])
        )
        assert measure(one, numbers).task == "regression"
        named = measure(one, (X, Y % 2), task="binary", class_names=["no", "yes"])
        assert named.per_class[1]["label"] == "yes"

    def test_outputs(self):
        two = worlds.two_heads()
        assert "by its name or its index" in message(lambda: measure(two))
        assert measure(two, output="b").quality == measure(two, output=1).quality

    def test_what_is_returned(self):
        softmax = keras.Sequential([worlds.model(), keras.layers.Softmax()])
        softmax.build((None, worlds.FEATURES))
        assert "from_logits=False" in message(lambda: measure(softmax))
        assert measure(softmax, from_logits=False).quality == pytest.approx(measure().quality)
        assert "teacher_from_logits=False" in message(lambda: measure(teacher=softmax))
        assert measure(teacher=softmax, teacher_from_logits=False).teacher["agreement"] == 1.0
        assert "from_logits=True" in message(lambda: measure(from_logits=False))
        measure(from_logits=True)
        text = message(lambda: measure(softmax, from_logits=False, teacher=worlds.model()))
        assert "teacher_from_logits=True" in text
        measure(softmax, from_logits=False, teacher=worlds.model(), teacher_from_logits=True)

    def test_a_teacher_of_other_classes(self):
        text = message(lambda: measure(teacher=worlds.model(2, 3)))
        assert "a teacher of the same classes, or teacher=None" in text
        assert measure(teacher=worlds.model(2, 4)).teacher is not None
        assert measure(teacher=None).teacher is None

    def test_a_model_without_weights(self):
        text = message(lambda: measure(worlds.unbuilt()))
        assert "Give it a keras.Input, or call it on a batch" in text
        called = worlds.unbuilt()
        called(X)
        measure(called)
        measure(keras.Sequential([keras.Input((worlds.FEATURES,)), *worlds.unbuilt().layers]))

    def test_a_part_of_a_file(self, tmp_path):
        text = message(lambda: measure(worlds.file("cut.keras")))
        assert "Save the model again: model.save(path)" in text
        worlds.model().save(tmp_path / "again.keras")
        assert measure(tmp_path / "again.keras").quality == pytest.approx(measure().quality)

    def test_labels_that_are_missing(self):
        numbers = np.where(Y == 3, np.nan, Y).astype("float32")
        one = worlds.model(1, 1)
        text = message(lambda: measure(one, (X, numbers), task="regression"))
        assert "Give samples without a label the weight 0" in text
        there = np.isfinite(numbers)
        found = measure(one, (X, numbers, there.astype("float32")), task="regression")
        assert found.samples == there.sum()

    def test_texts(self):
        text = message(lambda: measure(task="text"))
        assert "`decode` makes strings" in text
        extras.require("sacrebleu")
        extras.require("rouge_score")
        data = (X, np.array(["a b c d e"] * len(X)))
        words = measure(data=data, task="text", decode=lambda x: ["a b c d e"] * len(x))
        assert words.quality["bleu"] == pytest.approx(100.0)
        weights = np.arange(len(X)) + 1.0
        text = message(lambda: measure(["a b c d e"] * len(X), (*data, weights)))
        assert "all texts the same one, or 0 to those that do not count" in text
        assert measure(["a b c d e"] * len(X), (*data, 2.0 * (weights > 3))).samples == len(X) - 3

    def test_batches_of_other_lengths(self):
        inputs = keras.Input((None, 5))
        tokens = keras.Model(inputs, keras.layers.Dense(4)(inputs))
        parts = [np.zeros((2, length, 5), "float32") for length in (3, 2)]

        def rows(padded):
            for x in parts:
                labels = keras.utils.to_categorical(np.ones(x.shape[:2], int), 4)
                short = 3 - x.shape[1] if padded else 0
                wide = [(0, 0), (0, short), (0, 0)]
                yield np.pad(x, wide), np.pad(labels, wide, constant_values=0.25)

        def data(padded):
            shapes = tf.TensorSpec((None, None, 5)), tf.TensorSpec((None, None, 4))
            return tf.data.Dataset.from_generator(lambda: rows(padded), output_signature=shapes)

        assert "Pad them to one length" in message(lambda: measure(tokens, data(False)))
        assert measure(tokens, data(True)).samples == 12

    def test_inputs_of_a_file(self):
        file = onnx(outputs=["logits"])
        text = message(lambda: measure(file, ({"z": X, "w": X}, Y)))
        assert "Let the data give {'x': ...}" in text
        assert measure(file, ({"x": X, "w": X}, Y)).quality["accuracy"] >= 0
        assert "Choose one of them with `output`" in message(lambda: measure(worlds.onnx()))
        assert measure(worlds.onnx(), output="logits").kind == "onnx"

    def test_images_of_a_file_with_channels_first(self, tmp_path):
        extras.require("onnxruntime")
        made = extras.require("tests.measurement.onnx_files")
        from keras_kd import runtimes

        path = tmp_path / "c.onnx"
        made.convolution(path)
        x = np.zeros((4, 8, 8, 3), "float32")
        labels = np.zeros(4, int)
        closed = runtimes.OnnxFile(path)
        outputs = [info.name for info in closed.outputs]
        text = message(lambda: measure(closed, (x, labels), output=outputs[-1]))
        assert "OnnxFile(path, channels_first=True)" in text
        opened = runtimes.OnnxFile(path, channels_first=True)
        measure(opened, (x, labels), output=outputs[-1])


class TestDiagnose:
    def test_one_of_two_outputs(self):
        model = worlds.two_heads()
        text = message(lambda: diagnose(teacher=model))
        assert "keras.Model(model.inputs, output)" in text
        diagnose(teacher=keras.Model(model.inputs, model.output["a"]))

    def test_findings_that_name_arguments(self):
        softmax = keras.Sequential([worlds.model(2), keras.layers.Softmax()])
        softmax.build((None, worlds.FEATURES))
        found = {each.check: each for each in diagnose(teacher=softmax).findings}
        assert "from_logits=False" in found["teacher's outputs"].remedy
        assert "SoftTargets(teacher_from_logits=False)" in found["teacher's outputs"].remedy
        both = diagnose(teacher=softmax, student=None, from_logits=False)
        assert not any("softmax" in each.message for each in both.findings)
        kd.Distiller(softmax, worlds.model(1), kd.losses.SoftTargets(teacher_from_logits=False))

    def test_classes_that_are_learned_in_part(self):
        found = diagnose(student=worlds.model(1, 6))
        remedies = " ".join(each.remedy for each in found.problems)
        assert "kd.losses.LearningWithoutForgetting(student_classes=" in remedies
        loss = kd.losses.LearningWithoutForgetting(
            student_classes=[0, 1, 2, 3], teacher_classes=[0, 1, 2, 3]
        )
        kd.Distiller(worlds.model(2), worlds.model(1, 6), loss)

    def test_weightings_that_are_named(self):
        kd.Distiller(worlds.model(2), worlds.model(1), weighting=kd.weighting.TeacherCorrectness())
        recall = [0.5, 0.9, 0.1, 1.0]
        kd.Distiller(worlds.model(2), worlds.model(1), weighting=kd.weighting.ClassShares(recall))


class TestReport:
    report = staticmethod(of_reports.report)

    def test_seeds_files_and_slices(self):
        report = self.report
        assert "Leave them out" in message(lambda: report(seeds=2))
        assert report().finding
        three = [worlds.model(seed) for seed in (2, 3)]
        assert "one baseline for each student" in message(lambda: report(baseline=three))
        pairs = {"student": [worlds.model(1), worlds.model(4)], "baseline": three}
        assert len(report(**pairs).students) == 2
        files = [worlds.file("whole.keras")] * 2
        text = message(lambda: report(exports={"file": files}))
        assert "a list with one for each, in the same order, or a function" in text
        rows = report(exports={"file": files[:1]}).rows
        assert rows[-1]["name"] == "file"
        made = report(exports={"made": lambda student, path: worlds.file("whole.keras")}).rows
        assert made[-1]["name"] == "made"
        text = message(lambda: report(slices=np.zeros(5)))
        assert "one value for each sample, also for those without a label" in text
        unlabeled = np.where(np.arange(len(Y)) < 2, -1, Y)
        found = report(data=(X, unlabeled), slices=np.arange(len(Y)) % 2)
        assert sum(row["samples"] for row in found.slices) == len(Y) - 2

    def test_many_values_are_grouped(self):
        many = np.arange(60.0)
        x = np.tile(X, (5, 1))
        data = (x, np.tile(Y, 5))
        text = message(lambda: self.report(data=data, slices=many))
        assert "np.digitize(values, [10, 100])" in text
        grouped = self.report(data=data, slices=np.digitize(many, [10, 100]))
        assert [row["samples"] for row in grouped.slices] == [10, 50]

    def test_data_in_one_order(self):
        text = message(lambda: self.report(data=of_reports.shuffled()))
        assert "reshuffle_each_iteration=False" in text
        rows = worlds.batches().unbatch()
        fixed = rows.shuffle(12, seed=3, reshuffle_each_iteration=False).batch(4)
        assert self.report(data=fixed).rows
        assert self.report(data=rows.batch(4)).rows

    def test_one_way_to_call_it(self):
        text = message(lambda: of_reports.trains(student=worlds.model(1)))
        assert "either student= and baseline=, or make_student= and train=" in text
        assert "Pass student=" in message(lambda: self.report(student=None))
        assert self.report(student=worlds.model(1), baseline=None).rows

    def test_a_student_without_weights(self):
        text = message(lambda: of_reports.trains(make_student=worlds.unbuilt))
        assert "give it an Input, or call it on a batch" in text
        with pytest.raises(AssertionError, match="it was called"):  # it comes to the training
            of_reports.trains(make_student=of_reports.new_student)


class TestModels:
    def test_exits(self):
        exits = of_models.add_exits
        assert "activation=None" in message(lambda: exits(model=of_models.softmax()))
        assert sorted(exits().output) == ["exit_h0", "final"]
        text = message(lambda: exits(model=worlds.two_heads(), layers=["a"]))
        assert "keras.Model(model.inputs" in text
        inputs = keras.Input((worlds.FEATURES,))
        hidden = keras.layers.Dense(4, name="hidden")(inputs)
        two = keras.Model(inputs, [keras.layers.Dense(4)(hidden), keras.layers.Dense(2)(hidden)])
        one = keras.Model(two.inputs, two.outputs[0])
        assert exits(model=one, layers=["hidden"]).output["final"].shape == (None, 4)
        text = message(lambda: exits(layers=["out"]))
        assert "Name layers inside of it that give one" in text
        assert "exit_h2" in exits(layers=["h2"]).output

    def test_exits_of_nested_and_clashing_layers(self):
        inputs = keras.Input((worlds.FEATURES,))
        body = worlds.deep(2)
        outer = keras.Model(inputs, keras.layers.Dense(3, name="head")(body(inputs)))
        text = message(lambda: of_models.add_exits(model=outer, layers=["deep/h0"]))
        assert "Name a layer of the model itself, or give exits to the nested one" in text
        of_models.add_exits(model=outer, layers=["deep"])
        of_models.add_exits(model=body, layers=["h0"])
        named = keras.Sequential(
            [keras.Input((5,)), keras.layers.Dense(4, name="final"), keras.layers.Dense(4)]
        )
        assert "Rename them" in message(lambda: of_models.add_exits(model=named, layers=["final"]))
        renamed = keras.Sequential(
            [keras.Input((5,)), keras.layers.Dense(4, name="body"), keras.layers.Dense(4)]
        )
        of_models.add_exits(model=renamed, layers=["body"])

    def test_what_cannot_become_smaller(self):
        text = message(lambda: of_models.shrink(depth=0.99))
        assert "Pass a smaller depth, or keep fewer layers" in text
        of_models.shrink(depth=0.5)
        text = message(lambda: of_models.shrink(depth=1.0, width=0.99))
        assert "Pass width=1.0, or name fewer layers to keep" in text
        of_models.shrink(depth=1.0, width=1.0)
        kept = {"depth": 1.0, "width": 0.5, "keep": ["h0", "h1", "h2"]}
        assert "name fewer layers" in message(lambda: of_models.shrink(**kept))
        of_models.shrink(**{**kept, "keep": ["h0"]})
        flat = keras.Sequential([keras.Input((5,)), keras.layers.Dense(4, name="only")])
        text = message(lambda: of_models.shrink(teacher=flat))
        assert "Pass depth=1.0 and use `width`" in text
        of_models.shrink(teacher=worlds.deep(1), depth=1.0, width=0.5)

    def test_models_that_do_not_tell_their_layers(self):
        text = message(lambda: of_models.shrink(teacher=worlds.unbuilt()))
        assert "Give it a keras.Input as its first layer, or call it on data" in text
        called = keras.Sequential([keras.layers.Dense(8, name=f"h{i}") for i in range(3)])
        called(X)
        of_models.shrink(teacher=called)

    def test_layers(self):
        text = message(lambda: of_models.summary(model=worlds.Subclassed()))
        assert "Pass `inputs`: a batch, or keras.KerasTensor" in text
        for inputs in (X, keras.KerasTensor((None, worlds.FEATURES))):
            assert of_models.summary(model=worlds.Subclassed(), inputs=inputs)
        text = message(lambda: of_models.pair_layers(student=worlds.Subclassed()))
        assert "Pass `data`: a batch" in text
        student = worlds.Subclassed()
        text = message(lambda: of_models.pair_layers(student=student, data=X))
        assert "Try another one, or name pairs yourself; keras_kd.taps.summary(model)" in text
        text = message(lambda: of_models.pair_layers(pattern="none*"))
        assert "Try another one" in text
        assert of_models.pair_layers(pattern="h*")
        assert "two rows at least" in message(lambda: of_models.similar(X[:1]))
        assert of_models.similar(X)


class TestSequences:
    def test_data(self):
        endless = of_models.dataset().repeat()
        text = message(lambda: of_models.born_again(x=endless, y=None))
        assert "steps_per_epoch=number_of_batches" in text
        assert ".take(number_of_batches)" in text
        eager = {"verbose": 0, "epochs": 1, "shuffle": False}
        made = kd.BornAgain(fits.network(1), generations=2)
        made.compile("sgd", "mse", run_eagerly=True)
        made.fit(endless, steps_per_epoch=1, **eager)
        text = message(lambda: made.fit(*fits.data(), validation_data=endless, **eager))
        assert "validation_steps=number_of_batches" in text
        found = made.fit(
            *fits.data(), validation_data=endless, validation_steps=1, batch_size=8, **eager
        )
        assert "loss" in found.rows[0]
        made.fit(*fits.data(), validation_data=endless.take(1), batch_size=8, **eager)

    @pytest.mark.parametrize("count", [None, 1])
    def test_a_chain_of_batches_that_are_indexed(self, count):
        """After its trainings it failed to compare the models on them."""

        class Batches(keras.utils.PyDataset):
            num_batches = count

            def __getitem__(self, index):
                return fits.data()

        eager = {"optimizer": "sgd", "loss": "mse", "run_eagerly": True}
        fit = {"verbose": 0, "validation_steps": 1, "shuffle": False}
        made = of_models.chain(
            data=of_models.dataset().take(1), validation_data=Batches(), compile=eager, fit=fit
        )
        assert "agreement_with_teacher" in made.rows[1]

    def test_labels(self):
        text = message(lambda: of_models.born_again(y=None))
        assert "give BornAgain a teacher and alpha=0" in text
        made = kd.BornAgain(fits.network(1), 1, alpha=0, beta=1.0, teacher=fits.network(2))
        made.compile("sgd", run_eagerly=True)
        made.fit(fits.data()[0], verbose=0)
        text = message(lambda: kd.BornAgain(fits.network(1), alpha=0, beta=0))
        assert "Pass alpha= or beta= above 0" in text
        kd.BornAgain(fits.network(1), alpha=0, beta=1)

    def test_directories(self, tmp_path):
        for words in ("{", "[]"):
            folder = of_models.settings_file(words)
            text = message(lambda folder=folder: of_models.chain(directory=folder))
            assert "Use another directory, or delete this one to begin again" in text
        text = message(lambda: of_models.chain(directory=str(worlds.folder()[1])))
        assert "Use an empty one" in text
        eager = {"optimizer": "sgd", "loss": "mse", "run_eagerly": True}
        of_models.chain(directory=tmp_path, compile=eager)
        assert (tmp_path / "model_1.keras").exists()

    def test_weights_and_compile(self):
        text = message(lambda: kd.BornAgain(worlds.unbuilt()))
        assert "Give it an Input, or call it on a batch once" in text
        called = worlds.unbuilt()
        called(X)
        kd.BornAgain(called)
        assert "Call compile(" in message(lambda: kd.BornAgain(fits.network(1)).fit(*fits.data()))
        given = {"optimizer": "sgd", "run_eagerly": True}
        text = message(lambda: kd.BornAgain(fits.network(1)).compile(**given))
        assert "Pass the loss of the labels, or give BornAgain a teacher" in text
        kd.BornAgain(fits.network(1)).compile(loss="mse", **given)


class TestData:
    def test_tensors_that_are_not_dense(self):
        rows = tf.ragged.constant([[0.0], [1.0, 2.0], [3.0], [4.0]])
        ragged = tf.data.Dataset.from_tensor_slices((rows, [0, 1, 2, 0])).batch(2)
        assert "tf.RaggedTensor.to_tensor()" in message(lambda: kd.data.mixup(ragged, 3))
        dense = ragged.map(lambda x, y: (x.to_tensor(), y))
        assert len(list(kd.data.mixup(dense, 3))) == 2

    def test_tensors_of_no_known_rank(self):
        kinds = ("float32", "int64")
        unknown = tf.data.Dataset.from_generator(lambda: iter([(X, Y)]), output_types=kinds)
        text = message(lambda: kd.data.mixup(unknown, 4))
        assert "tf.ensure_shape" in text
        assert "output_signature" in text
        shaped = unknown.map(
            lambda x, y: (tf.ensure_shape(x, (None, 5)), tf.ensure_shape(y, (None,)))
        )
        assert len(list(kd.data.mixup(shaped, 4))) == 1

    def test_labels_of_positions(self):
        labels = np.full((8, 3, 5), 0.2, "float32")
        assert "keras_kd.data.mixup" in message(lambda: kd.data.cutmix(images(labels), 5))
        assert len(list(kd.data.mixup(images(labels), 5))) == 2

    def test_labels_of_unlabeled_rows(self):
        zeros = worlds.batches(y=np.eye(4, dtype="int32")[Y])
        more = worlds.batches().map(lambda x, y: x)
        text = message(lambda: kd.data.with_unlabeled(zeros, more))
        assert "cast zeros and ones to float32" in text
        cast = zeros.map(lambda x, y: (x, tf.cast(y, "float32")))
        assert len(list(kd.data.with_unlabeled(cast, more))) == 3
        weighted = worlds.batches().map(lambda x, y: (x, y, tf.ones_like(y)))
        assert "leave the weights out" in message(lambda: kd.data.mixup(weighted, 4))
        assert len(list(kd.data.mixup(weighted.map(lambda x, y, w: (x, y)), 4))) == 3
