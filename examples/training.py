"""How the examples with a cache or a pretrained model train: order of samples, and optimizer."""

import keras
import tensorflow as tf


def shuffled(dataset, count, batch, seed=None):
    """Batches in another order each epoch, of a dataset whose order a cache knows.

    Args:
        dataset: Batches.
        count: How many samples it has.
        batch: Samples of a batch.
        seed: Of the order; default: as `keras.utils.set_random_seed` has it.
    """
    again = dataset.unbatch().shuffle(count, seed=seed).batch(batch)
    # `unbatch` forgets the length, without which Keras warns that the data has run out.
    return again.apply(tf.data.experimental.assert_cardinality(-(-count // batch))).prefetch(2)


def adam_that_warms_up(learning_rate, steps):
    """AdamW whose rate rises in the first tenth of the steps, and then falls to 0."""
    warm = max(steps // 10, 1)
    schedule = keras.optimizers.schedules.CosineDecay(
        0.0, max(steps - warm, 1), warmup_target=learning_rate, warmup_steps=warm
    )
    return keras.optimizers.AdamW(schedule, weight_decay=0.01, clipnorm=1.0)
