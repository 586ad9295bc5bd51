"""Hooks that a user's class overrides: called as Keras calls them, or refused before training."""

import inspect

# What the distillers do themselves, and what to do instead of overriding it in a student.
_REMEDIES = {
    "train_step": "put what it adds to the loss into its `compute_loss` (or `add_loss`), which the "
    "distiller calls, or move the step to `train_step` of a subclass of keras_kd.Distiller",
    "test_step": "override `test_step` in a subclass of keras_kd.Distiller",
    "make_train_function": "override `make_train_function` in a subclass of keras_kd.Distiller",
    "make_test_function": "override `make_test_function` in a subclass of keras_kd.Distiller",
    "compute_metrics": "override `compute_metrics` in a subclass of keras_kd.Distiller",
    "compute_loss": "give what it adds to `add_loss` in its `call`, or train it as the student of "
    "a keras_kd.Distiller, which calls it",
}
# Those of a student that a `Distiller` never calls, and those of a model that a `Learner` does not.
OF_STUDENT = tuple(name for name in _REMEDIES if name != "compute_loss")
OF_LEARNER = tuple(_REMEDIES)
# Whose methods are the usual ones.
_USUAL = ("keras", "keras_kd")


def is_overridden(model, name):
    """Whether a method of a model is neither Keras' nor the library's own."""
    if name in vars(model):
        return True
    module = inspect.unwrap(getattr(type(model), name)).__module__ or ""
    return module.partition(".")[0] not in _USUAL


def check(model, role, names):
    """Raises if a model overrides hooks that its distiller would never call.

    Args:
        model: A `keras.Model` that is trained inside of another one.
        role: What it is, such as `"student"`.
        names: Of the hooks that are not called.
    """
    for name in names:
        if is_overridden(model, name):
            raise ValueError(
                f"The {role}'s class {type(model).__name__} overrides `{name}`, which is never "
                f"called: the distiller makes the step. Instead, {_REMEDIES[name]}."
            )


def call_compute_loss(model, x, y, y_pred, sample_weight, training):
    """`compute_loss` of a model, also of one that does not take `training`, as Keras allows."""
    arguments = inspect.signature(model.compute_loss).parameters
    takes_all = any(each.kind is inspect.Parameter.VAR_KEYWORD for each in arguments.values())
    if "training" in arguments or takes_all:
        return model.compute_loss(x, y, y_pred, sample_weight, training=training)
    return model.compute_loss(x, y, y_pred, sample_weight)
