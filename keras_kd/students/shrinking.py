"""`shrink` makes a smaller model from a teacher; `plan` lists what it will do.

`trim_vocabulary` leaves out words. KerasHub's models go their own way, through the configuration of
their backbones: see `hub`.
"""

from typing import Any

import keras
import numpy as np

from keras_kd._utils import validation
from keras_kd._utils.validation import invalid
from keras_kd.students import options
from keras_kd.students.hub import axes
from keras_kd.students.hub.families import is_hub
from keras_kd.students.hub.shrinkage import HubShrinkage
from keras_kd.students.shrinkage import Shrinkage
from keras_kd.students.vocabulary import VocabularyMap


def shrink(
    teacher: Any,
    depth: float | None = None,
    width: float | None = None,
    copy: str | None = "slice",
    keep: Any = (),
    name: str | None = None,
    print_fn: Any = print,
    *,
    layers: Any = None,
    rank: str = "position",
    data: Any = None,
    vocabulary: VocabularyMap | None = None,
    lora_rank: int | None = None,
    budget: dict[str, float] | None = None,
) -> keras.Model:
    """Makes a student: the teacher with fewer blocks, narrower layers, and the teacher's weights.

    Blocks are what repeats along the way that every path through the model takes: residual or
    transformer blocks, equal dense layers or convolutions in a row with what belongs to them, equal
    custom layers or nested models. Names, seeds and rates of dropout may differ. Of `r` equal ones
    `max(1, round(depth * r))` stay (halves rounded up), evenly spread from the first one on: 0, 2
    and 4 of six at `depth=0.5`, as in DistilBERT. `layers` names them one by one.

    `width` is the share of units, filters, heads, recurrent units and embedding channels that stay,
    rounded up. Inputs and outputs keep their shapes, and what is added to them its width; the
    summands of an addition (a residual stream) keep the same channels. Of `n` channels `m` stay:

    - `copy="slice"`: channel `floor(i * n / m)` becomes channel `i`; the others are dropped.
    - `copy="average"`: neighbors become one: a layer that makes them averages them, one that reads
      them sums its weights. Where they are equal the function stays the same, but for
      normalizations over channels if the groups have different sizes (`n` no multiple of `m`).
    - `copy=None`: new weights. Those of `keras.layers.Normalization`, which come from data, are
      always copied.

    With `depth=1, width=1` it is an exact copy. The teacher does not change and shares no weights
    with the student. The student's layers keep the names of the teacher's, so that one name or path
    gives a pair for a hint, and are all trainable, even where the teacher's are frozen.

    A model of KerasHub, a backbone or a task, becomes one of its own class, by the configuration of
    its backbone. Its blocks get new numbers; `keras_kd.pair_layers` pairs them. Heads stay whole:
    where the width is `heads * head_dim`, it follows from the heads that stay. The head of a task,
    tied embeddings and the preprocessor are kept.

    `rank` says what is kept instead of what is evenly spread:

    - `"magnitude"`: of channels that are tied (what is added up, what a normalization reads) those
      with the largest norm of all weights that make or read them; blocks by the norm of the weights
      that make what they add. Statistics of normalizations do not count.
    - `"activation"`: channels by the mean absolute value, on `data`, of what layers with weights
      read of them; blocks by `1 - cosine(input, output)`. Of models of KerasHub hidden channels by
      the mean absolute output of the normalizations, heads and intermediate units of each block by
      that of what reads them. Padding and masked steps do not count.

    `budget` says what the student may cost, and blocks and channels follow. Limits are met, never
    exceeded, and the tightest one is reached within 5 % where the model's steps allow (blocks,
    whole heads, single channels). For each number of blocks the largest width is found that fits;
    then single channels come back, the most important per cost first, so that layers may have
    different widths. Of the students that come close the one is taken that keeps most importance:
    the share of blocks times the mean share of channels, each by its scores. With
    `rank="position"`, where all count the same, depth and width stay balanced: the smaller of both
    shares is the largest possible.

    - `"bytes"`: of the student's weights in their own types (4 for each float32 parameter), without
      the optimizer's state. A float file has some more for its graph, an int8 file about a quarter.
    - `"macs"`: multiply-adds of one sample, as `keras_kd.measure` counts them.
    - `"latency_ms"`: the median time of one sample in the float `.tflite` file, on this machine and
      in one thread, as `keras_kd.measure` reports it (`pip install 'keras-kd[litert]'`). Some ten
      students are made and timed; a busy machine gives other figures the next time.

    Args:
        teacher: A functional or sequential model, with models nested in it or not; a backbone of
            KerasHub, or a task with one.
        depth: Share of the blocks to keep, above 0 and at most 1. Default: 1, or as `budget` needs.
        width: Share of the channels to keep, above 0 and at most 1. Default: as `depth`.
        copy: `"slice"`, `"average"` (not for models of KerasHub) or `None`.
        keep: Names or paths of layers, or of nested models, whose width and blocks stay (not for
            models of KerasHub).
        name: Name of the student; default: the teacher's name and `_student`.
        print_fn: A function that prints a line of the table of `plan`; `None` prints nothing.
        layers: Instead of `depth`: rising numbers of the blocks to keep, from 0; -1 is the last
            one. For models with an encoder and a decoder also a dict of two lists: `{"decoder": [0,
            -1]}` keeps all of the encoder, as distil-whisper does.
        rank: `"position"`, `"magnitude"` or `"activation"` (both not with `copy="average"`).
        data: What `rank="activation"` reads: inputs (of KerasHub's models a dict of the backbone's
            inputs), `(inputs, labels)`, or a batched `tf.data.Dataset` of such; some hundred
            samples. Also read by a budget of `"macs"` or `"latency_ms"`, which takes the shapes of
            the first sample; needed where the model's own are open.
        vocabulary: A `keras_kd.students.VocabularyMap` of the words to keep, for models of
            KerasHub. The student then takes other ids, and has no preprocessor: see
            `keras_kd.students.trim_vocabulary`.
        lora_rank: For models of KerasHub: the rank of adapters (LoRA) on the student's queries and
            values; the rest of its backbone is frozen. A file of the student has them merged.
        budget: Instead of `depth` and `width`, or of one of them: a dict with limits for `"bytes"`,
            `"macs"` and `"latency_ms"`, one or several. `depth` (or `layers`) or `width` may be
            given; the other one is then searched.

    Returns:
        A `keras.Model` of the teacher's layers, with its dtype policies; not compiled, but for the
        tasks of KerasHub that compile themselves.

    Raises:
        ValueError: An argument is wrong, nothing repeats although `depth < 1`, nothing can be
            narrowed although `width < 1`, a layer without a rule would have to be narrowed (custom
            layers, convolutions with groups), the backbone's configuration is not known, or a
            budget is below the smallest student or above the teacher: the message names it.
        ImportError: A budget of `"latency_ms"` needs LiteRT.

    Example:

    ```python
    import keras
    import keras_kd as kd

    hidden = [keras.layers.Dense(64, activation="relu", name=f"hidden_{i}") for i in range(4)]
    teacher = keras.Sequential([keras.Input((64,)), *hidden, keras.layers.Dense(10)])
    student = kd.students.shrink(teacher, depth=0.5, width=0.25)
    assert [layer.name for layer in student.layers[:2]] == ["hidden_0", "hidden_2"]
    distiller = kd.Distiller(teacher, student)

    small = kd.students.shrink(teacher, budget={"bytes": 20_000}, rank="magnitude")
    assert 19_000 <= 4 * small.count_params() <= 20_000
    ```

    References:
        Sanh et al., "DistilBERT, a distilled version of BERT", https://arxiv.org/abs/1910.01108
        Muralidharan et al., "Compact Language Models via Pruning and Knowledge Distillation"
        (Minitron), https://arxiv.org/abs/2407.14679 (`rank="activation"`)
        Li et al., "Pruning Filters for Efficient ConvNets", https://arxiv.org/abs/1608.08710
        (`rank="magnitude"`)
        Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models",
        https://arxiv.org/abs/2106.09685
    """
    validation.layer_name("name", name)
    validation.function("print_fn", print_fn, ["line"], optional=True)
    shrinkage = _shrinkage(
        teacher,
        depth=depth,
        width=width,
        copy=copy,
        keep=keep,
        layers=layers,
        rank=rank,
        data=data,
        vocabulary=vocabulary,
        lora_rank=lora_rank,
        budget=budget,
    )
    student = shrinkage.student(name)
    if print_fn is not None:
        for line in shrinkage.table(student):
            print_fn(line)
    return student


def plan(
    teacher: Any,
    depth: float | None = None,
    width: float | None = None,
    copy: str | None = "slice",
    keep: Any = (),
    *,
    layers: Any = None,
    rank: str = "position",
    data: Any = None,
    vocabulary: VocabularyMap | None = None,
    budget: dict[str, float] | None = None,
) -> list[dict[str, Any]]:
    """What `shrink` with these arguments does with each layer that has weights.

    Args:
        teacher: See `shrink`.
        depth: See `shrink`.
        width: See `shrink`.
        copy: See `shrink`.
        keep: See `shrink`.
        layers: See `shrink`.
        rank: See `shrink`.
        data: See `shrink`.
        vocabulary: See `shrink`.
        budget: See `shrink`.

    Returns:
        A list of dicts, one for each layer: `layer`, its path in the teacher and in the student;
        `teacher_shape` and `student_shape`, lists of its weights' shapes (the student's is `None`
        for a layer that goes); `how`: `"copied"`, `"sliced"`, `"averaged"`, `"new"`, `"removed"`.
        Of a model of KerasHub one for each block and each layer around them: `layer`;
        `student_layer`, its path in the student, or `None`; `teacher_parameters` and
        `student_parameters`, numbers; `how`. `print` and a notebook show it as a table.
        With a budget or a new rank also `teacher_bytes` and `student_bytes`; `teacher_macs` and
        `student_macs`, `None` where no sample is known; `importance_lost`: of a block that goes its
        share of all blocks, else the share of the importance of the channels that a layer makes.

    Raises:
        ValueError: See `shrink`.

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
    shrinkage = _shrinkage(
        teacher,
        depth=depth,
        width=width,
        copy=copy,
        keep=keep,
        layers=layers,
        rank=rank,
        data=data,
        vocabulary=vocabulary,
        budget=budget,
    )
    return shrinkage.rows()


def trim_vocabulary(
    model: Any,
    data: Any,
    keep: Any = (),
    unknown_id: int | None = None,
    padding_id: int | None = 0,
    min_count: int = 1,
    labels: bool = False,
    tokenizer: Any = None,
    name: str | None = None,
    print_fn: Any = print,
) -> tuple[keras.Model, VocabularyMap]:
    """A copy of a model of KerasHub that knows the words in use alone, and the map of their ids.

    In small models the embeddings are half of all parameters. Rows of the embedding and of the head
    that stay are those of the model, so logits are its columns: `student(words.encode_inputs(x))`
    equals `words.columns(model(x))` where all ids of `x` are kept. Trim the teacher too, and both
    share data and vocabulary; else pass `teacher_preprocess=words.teacher_preprocess` to
    `keras_kd.Distiller`, and compare `words.columns` of its logits.

    Args:
        model: A backbone of KerasHub, or a task with one. Special words of its preprocessor's
            tokenizer stay.
        data: See `VocabularyMap.of`.
        keep: See `VocabularyMap.of`.
        unknown_id: See `VocabularyMap.of`.
        padding_id: See `VocabularyMap.of`.
        min_count: See `VocabularyMap.of`.
        labels: See `VocabularyMap.of`.
        tokenizer: See `VocabularyMap.of`.
        name: Name of the copy; default: the model's name and `_student`.
        print_fn: A function that prints a line of the table of `plan`; `None` prints nothing.

    Returns:
        `(student, words)`: the model, without a preprocessor (its tokenizer makes the old ids), and
        a `VocabularyMap`, which maps data and trims tokenizers.

    Raises:
        ValueError: The model is none of KerasHub, data has ids that the model does not, or padding
            would get another id: the message names both.

    Example:

    ```python
    import keras_hub
    import numpy as np
    import keras_kd as kd

    backbone = keras_hub.models.GPT2Backbone(
        vocabulary_size=50, num_layers=2, num_heads=2, hidden_dim=8, intermediate_dim=16
    )
    teacher = keras_hub.models.GPT2CausalLM(backbone, preprocessor=None)
    ids = np.array([[7, 30, 30, 0], [30, 7, 4, 9]])
    x = {"token_ids": ids, "padding_mask": np.array([[1, 1, 1, 0], [1, 1, 1, 1]])}
    small_teacher, words = kd.students.trim_vocabulary(teacher, x)
    assert words.encode_inputs(x)["token_ids"].tolist() == [[2, 4, 4, 0], [4, 2, 1, 3]]
    student = kd.students.shrink(small_teacher, depth=0.5)
    distiller = kd.Distiller(small_teacher, student, mask_input="padding_mask")
    ```
    """
    if not is_hub(model):
        raise options.not_hub("trim_vocabulary", model)
    validation.function("print_fn", print_fn, ["line"], optional=True)
    size = axes.sizes_of_model(model).words
    special = [*_listed_ids(keep), *_special_ids(model)]
    words = VocabularyMap.of(
        data, size, special, unknown_id, padding_id, min_count, labels, tokenizer
    )
    return shrink(model, vocabulary=words, name=name, print_fn=print_fn), words


def _listed_ids(keep):
    if isinstance(keep, (list, tuple, set, frozenset, range, np.ndarray)):
        return list(keep)
    raise invalid("keep", "a list of ids", repr(keep))


def _special_ids(model):
    tokenizer = getattr(getattr(model, "preprocessor", None), "tokenizer", None)
    return [] if tokenizer is None else list(tokenizer.special_token_ids)


def _shrinkage(teacher, **given):
    """How a teacher is shrunk, by its kind."""
    of_hub = is_hub(teacher)
    chosen = options.checked(teacher, of_hub, given)
    return (HubShrinkage if of_hub else Shrinkage)(teacher, chosen)
