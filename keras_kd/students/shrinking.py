"""`shrink` makes a smaller model of a teacher; `plan` says what it will do."""

from keras_kd import checks
from keras_kd.students.making import Shrinkage


def shrink(teacher, depth=1.0, width=1.0, copy="slice", keep=(), name=None, print_fn=print):
    """Makes a student: the teacher with fewer blocks, narrower layers, and the teacher's weights.

    Blocks are what repeats along the way that every path through the model takes: residual or
    transformer blocks, equal dense layers or convolutions behind one another with what belongs to
    them, equal custom layers or nested models. Names, seeds and rates of dropout may differ. Of `r`
    equal ones `max(1, round(depth * r))` stay (halves rounded up), evenly spread from the first one
    on: of six 0, 2 and 4 at `depth=0.5`, as in DistilBERT.

    `width` is the share of units, filters, heads, recurrent units and embedding channels that stay,
    rounded up. Inputs and outputs keep their shapes, and what is added to them its width; the
    summands of an addition (a residual stream) keep the same channels. Of `n` channels `m` stay:

    - `copy="slice"`: channel `floor(i * n / m)` becomes channel `i`; the others are dropped.
    - `copy="average"`: neighbours become one: a layer that makes them averages them, one that reads
      them sums its weights. Where they are equal the function stays the same, but for
      normalizations over channels if the groups have different sizes (`n` no multiple of `m`).
    - `copy=None`: new weights. Those of `keras.layers.Normalization`, which come of data, are
      copied always.

    With `depth=1, width=1` it is an exact copy. The teacher stays as it is and shares no weights
    with the student, whose layers are called as the teacher's they come from, so that the same name
    or path tells a pair for a hint, and are all trainable, also where the teacher's are frozen.

    Args:
        teacher: A functional or sequential model, with models nested in it or not.
        depth: Share of the blocks to keep, above 0 and at most 1.
        width: Share of the channels to keep, above 0 and at most 1.
        copy: `"slice"`, `"average"` or `None`.
        keep: Names or paths of layers, or of nested models, whose width and blocks stay.
        name: Name of the student; default: that of the teacher and `_student`.
        print_fn: What prints a line of the table of `plan`; `None` prints nothing.

    Returns:
        A `keras.Model` of the teacher's layers, with its dtype policies; not compiled.

    Raises:
        ValueError: An argument is wrong, nothing repeats although `depth < 1`, nothing can be
            narrowed although `width < 1`, or a layer would have to be narrowed for which there is
            no rule (custom layers, convolutions with groups): the message names it.

    Example:

    ```python
    import keras
    import keras_kd as kd

    hidden = [keras.layers.Dense(64, activation="relu", name=f"hidden_{i}") for i in range(4)]
    teacher = keras.Sequential([keras.Input((64,)), *hidden, keras.layers.Dense(10)])
    student = kd.students.shrink(teacher, depth=0.5, width=0.25)
    assert [layer.name for layer in student.layers[:2]] == ["hidden_0", "hidden_2"]
    distiller = kd.Distiller(teacher, student)
    ```

    References:
        Sanh et al., "DistilBERT, a distilled version of BERT", https://arxiv.org/abs/1910.01108
    """
    checks.layer_name("name", name)
    checks.function("print_fn", print_fn, ["line"], optional=True)
    shrinkage = Shrinkage(teacher, depth, width, copy, keep)
    student = shrinkage.student(name)
    if print_fn is not None:
        for line in shrinkage.table(student):
            print_fn(line)
    return student


def plan(teacher, depth=1.0, width=1.0, copy="slice", keep=()):
    """What `shrink` with these arguments does with each layer that has weights.

    Args:
        teacher: As of `shrink`.
        depth: As of `shrink`.
        width: As of `shrink`.
        copy: As of `shrink`.
        keep: As of `shrink`.

    Returns:
        A list of dicts, one for each layer: `layer`, its path in the teacher and in the student;
        `teacher_shape` and `student_shape`, lists of its weights' shapes (the student's is `None`
        for a layer that goes); `how`: `"copied"`, `"sliced"`, `"averaged"`, `"new"`, `"removed"`.

    Raises:
        ValueError: As `shrink`.

    Example:

    ```python
    import keras
    import keras_kd as kd

    layers = [keras.Input((8,)), keras.layers.Dense(16, name="hidden"), keras.layers.Dense(4)]
    rows = kd.students.plan(keras.Sequential(layers), width=0.5)
    assert rows[0]["student_shape"] == [(8, 8), (8,)]
    assert rows[0]["how"] == "sliced"
    ```
    """
    return Shrinkage(teacher, depth, width, copy, keep).rows()
