"""Wrong calls of what makes, lists and pairs models, and of sequences of trainings."""

import json
import pathlib

import keras
import numpy as np
import tensorflow as tf

import keras_kd as kd
from tests.contract import fits
from tests.contract import tool_worlds as worlds
from tests.contract.calls import NAN, argument, values
from tests.contract.tool_worlds import X

students = kd.students


def shrink(**options):
    return students.shrink(**{"teacher": worlds.deep(), "depth": 0.5, "print_fn": None, **options})


def plan(**options):
    return students.plan(**{"teacher": worlds.deep(), "depth": 0.5, **options})


def add_exits(**options):
    return students.add_exits(**{"model": worlds.deep(), "layers": ["h0"], **options})


def softmax():
    layers = [keras.Input((worlds.FEATURES,)), *worlds.deep().layers, keras.layers.Softmax()]
    return keras.Sequential(layers, name="sure")


OF_STUDENTS = {
    **{
        name: row
        for call in (shrink, plan)
        for name, row in {
            **values(call, "teacher", "a functional or sequential keras.Model", [None, 3, "t"]),
            **values(call, "depth", "a number above 0", [0, -1, 1.5, NAN, "a", True, [0.5]]),
            **values(call, "width", "a number above 0", [0, 2, "a", True]),
            **values(call, "copy", "one of", ["first", 3, ["slice"]]),
            **values(call, "keep", "names or paths of layers", [3, None, [3], {"h1": 1}, b"h1"]),
            f"{call.__name__}: a model without shapes": (
                lambda call=call: call(teacher=worlds.unbuilt()),
                "'bare' does not know the shape of its inputs. Give it a keras.Input",
            ),
            f"{call.__name__}: a layer that is not there": (
                lambda call=call: call(keep=["h9"]),
                r"`keep` names 'h9', but model 'deep' has no such layer. Close to it: \['h2'",
            ),
            f"{call.__name__}: blocks that all stay": (
                lambda call=call: call(depth=0.99),
                "Nothing of model 'deep' can be removed for depth=0.99.*Pass a smaller depth",
            ),
            f"{call.__name__}: channels that all stay": (
                lambda call=call: call(depth=1.0, width=0.99),
                "Nothing of model 'deep' can be narrowed to width=0.99.*Pass width=1.0",
            ),
        }.items()
    },
    **values(shrink, "name", "a text without '/'", [3, "", "a/b", ["a"]]),
    **values(shrink, "print_fn", r"a function of \(line\), or None", [3, "p", True, lambda: 0]),
    **values(add_exits, "model", "a functional keras.Model", [None, 3, worlds.unbuilt()]),
    **values(add_exits, "layers", "the names of inner layers, each once", [None, 3, [], [3]]),
    **values(add_exits, "layers", "the names of inner layers", [["h0", "h0"], {"h0": 1}]),
    **values(add_exits, "num_classes", "an integer, at least 1, or None", [0, 1.5, "4", True]),
    **values(add_exits, "name", "a text without '/'", [3, "", "a/b"]),
    "exits of a layer that is not there": (
        lambda: add_exits(layers=["h9"]),
        r"Model 'deep' has no layer 'h9'. Close to it: \['h2'.*keras_kd.taps.summary\(model\)",
    ),
    "exits of the output": (
        lambda: add_exits(layers=["out"]),
        "Layer 'out' gives the output of model 'deep'.*Name layers inside",
    ),
    "exits of probabilities": (
        lambda: add_exits(model=softmax()),
        r"'sure' ends in softmax.*Remove the activation from its last layer \(activation=None\)",
    ),
    "exits of two outputs": (
        lambda: add_exits(model=worlds.two_heads(), layers=["a"]),
        r"has 2 outputs; exits learn from one. Pass keras.Model\(model.inputs",
    ),
}


def summary(**options):
    return kd.taps.summary(**{"model": worlds.deep(), "print_fn": None, **options})


def pair_layers(**options):
    given = {"teacher": worlds.deep(4), "student": worlds.deep(2), "print_fn": None}
    return kd.pair_layers(**{**given, **options})


def similar(data=X):
    return pair_layers(strategy="similarity", data=data)


def hints(**options):
    return pair_layers().hints(**options)


def inputs_rows(call, name, role):
    return {
        **values(call, name, "a batch of inputs, arrays", [3, "x", X.tolist(), worlds.batches()]),
        f"{call.__name__}: wide inputs": (
            lambda: call(**{name: X[:, :3]}),
            rf"The {role} 'deep' cannot take the inputs of `{name}`.*Received: \(None, 3\) float32",
        ),
        f"{call.__name__}: two inputs": (
            lambda: call(**{name: [X, X]}),
            rf"inputs of `{name}`: it takes 1 input\(s\), and 2 are given",
        ),
        f"{call.__name__}: texts": (
            lambda: call(**{name: X.astype(str)}),
            "texts where it takes numbers",
        ),
    }


OF_LAYERS = {
    **values(summary, "model", "a keras.Model", [None, 3, keras.Model]),
    **values(summary, "print_fn", "a function of a line, or None", [3, "p"]),
    **values(summary, "blocks_only", "True or False", [None, 1, "yes", []]),
    **inputs_rows(summary, "inputs", "model"),
    "summary: a model that knows no shapes": (
        lambda: summary(model=worlds.Subclassed()),
        "'own' does not know the shapes of its inputs. Pass `inputs`: a batch",
    ),
    **values(pair_layers, "teacher", "a keras.Model", [None, 3]),
    **values(pair_layers, "student", "a keras.Model", [None, "s"]),
    **values(pair_layers, "strategy", "one of", [None, 3, "order", ["depth"]]),
    **values(pair_layers, "count", "an integer, at least 1, or None", [0, 1.5, "2", True]),
    **values(pair_layers, "pattern", "a text such as", [None, 3, ["*"]]),
    **values(pair_layers, "print_fn", r"a function of \(table\), or None", [3, "p", lambda: 0]),
    **inputs_rows(pair_layers, "data", "teacher"),
    **inputs_rows(similar, "data", "teacher"),
    "pairs of a model that knows no shapes": (
        lambda: pair_layers(student=worlds.Subclassed()),
        "'own' does not know the shapes of its inputs. Pass `data`: a batch",
    ),
    "pairs by nothing": (lambda: pair_layers(pattern="none*"), r"No layers of .*pattern='none\*'"),
    "similarity without data": (lambda: similar(None), "strategy='similarity' needs `data`"),
    "similarity of one row": (
        lambda: similar(X[:1]),
        argument("data", "a batch of two rows at least, some hundred", r"shape \(1, 5\)"),
    ),
    "similarity of NaN": (
        lambda: similar(np.full_like(X, NAN)),
        argument("data", "finite inputs", r"ndarray of shape \(12, 5\) with NaN"),
    ),
    **values(hints, "weight", "a", [-1, NAN, "1", None, True, [1]]),
    **values(hints, "loss", "one of", [None, 3, "no", ["mse"]]),
    **values(hints, "projector", "'auto', 'linear', None or a Keras layer", ["no", 3, True]),
}

OF = fits.data()
SGD = {"optimizer": "sgd", "loss": "mse"}


def chain(**changes):
    given = {"models": [fits.network(1), fits.network(2)], "data": OF, "compile": SGD}
    return kd.distill_chain(**{**given, "fit": {"verbose": 0}, **changes})


def chain_fit(**options):
    return chain(fit={"verbose": 0, **options})


def chain_compile(**options):
    return chain(compile={**SGD, **options})


def born_again(directory=None, **options):
    made = kd.BornAgain(fits.network(1), generations=2, directory=directory)
    made.compile("sgd", "mse")
    return made.fit(**{"x": OF[0], "y": OF[1], "verbose": 0, **options})


def born_again_compile(**options):
    kd.BornAgain(fits.network(1), generations=2).compile(**{**SGD, **options})


def dataset(x=OF[0], y=OF[1]):
    return tf.data.Dataset.from_tensor_slices((x, y)).batch(4)


def settings_file(text):
    folder = worlds.folder()[1] / f"settings-{len(text)}"
    folder.mkdir(exist_ok=True)
    (folder / "settings.json").write_text(text, encoding="utf-8")
    return str(folder)


def validation_rows(call):
    x, y = OF
    table = {
        "a number": (3, "`validation_data` must be .*Received: a int"),
        "inputs": (x, "`validation_data` must be .*Received: a ndarray"),
        "no labels": ((x,), r"`validation_data` has no labels.*Pass \(inputs, labels\)"),
        "labels of none": ((x, None), "`validation_data` has no labels"),
        "other rows": ((x, y[:3]), r"`validation_data` must have one length.*\[3, 8\]"),
        "no rows": ((x[:0], y[:0]), "`validation_data` must have one length, above 0"),
        "other inputs": ((x[:, :2], y), "student .* cannot take the inputs of `validation_data`"),
        "other labels": (
            (x, y[:, :2]),
            r"`validation_data` has labels \[2\] for inputs \[3\], .* has labels \[5\].*one form",
        ),
        "an endless dataset": (
            dataset().repeat(),
            "`validation_data` never ends. Say how many .*validation_steps=number_of_batches",
        ),
        "an endless PyDataset": (worlds.Endless(), "`validation_data` never ends"),
        "an empty dataset": (dataset().take(0), "`validation_data` is empty: a dataset of 0 ba"),
    }
    return {
        f"{call.__name__}(validation_data={name})": (
            lambda value=value: call(validation_data=value),
            message,
        )
        for name, (value, message) in table.items()
    }


def fit_rows(call):
    return {
        **values(call, "epochs", "an integer, at least 1", [0, -1, "1", None, 1.5]),
        **values(call, "initial_epoch", "", [-1, 1, "0"]),
        **values(call, "batch_size", "an integer, at least 1, or None", [0, -1, "a", 2.5]),
        **values(call, "steps_per_epoch", "an integer, at least 1, or None", [0, "a"]),
        **values(call, "validation_steps", "an integer, at least 1, or None", [0, "a"]),
        **values(call, "class_weight", "a dict of numbers by class, or None", [3, [1.0]]),
        **values(call, "callbacks", "keras.callbacks.Callback objects", [3, [3], "tensorboard"]),
        **values(call, "callbacks", r"a function of \(number\)", [lambda: 0]),
        f"{call.__name__}: callbacks that are none": (
            lambda: call(callbacks=lambda number: 3),
            "`callbacks` must return a list of callbacks. Received: 3 for training",
        ),
    }


def compile_rows(call):
    return {
        **values(call, "run_eagerly", "True or False", ["yes", 2]),
        **values(call, "jit_compile", "True or False", ["yes"]),
        f"{call.__name__}: no such loss": (
            lambda: call(loss="none"),
            "Could not interpret loss identifier: none",
        ),
        f"{call.__name__}: no such metric": (
            lambda: call(metrics=["none"]),
            "Could not interpret metric identifier: none",
        ),
        f"{call.__name__}: no such optimizer": (
            lambda: call(optimizer="none"),
            "Could not interpret optimizer identifier: none",
        ),
    }


OF_SEQUENCES = {
    **fit_rows(chain_fit),
    **fit_rows(born_again),
    **compile_rows(chain_compile),
    **compile_rows(born_again_compile),
    **validation_rows(chain),
    **validation_rows(born_again),
    **values(chain, "directory", "the path of a folder", ["", "gs://bucket/c"]),
    # Which `pathlib` writes with one slash.
    **values(chain, "directory", "the path of a folder", [pathlib.Path("s3://bucket/c")]),
    **values(born_again, "directory", "the path of a folder", ["", "gs://bucket/c"]),
    "a chain in a file": (
        lambda: chain(directory=worlds.file("text.txt")),
        argument("directory", "the path of a folder; .*text.txt' is a file"),
    ),
    "a chain in a folder of others": (
        lambda: chain(directory=str(worlds.folder()[1])),
        "holds other files and no settings.json. Use an empty one",
    ),
    "half a settings.json": (
        lambda: chain(directory=settings_file("{")),
        "settings.json in the directory .* cannot be read.*or delete this one to begin again",
    ),
    "a settings.json of a list": (
        lambda: chain(directory=settings_file("[]")),
        "settings.json in the directory .* cannot be read: it has no settings and seed",
    ),
    "a settings.json without a seed": (
        lambda: chain(directory=settings_file(json.dumps({"settings": {}}))),
        "it has no settings and seed",
    ),
    "a chain that learns from nothing": (
        lambda: chain(alpha=0, beta=0),
        "`alpha` and `beta` are both 0.*Pass alpha= or beta= above 0",
    ),
    "generations that learn from nothing": (
        lambda: kd.BornAgain(fits.network(1), alpha=0, beta=0),
        "`alpha` and `beta` are both 0",
    ),
    "generations of a teacher without weights": (
        lambda: kd.BornAgain(fits.network(1), teacher=worlds.unbuilt()),
        r"`teacher` \('bare'\) has no weights yet",
    ),
    "generations without labels": (
        lambda: born_again(y=None),
        "`x` has no labels, and generation 0 learns from labels alone. Pass y=labels",
    ),
    "generations of a dataset without labels": (
        lambda: born_again(x=dataset().map(lambda x, y: x), y=None),
        "`x` has no labels",
    ),
    "generations of a generator": (
        lambda: born_again(x=(row for row in ()), y=None),
        argument("x", "data that is good for several passes"),
    ),
    "generations of endless data": (
        lambda: born_again(x=dataset().repeat(), y=None),
        "`x` never ends. Say how many .*steps_per_epoch=number_of_batches",
    ),
    "a chain of endless data": (lambda: chain(data=dataset().repeat()), "`data` never ends"),
    "a chain of empty data": (lambda: chain(data=dataset().take(0)), "`data` is empty"),
    "a chain of other inputs": (
        lambda: chain(data=(OF[0][:, :2], OF[1])),
        r"student .* cannot take the inputs of `data`.*\(None, 2\)",
    ),
    "a chain of labels of other rows": (
        lambda: chain(data=(OF[0], OF[1][:3])),
        r"`data` must have one length.*\[3, 8\]",
    ),
    "generations of other inputs": (
        lambda: born_again(x=OF[0][:, :2]),
        "cannot take the inputs of `x`",
    ),
    "generations before compile": (
        lambda: kd.BornAgain(fits.network(1)).fit(*OF),
        r"Call compile\(optimizer, loss, ...\) before fit",
    ),
}
