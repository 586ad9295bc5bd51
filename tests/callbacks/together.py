"""Everything that may change during a run, in one `fit`."""

import keras

import keras_kd as kd

EPOCHS = 6


def network(width, features, classes, prefix):
    """Two hidden layers, `<prefix>0` and `<prefix>1`."""
    hidden = [keras.layers.Dense(width, activation="tanh", name=f"{prefix}{i}") for i in range(2)]
    return keras.Sequential(
        [keras.Input((features,)), *hidden, keras.layers.Dense(classes, name="logits")]
    )


def arguments(teacher, student):
    """The distiller's: layerwise hints and weights by the teacher's confidence."""
    hints = kd.pair_layers(teacher, student, print_fn=None).hints("mse", weight=0.3)
    weighting = kd.weighting.TeacherConfidence(0.5, low=0.2, high=0.8)
    return {
        "distillation_losses": [kd.losses.SoftTargets(5.0), *hints],
        "weighting": weighting,
    }


def callbacks():
    """T from 5 to 1, and a hint after epoch 3 with a cosine loss and a linear projector."""
    return [
        kd.callbacks.TemperatureSchedule(5.0, 1.0),
        kd.callbacks.FeatureHint(
            "t1", "s0", loss="cosine", weight=0.5, projector="linear", start_epoch=3, name="late"
        ),
    ]
