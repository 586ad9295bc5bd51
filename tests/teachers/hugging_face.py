"""A program: BERT as a teacher, after modules that are imported in a given order.

    python -m tests.teachers.hugging_face bert MODULE...
    python -m tests.teachers.hugging_face teach MODULE... JSON FOLDER

`bert` compares what the teacher computes with what BERT does. `teach` also teaches a Keras student,
living and from a cache in FOLDER; both histories go to the file JSON.
"""

import importlib
import json
import pathlib
import sys

WORDS, LENGTH, CLASSES, ROWS = 30, 6, 3, 32


def bert_teacher():
    """`(teacher, x)`: BERT and inputs of it, on which the teacher was compared."""
    import numpy as np
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    import keras_kd as kd

    torch.manual_seed(0)
    bert = BertForSequenceClassification(
        BertConfig(
            vocab_size=WORDS,
            hidden_size=8,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=16,
            max_position_embeddings=LENGTH,
            num_labels=CLASSES,
            initializer_range=1.0,
        )
    )
    teacher = kd.teachers.TorchTeacher(bert)
    rng = np.random.default_rng(0)
    lengths = rng.integers(2, LENGTH + 1, size=(ROWS, 1))
    x = {
        "input_ids": rng.integers(1, WORDS, size=(ROWS, LENGTH)),
        "attention_mask": (np.arange(LENGTH) < lengths).astype("int64"),
    }
    bert.eval()
    with torch.inference_mode():
        said = bert(**{key: torch.from_numpy(value) for key, value in x.items()}).logits.numpy()
    np.testing.assert_allclose(teacher(x), said, rtol=1e-5, atol=1e-5)
    return teacher, x


def teach(folder):
    import keras
    import numpy as np
    import tensorflow as tf

    import keras_kd as kd

    teacher, x = bert_teacher()
    y = np.random.default_rng(1).integers(CLASSES, size=ROWS)
    data = tf.data.Dataset.from_tensor_slices((x, y)).batch(8)

    def history(data, teacher):
        keras.utils.set_random_seed(1)
        ids = keras.Input((LENGTH,), dtype="int64", name="input_ids")
        mask = keras.Input((LENGTH,), dtype="int64", name="attention_mask")
        words = keras.layers.Embedding(WORDS, 8)(ids)
        kept = keras.layers.Multiply()([words, keras.ops.cast(mask, "float32")[..., None]])
        logits = keras.layers.Dense(CLASSES)(keras.layers.Flatten()(kept))
        student = keras.Model({"input_ids": ids, "attention_mask": mask}, logits)
        distiller = kd.Distiller(teacher, student)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        distiller.compile(keras.optimizers.Adam(0.05), loss=loss)
        return distiller.fit(data, epochs=4, shuffle=False, verbose=0).history["soft_targets"]

    living = history(data, teacher)
    path = kd.cache_teacher(teacher, data, folder, dtype="float32", verbose=0)
    cached = kd.load_cache(path, data, teacher=teacher)
    return living, history(cached, kd.teachers.Cached(path))


def import_in_order(names):
    for name in names:
        module, _, attribute = name.partition(":")
        imported = importlib.import_module(module)
        if attribute:
            getattr(imported, attribute)


if __name__ == "__main__":
    if sys.argv[1] == "bert":
        import_in_order(sys.argv[2:])
        bert_teacher()
    else:
        *order, result, folder = sys.argv[2:]
        import_in_order(order)
        pathlib.Path(result).write_text(json.dumps(teach(folder)))
