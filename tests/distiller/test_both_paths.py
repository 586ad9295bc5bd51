"""Every argument of a loss with a fast path, through both paths, against float64.

Values and one SGD step of `fit`'s own step. The hard loss `SCE()` takes the fused path where that
computes the same; `[SCE()]` means the same and never takes it.
"""

import keras
import numpy as np
import pytest
from keras import layers

import keras_kd as kd
from tests import reference
from tests.distiller.linear import MODES

BATCH, TIME, FEATURES, CLASSES = 5, 7, 3, 4
ALPHA, BETA, RATE = 0.3, 0.8, 0.1
IGNORED = 2
LENGTHS = (7, 3, 5, 1, 6)


def network(seed, outputs="head"):
    """`head(aux(x))`, two dense layers without an activation, and an input that is a mask."""
    x, mask = keras.Input((TIME, FEATURES), name="x"), keras.Input((TIME,), name="mask")
    aux = layers.Dense(CLASSES, name="aux")(x)
    head = layers.Dense(CLASSES, name="head")(aux)
    made = {
        "head": lambda: head,
        "softmax": lambda: layers.Softmax(name="probabilities")(head),
        "several": lambda: {"main": head, "other": aux},
        "one_in_dict": lambda: {"theirs": head},
    }[outputs]()
    model = keras.Model({"x": x, "mask": mask}, made)
    rng = np.random.default_rng(seed)
    model.set_weights([rng.normal(size=weight.shape) for weight in model.weights])
    return model


def data():
    rng = np.random.default_rng(3)
    mask = np.arange(TIME)[None] < np.array(LENGTHS)[:, None]
    x = rng.normal(size=(BATCH, TIME, FEATURES)).astype("float32")
    weight = rng.uniform(0.2, 2.0, (BATCH, TIME)).astype("float32")
    weight[1, 2] = 0.0
    labels = rng.integers(CLASSES, size=(BATCH, TIME))
    return {"x": x, "mask": mask.astype("float32")}, labels, weight, mask


# For each case: arguments of the loss, and what is different of the models and of the truth.
CASES = {
    "default": {},
    "temperature": {"loss": {"temperature": 1.5}},
    "reverse_kl": {"loss": {"divergence": "reverse_kl"}},
    "jsd": {"loss": {"divergence": "jsd", "mixing_weight": 0.3}},
    "weight": {"loss": {"weight": 0.25}},
    "output_index": {"loss": {"output": 0}},
    "output_name": {"loss": {"output": "head"}, "teacher": "one_in_dict"},
    "teacher_output": {"loss": {"teacher_output": "other"}, "teacher": "several", "reads": "aux"},
    "teacher_layer": {"loss": {"teacher_layer": "aux"}, "reads": "aux"},
    "layers": {
        "loss": {"teacher_layer": "aux", "student_layer": "aux"},
        "reads": "aux",
        "student_reads": "aux",
        "is_fused": False,
    },
    "mask_input": {"loss": {"mask_input": "mask"}, "is_masked": True},
    "teacher_from_logits": {
        "loss": {"teacher_from_logits": False},
        "teacher": "softmax",
        "is_fused": False,
    },
    "from_logits": {
        "loss": {"from_logits": False},
        "teacher": "softmax",
        "student": "softmax",
        "is_fused": False,
    },
    "ignore_class": {"ignore_class": IGNORED},
}
WEIGHTINGS = ("unweighted", "weighted", "masked")


def forward(model, x):
    k1, b1, k2, b2 = (np.float64(weight) for weight in model.get_weights())
    aux = np.float64(x) @ k1 + b1
    return {"aux": aux, "head": aux @ k2 + b2}


def truth(case, teacher, student, weighting):
    """`(logs, weights after a step)`."""
    inputs, y, weight, mask = data()
    options = {"temperature": 4.0, "divergence": "forward_kl", "mixing_weight": 0.5, "weight": 1.0}
    options |= {key: v for key, v in case.get("loss", {}).items() if key in options}
    factor = options.pop("weight")
    valid = mask if weighting == "masked" or case.get("is_masked") else np.ones_like(mask)
    weight = weight if weighting == "weighted" else np.ones_like(weight)
    counts = valid & (y != case["ignore_class"]) if "ignore_class" in case else valid
    taught, own = forward(teacher, inputs["x"]), forward(student, inputs["x"])
    reads, student_reads = case.get("reads", "head"), case.get("student_reads", "head")
    rows = {"hard": weight * counts / counts.sum(), "soft": weight * valid / valid.sum()}
    pair = own[student_reads], taught[reads]
    hard = (rows["hard"] * reference.hard_loss(own["head"], y)).sum()
    soft = (rows["soft"] * reference.soft_target_loss(*pair, **options)).sum()
    slopes = {name: np.zeros_like(own[name]) for name in own}
    slopes["head"] += ALPHA * rows["hard"][..., None] * reference.hard_gradient(own["head"], y)
    slopes[student_reads] += (BETA * factor * rows["soft"])[
        ..., None
    ] * reference.soft_target_gradient(*pair, **options)
    k1, b1, k2, b2 = (np.float64(each) for each in student.get_weights())
    flat = lambda values: values.reshape(-1, values.shape[-1])  # noqa: E731
    head, aux = flat(slopes["head"]), flat(slopes["aux"]) + flat(slopes["head"]) @ k2.T
    gradients = [
        flat(np.float64(inputs["x"])).T @ aux,
        aux.sum(0),
        flat(own["aux"]).T @ head,
        head.sum(0),
    ]
    logs = {"loss": ALPHA * hard + BETA * factor * soft, "hard_loss": hard, "soft_targets": soft}
    return logs, [v - RATE * g for v, g in zip((k1, b1, k2, b2), gradients, strict=True)]


def check(name, weighting, mode, in_list, monkeypatch):
    case = CASES[name]
    teacher = network(1, case.get("teacher", "head"))
    student = network(2, case.get("student", "head"))
    expected, weights = truth(case, teacher, student, weighting)
    hard = keras.losses.SparseCategoricalCrossentropy(
        from_logits=case.get("student") is None, ignore_class=case.get("ignore_class")
    )
    sweeps, fused = [], kd.ops.combined_loss
    monkeypatch.setattr(kd.ops, "combined_loss", lambda *a, **k: sweeps.append(1) or fused(*a, **k))
    distiller = kd.Distiller(
        teacher,
        student,
        kd.losses.SoftTargets(**case.get("loss", {})),
        alpha=ALPHA,
        beta=BETA,
        mask_input="mask" if weighting == "masked" else None,
    )
    loss = [hard] if in_list else hard
    distiller.compile(keras.optimizers.SGD(RATE), loss, **MODES[mode])
    x, y, weight, _ = data()
    weight = weight if weighting == "weighted" else None
    logs = distiller.train_on_batch(x, y, weight, return_dict=True)
    for key, value in expected.items():
        np.testing.assert_allclose(logs[key], value, rtol=2e-5, atol=1e-7, err_msg=key)
    for actual, value in zip(student.get_weights(), weights, strict=True):
        np.testing.assert_allclose(actual, value, rtol=5e-6, atol=5e-6)
    assert bool(sweeps) == (case.get("is_fused", True) and not in_list)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("weighting", WEIGHTINGS)
@pytest.mark.parametrize("name", CASES)
def test_a_step_is_that_of_float64(name, weighting, mode, monkeypatch):
    check(name, weighting, mode, in_list=False, monkeypatch=monkeypatch)


@pytest.mark.parametrize("weighting", WEIGHTINGS)
@pytest.mark.parametrize("name", CASES)
def test_a_step_is_that_of_float64_by_the_other_path(name, weighting, monkeypatch):
    check(name, weighting, "eager", in_list=True, monkeypatch=monkeypatch)


def test_every_argument_has_a_case():
    """A new argument of `SoftTargets` needs one; the signature of all its classes is read."""
    import inspect

    arguments = set()
    for cls in kd.losses.SoftTargets.__mro__:
        if cls.__module__.startswith("keras_kd"):
            arguments |= set(inspect.signature(cls.__init__).parameters)
    arguments -= {"self", "args", "kwargs", "name"}
    tried = {key for case in CASES.values() for key in case.get("loss", {})}
    assert arguments == tried
