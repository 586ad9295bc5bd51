"""A student of each of KerasHub's classes: shrunk, paired, distilled, saved, loaded, resumed."""

import keras
import numpy as np
import pytest

import keras_kd as kd
from tests.hub.cases import spread, without_dropout
from tests.hub.test_shrink import BATCHES, BUILDERS, SEQUENCES, outputs, shrink

pytestmark = pytest.mark.in_turn(4)

# T5 and Whisper, which have no task of their own, give hidden states.
OF_LOGITS = ["bart", "bert", "distilbert", "gemma", "gpt2", "llama3", "qwen", "qwen3"]
EPOCHS = 3


def mask_of(kind):
    if kind == "bert" or kind == "distilbert":
        return None
    return "decoder_padding_mask" if kind in SEQUENCES else "padding_mask"


def losses(teacher, student, kind):
    """On blocks and on logits; padding counts nowhere."""
    pairs = kd.pair_layers(teacher, student, print_fn=None)
    found = []
    for i, (one, other) in enumerate(pairs):
        side = "encoder" if "encoder" in str(one) else "decoder"
        mask = f"{side}_padding_mask" if kind in SEQUENCES else "padding_mask"
        mask = None if (kind, side) == ("whisper", "encoder") else mask
        found.append(kd.losses.HiddenStates(one, other, name=f"hidden_{i}", mask_input=mask))
    if kind in OF_LOGITS:
        found.append(kd.losses.SoftTargets(2.0, mask_input=mask_of(kind)))
    else:
        last = {"t5": "decoder_output_layer_norm", "whisper": "decoder_layer_norm"}[kind]
        mask = "decoder_padding_mask"
        found.append(kd.losses.HiddenStates(last, last, name="outputs", mask_input=mask))
    return found


@pytest.mark.parametrize("kind", [*OF_LOGITS, "t5", "whisper"])
def test_a_student_learns_is_saved_loaded_and_resumed(kind, tmp_path):
    teacher, x = spread(BUILDERS[kind](layers=2)), BATCHES[kind]()
    student = without_dropout(shrink(teacher, layers=[1], width=0.5))
    x = {name: x[name] for name in teacher.input}

    def distiller_of(student):
        distiller = kd.Distiller(teacher, student, losses(teacher, student, kind), alpha=0.0)
        # Eagerly: a graph of each would take longer to trace than to run.
        distiller.compile(keras.optimizers.Adam(0.01), run_eagerly=True)
        return distiller

    distiller = distiller_of(student)
    names = set(distiller.losses_by_name)
    assert len(names) == (3 if kind in SEQUENCES else 2)
    history = distiller.fit(x, epochs=EPOCHS, shuffle=False, verbose=0).history
    for name in names:
        assert history[name][-1] < history[name][0], name
    before = outputs(student, x)
    student.save(tmp_path / "student.keras")
    loaded = keras.saving.load_model(tmp_path / "student.keras", compile=False)
    assert type(loaded) is type(student) is type(teacher)
    for one, other in zip(outputs(loaded, x), before, strict=True):
        np.testing.assert_array_equal(one, other)
    # What was loaded goes on learning where the student stopped.
    again = distiller_of(without_dropout(loaded))
    resumed = again.fit(x, epochs=1, shuffle=False, verbose=0).history
    if kind in OF_LOGITS:
        assert resumed["soft_targets"][0] < history["soft_targets"][0]
    # No inner layer of the student was left out of the paths.
    assert all(row["student_layer"] for row in kd.students.plan(loaded))
