"""Wrong calls of the distillers, of taps and of `fit`: `{name: (call, what the message says)}`.

Each message says what is wrong, what was expected, what was received, or what to do.
"""

import keras
import numpy as np
import tensorflow as tf
from keras import layers

import keras_kd as kd
from tests.distiller import linear

X, Y = linear.data(8)
SPARSE = linear.from_logits


def made(*losses, classes=linear.CLASSES, **options):
    return kd.Distiller(*linear.pair(), list(losses) or None, **options)


def compiled(*losses, loss=True, **options):
    distiller = made(*losses, **options)
    distiller.compile(keras.optimizers.SGD(0.1), SPARSE() if loss is True else loss)
    return distiller


def heads(*names, seed=1):
    inputs = keras.Input((linear.FEATURES,))
    return keras.Model(inputs, {name: layers.Dense(4, name=name)(inputs) for name in names})


def hidden(width, name="hidden", size=(6,)):
    inputs = keras.Input(size)
    outputs = layers.Dense(width, name=name)(inputs)
    flat = layers.Flatten()(outputs) if len(size) > 1 else outputs
    return keras.Model(inputs, layers.Dense(4)(flat))


def hinted(teacher, student, *arguments, **options):
    return kd.Distiller(teacher, student, kd.losses.FeatureHint(*arguments, **options))


def masked(name):
    inputs = {"x": keras.Input((3,), name="x"), "mask": keras.Input((3,), name="mask")}
    pair = [keras.Model(inputs, layers.Dense(4)(inputs["x"])) for _ in "ts"]
    return kd.Distiller(*pair, mask_input=name)


def peers(*arguments, **options):
    return kd.MutualDistiller([linear.linear(1), linear.linear(2)], *arguments, **options)


class Scalar(kd.losses.DistillationLoss):
    def call(self, teacher_outputs, student_outputs):
        return keras.ops.mean(teacher_outputs - student_outputs)


def ends_in(activation, seed=1):
    return linear.linear(seed, activation=activation)


SOFT = kd.losses.SoftTargets

OF_DISTILLER = {
    "teacher is a string": (
        lambda: kd.Distiller("resnet", linear.linear(2)),
        "`teacher` must be a keras.Model.*callable.*Received: teacher='resnet'",
    ),
    "teacher is a class": (
        lambda: kd.Distiller(keras.Sequential, linear.linear(2)),
        "`teacher` must be a keras.Model.*Received",
    ),
    "student is a function": (
        lambda: kd.Distiller(linear.linear(1), lambda x: x),
        "`student`. Expected a keras.Model. Received.*function",
    ),
    "the same model": (
        lambda: kd.Distiller(*[linear.linear(1)] * 2),
        "the same model; it would teach itself",
    ),
    "shared weights": (
        lambda: _shared(),
        r"share weights that training would change in both.*clone_model",
    ),
    "alpha below 0": (
        lambda: made(alpha=-0.1),
        "argument `alpha`.*at least 0. Received: alpha=-0.1",
    ),
    "alpha is text": (
        lambda: made(alpha="half"),
        "argument `alpha`.*a number. Received: alpha='half'",
    ),
    "beta is NaN": (lambda: made(beta=float("nan")), "argument `beta`.*finite.*Received: beta=nan"),
    "beta is a bool": (lambda: made(beta=True), "argument `beta`.*a number. Received: beta=True"),
    "two spellings": (
        lambda: made(alpha=0.3, student_loss_weight=0.3),
        "`student_loss_weight=w` is another spelling of `alpha=w, beta=1-w`; give one",
    ),
    "student_loss_weight above 1": (
        lambda: made(student_loss_weight=1.5),
        "argument `student_loss_weight`. Expected a number between 0 and 1. Received.*1.5",
    ),
    "no losses": (lambda: kd.Distiller(*linear.pair(), []), "`distillation_losses` is empty. Pass"),
    "a loss by name": (
        lambda: kd.Distiller(*linear.pair(), "kl_divergence"),
        r"must be a keras_kd.losses.DistillationLoss.*Received: 'kl_divergence'.*SoftTargets",
    ),
    "a loss of Keras": (
        lambda: made(keras.losses.KLDivergence()),
        "A Keras loss compares labels with predictions; to distill from logits use",
    ),
    "a loss class": (lambda: made(SOFT), r"must be a keras_kd.losses.DistillationLoss.*Received"),
    "the same loss twice": (lambda: made(*[SOFT()] * 2), "the same loss object twice. Make two"),
    "weights of another length": (
        lambda: kd.Distiller(*linear.pair(), [SOFT()], [1.0, 2.0]),
        r"one number for each of the 1 distillation losses. Received: \[1.0, 2.0\]",
    ),
    "a weight below 0": (
        lambda: kd.Distiller(*linear.pair(), [SOFT()], [-1.0]),
        "`distillation_loss_weights`. Expected a finite number, at least 0. Received.*-1",
    ),
    "a preprocess that is not a function": (
        lambda: made(teacher_preprocess=3),
        "argument `teacher_preprocess`. Expected a function of the inputs, or None. Received.*3",
    ),
    "a weighting by name": (
        lambda: made(weighting="confidence"),
        "`weighting` must be a keras_kd.weighting.Weighting, such as.*Received: weighting='conf",
    ),
    "a mask that is a number": (lambda: made(mask_input=1), "argument `mask_input`.*Received.*=1"),
    "a mask that no input is": (
        lambda: masked("padding"),
        r"from input 'padding' \(`mask_input`\). The student's inputs are \['mask', 'x'\]",
    ),
    "a mask that fits no output": (
        lambda: masked("mask"),
        r"mask_input='mask' has shape \(None, 3\); no output has these positions",
    ),
    "an unknown argument": (
        lambda: made(temprature=3.0),
        "temprature",
    ),
    "a teacher of other inputs": (
        lambda: kd.Distiller(linear.linear(1, features=7), linear.linear(2)),
        "teacher fails on inputs like the student's.*give the distiller a `teacher_preprocess`",
    ),
    "other classes": (
        lambda: kd.Distiller(linear.linear(1, classes=7), linear.linear(2)),
        "different numbers of classes.* is 4, of `teacher_logits` 7. Give the student",
    ),
    "one class": (
        lambda: kd.Distiller(*linear.pair(classes=1)),
        r"compares distributions over classes.*\(None, 1\).*SigmoidKD.*RegressionKD",
    ),
    "another rank": (
        lambda: kd.Distiller(_flat(6, 4), _positions(6, 4)),
        "must have the same rank.*Reshape the teacher's in a function",
    ),
    "other positions": (
        lambda: kd.Distiller(_positions(6, 4, step=2), _positions(6, 4)),
        r"same shape.*\(None, 6, 4\).*\(None, 3, 4\).*keras.ops.image.resize",
    ),
    "a teacher of softmax": (
        lambda: kd.Distiller(ends_in("softmax"), linear.linear(2)),
        r"teacher ends in softmax.*activation=None.*teacher_from_logits=False",
    ),
    "a student of softmax": (
        lambda: kd.Distiller(linear.linear(1), ends_in("softmax")),
        r"student ends in softmax.*activation=None.*from_logits=False",
    ),
    "a student of sigmoid": (
        lambda: kd.Distiller(linear.linear(1), ends_in("sigmoid")),
        "student ends in sigmoid.*SigmoidKD",
    ),
    "logits taken for probabilities": (
        lambda: made(SOFT(from_logits=False)),
        "teacher ends in a linear layer.*Pass teacher_from_logits=True",
    ),
    "an output that is not there": (
        lambda: kd.Distiller(heads("a", "b"), heads("a", "b"), SOFT(output="c")),
        r"reads output 'c', which the teacher does not have. It has: \['a', 'b'\]",
    ),
    "an output by a wrong index": (
        lambda: made(SOFT(output=3)),
        "reads output 3, which the student does not have",
    ),
    "a dict of losses with a wrong key": (
        lambda: kd.Distiller(heads("a", "b"), heads("a", "b"), {"c": SOFT()}),
        r"names output 'c'; the student's outputs are \['a', 'b'\]",
    ),
    "one loss for two heads": (
        lambda: kd.Distiller(heads("a", "b"), heads("a", "b"), dict.fromkeys("ab", SOFT())),
        "the same loss object to two outputs. Give each output",
    ),
    "more heads than the teacher": (
        lambda: kd.Distiller(linear.linear(1), heads("a", "b")),
        "reads 1 outputs of the teacher and 2 of the student. Choose one of each.*`output`",
    ),
    "heads of other names": (
        lambda: kd.Distiller(heads("a", "b"), heads("a", "c")),
        r"\['a', 'b'\], the student's \['a', 'c'\]: which belong together is not known",
    ),
    "a teacher's output that is not there": (
        lambda: kd.Distiller(heads("a", "b"), linear.linear(2), SOFT(teacher_output="c")),
        "reads output 'c', which the teacher does not have",
    ),
    "a loss of one number": (
        lambda: made(Scalar()),
        r"must return one value for each row.*Received: shape \(\).*sample weights",
    ),
    "a student with its own step": (
        lambda: kd.Distiller(linear.linear(1), _with_step()),
        "overrides `train_step`, which is never called.*`compute_loss`.*subclass of keras_kd",
    ),
}


def _shared():
    inputs = keras.Input((5,))
    shared = layers.Dense(4)
    return kd.Distiller(keras.Model(inputs, shared(inputs)), keras.Model(inputs, shared(inputs)))


def _positions(count, classes, step=1):
    inputs = keras.Input((count, 2))
    hidden = layers.AveragePooling1D(step, name="hidden")(inputs)
    return keras.Model(inputs, layers.Dense(classes)(hidden))


def _flat(count, classes):
    inputs = keras.Input((count, 2))
    hidden = layers.Flatten(name="hidden")(inputs)
    return keras.Model(inputs, layers.Dense(classes)(hidden))


def _with_step():
    class Student(keras.Sequential):
        def train_step(self, data):
            return super().train_step(data)

    return Student([keras.Input((linear.FEATURES,)), layers.Dense(linear.CLASSES)])


OF_TAPS = {
    "a layer that is not there": (
        lambda: hinted(hidden(5), hidden(3), "hiden", "hidden"),
        r"has no layer 'hiden'. Close to it: \['hidden'.*taps.summary",
    ),
    "a student's layer that is not there": (
        lambda: hinted(hidden(5), hidden(3), "hidden", "block3"),
        "has no layer 'block3'. Close to it",
    ),
    "a layer of a function": (
        lambda: hinted(lambda x: x, hidden(3), "hidden", "hidden"),
        "the teacher is a callable without layers. Use a keras.Model",
    ),
    "a layer of another model": (
        lambda: hinted(hidden(5), hidden(3), layers.Dense(3, name="other"), "hidden"),
        "'other' does not belong to model.*Pass a layer of that model itself, not of a copy",
    ),
    "a layer by its number": (
        lambda: kd.losses.FeatureHint(3, "hidden"),
        "argument `teacher_layer`. Expected the name of a layer.*Received: teacher_layer=3",
    ),
    "no layer": (
        lambda: kd.losses.FeatureHint("hidden", None),
        "FeatureHint compares two layers. Received: .*student_layer=None",
    ),
    "a kind that there is not": (
        lambda: kd.taps.Tap("hidden", kind="outputs"),
        "argument `kind`. Expected one of.*Received: kind='outputs'",
    ),
    "a call that is not a number": (
        lambda: kd.taps.Tap("hidden", call="first"),
        "argument `call`. Expected an integer or None. Received: call='first'",
    ),
    "a call that there is not": (
        lambda: hinted(hidden(5), hidden(5), kd.taps.Tap("hidden", call=2), "hidden"),
        "was called 1 times in one forward pass: there is no call 2",
    ),
    "no attention": (
        lambda: kd.Distiller(hidden(5), hidden(5), kd.losses.AttentionMaps("hidden", "hidden")),
        "a Dense, computes no attention_logits. Layers that do",
    ),
    "a function that chooses nothing": (
        lambda: hinted(hidden(5), hidden(3), lambda model: None, "hidden"),
        "must return a layer, its path or a keras_kd.taps.Tap of one. Received: None",
    ),
    "a projector that is not known": (
        lambda: kd.losses.FeatureHint("a", "b", projector="dense"),
        "argument `projector`. Expected 'auto', 'linear', None.*Received: projector='dense'",
    ),
    "widths without a projector": (
        lambda: hinted(hidden(5), hidden(3), "hidden", "hidden", projector=None),
        r"have shape \(None, 3\) after the projector.*\(None, 5\). Pass projector='auto'",
    ),
    "lengths that no projector joins": (
        lambda: hinted(_positions(6, 4, step=2), _positions(6, 4), "hidden", "hidden"),
        "No projector leads.*Their lengths differ. Choose other layers",
    ),
    "ranks that no projector joins": (
        lambda: hinted(_flat(6, 4), _positions(6, 4), "hidden", "hidden"),
        "No projector leads.*Choose other layers, or pass a layer as `projector`",
    ),
    "a distance that is not known": (
        lambda: kd.losses.FeatureHint("a", "b", loss="l2"),
        "argument `loss`. Expected one of .*'mse', 'cosine'.*Received: loss='l2'",
    ),
    "an output of the teacher beside its layer": (
        lambda: SOFT(teacher_layer="logits", teacher_output="a"),
        "both name what the teacher gives; pass one. Received: teacher_output='a'",
    ),
    "an output that is a list": (
        lambda: SOFT(output=["a"]),
        r"argument `output`. Expected the name of an output, an index.*or None. Received.*\['a'\]",
    ),
    "summary of no model": (lambda: kd.taps.summary(3), "Received"),
    "summary without shapes": (
        lambda: kd.taps.summary(_subclassed()),
        "does not know the shapes of its inputs. Pass `inputs`",
    ),
}


def _subclassed():
    class Net(keras.Model):
        def call(self, inputs):
            return inputs

    return Net()


def fitted(distiller, *args, **kwargs):
    return distiller.fit(*args, **{"verbose": 0, **kwargs})


def _after(distiller, name, value):
    setattr(distiller, name, value)
    return fitted(distiller, X, Y)


OF_FIT = {
    "compile without a loss": (
        lambda: made().compile("sgd"),
        "`loss` is None, but alpha=0.5 gives the hard loss a factor.*alpha=0",
    ),
    "metrics by position": (
        lambda: made().compile("sgd", SPARSE(), ["accuracy"]),
        r"`loss_weights` of compile must be numbers.*'accuracy'.*metrics=\[...\]",
    ),
    "a metric called as a loss": (
        lambda: made().compile("sgd", SPARSE(), metrics=[keras.metrics.Mean(name="soft_targets")]),
        "A metric is called 'soft_targets', and so is a loss.*another name",
    ),
    "no labels": (
        lambda: fitted(compiled(), X),
        r"no labels, but alpha=0.5 gives the hard loss a factor. Pass \(inputs, labels\), or set",
    ),
    "no labels in a dataset": (
        lambda: fitted(compiled(), tf.data.Dataset.from_tensor_slices(X).batch(4)),
        "no labels, but alpha=0.5",
    ),
    "no labels in a generator": (
        lambda: fitted(compiled(), ((X,) for _ in range(2))),
        "no labels, but alpha=0.5",
    ),
    "no validation labels": (
        lambda: fitted(compiled(), X, Y, validation_data=(X,)),
        "The evaluation data has no labels.*evaluate_with_teacher = True",
    ),
    "weights without labels": (
        lambda: fitted(compiled(alpha=0.0), X, sample_weight=np.ones(8)),
        "`sample_weight` without `y`: Keras would silently leave the weights out",
    ),
    "nothing to learn from": (
        lambda: fitted(compiled(alpha=0.0, beta=0.0), X, Y),
        "alpha and beta are both 0: the student has nothing to learn from. Set one",
    ),
    "a loss that needs labels": (
        lambda: fitted(compiled(kd.losses.DecoupledKD(), alpha=0.0, loss=None), X),
        r"'decoupled_kd' needs labels, and the data has none. Pass \(inputs, labels\)",
    ),
    "batches of one row": (
        lambda: fitted(compiled(kd.losses.DIST()), X, Y, batch_size=1),
        "compares the rows of a batch and needs at least 2.*batches of 1. Use a larger batch_size",
    ),
    "alpha that is text": (
        lambda: _after(compiled(), "alpha", "1"),
        "argument `alpha`. Expected a number. Received: alpha='1'",
    ),
    "a weight of a loss below 0": (
        lambda: setattr(SOFT(), "weight", -2),
        "argument `weight`. Expected a finite number, at least 0. Received: weight=-2",
    ),
    "a temperature of 0": (
        lambda: setattr(SOFT(), "temperature", 0.0),
        "argument `temperature`. Expected a positive, finite number.*0.0",
    ),
    "alpha without a compiled loss": (
        lambda: _after(compiled(alpha=0.0, loss=None), "alpha", 1.0),
        "alpha=1.0 needs a hard loss, but compile got no loss. Pass one to compile",
    ),
    "a loss attached that is none": (
        lambda: compiled().attach("soft_targets"),
        "must be a keras_kd.losses.DistillationLoss.*Received: 'soft_targets'",
    ),
    "a projector after the optimizer": (
        lambda: _late_hint(),
        "has weights of its own.*Compile the distiller again before this fit",
    ),
    "compute_loss without inputs": (
        lambda: compiled().compute_loss(y=Y),
        "runs the models where no step does: pass `x`",
    ),
    "labels of another length": (lambda: fitted(compiled(), X, Y[:5]), "8.*5"),
    "weights of another length": (
        lambda: fitted(compiled(), X, Y, sample_weight=np.ones(3)),
        "3",
    ),
    "weights that do not fit the outputs": (
        lambda: fitted(compiled(alpha=0.0), X, Y, sample_weight=np.ones((8, 3))),
        r"sample_weight of shape \(None, 3\) does not fit a loss of shape",
    ),
}


def _late_hint():
    distiller = kd.Distiller(hidden(5), hidden(3))
    distiller.compile(keras.optimizers.SGD(0.0), SPARSE())
    distiller.optimizer.build(distiller.trainable_variables)
    distiller.attach(kd.losses.FeatureHint("hidden", "hidden"))


OF_PEERS = {
    "one peer": (
        lambda: kd.MutualDistiller([linear.linear(1)]),
        "argument `peers`. Expected a list of at least two keras.Models",
    ),
    "a peer that is not a model": (
        lambda: kd.MutualDistiller([linear.linear(1), len]),
        r"argument `peers\[1\]`. Expected a keras.Model. Received",
    ),
    "the same peer twice": (
        lambda: kd.MutualDistiller([linear.linear(1)] * 2),
        "Peers 0 and 1 are the same model",
    ),
    "peers of other classes": (
        lambda: kd.MutualDistiller([linear.linear(1), linear.linear(2, classes=7)]),
        "have outputs of different shapes.*the same classes",
    ),
    "a peer without weights": (
        lambda: kd.MutualDistiller([linear.linear(1), keras.Sequential([layers.Dense(4)])]),
        "has no weights yet. Give it an Input, or call it",
    ),
    "a peer with its own step": (
        lambda: kd.MutualDistiller([linear.linear(1), _with_step()]),
        "overrides `train_step`, which is never called",
    ),
    "a matrix of another shape": (
        lambda: peers(teaching=[[0, 1]]),
        r"argument `teaching`. Expected a matrix of shape \(2, 2\)",
    ),
    "a peer that teaches itself": (
        lambda: peers(teaching=[[1, 1], [1, 0]]),
        "0 on the diagonal",
    ),
    "a loss of inner layers": (
        lambda: peers(kd.losses.FeatureHint("dense", "dense")),
        "reads inner layers; peers teach each other by their outputs",
    ),
    "a loss by name among peers": (
        lambda: peers("kl"),
        "argument `distillation_loss`. Expected one keras_kd.losses.DistillationLoss",
    ),
    "peers compiled without a loss": (
        lambda: peers().compile("sgd"),
        "`loss` is None, but alpha=1.0 gives the hard losses a factor",
    ),
    "optimizers of another number": (
        lambda: peers().compile(["sgd"], SPARSE()),
        "`optimizer` must be one for all peers or a list with one for each of the 2 peers",
    ),
    "a callback that needs a teacher": (
        lambda: _peers_with(kd.callbacks.FeatureHint("dense", "dense")),
        "FeatureHint works on a keras_kd.Distiller. With peers use",
    ),
}


def _peers_with(callback):
    made = peers()
    made.compile("sgd", SPARSE())
    return made.fit(X, Y, callbacks=[callback], verbose=0)
