"""What data-parallel training needs beyond Keras' own, so that replicas equal one process.

Keras averages over each replica's own rows and then over the replicas: with an uneven last batch
(71 rows in batches of 16, two replicas) the weights come out different by 4e-3. Here each
replica's loss is multiplied by its share of the global batch.
"""

import keras
import tensorflow as tf


def count():
    """Replicas that train in step."""
    return tf.distribute.get_strategy().num_replicas_in_sync


def share(rows):
    """`rows * replicas / all rows`: what a replica's average counts for in the global one.

    Args:
        rows: Float32 scalar, the rows of this replica's batch.

    Returns:
        The float 1.0 outside of replicas; else a float32 scalar.
    """
    replicas = count()
    if replicas == 1 or tf.distribute.in_cross_replica_context():
        return 1.0
    context = tf.distribute.get_replica_context()
    total = context.all_reduce(tf.distribute.ReduceOp.SUM, rows)
    return tf.math.divide_no_nan(rows * replicas, total)


def balance(divisor, rows):
    """What turns an average over `divisor` into one that counts for its replica's rows.

    `share` is exact for averages over the rows. Where Keras divides by something else (valid
    tokens, the sum of sample weights) a replica's average counts for that part of it.

    Args:
        divisor: Float32 scalar, this replica's part of what is divided by; `None`: the rows.
        rows: Float32 scalar, the rows of this replica's batch.

    Returns:
        `divisor / rows * all rows / all divisors`, or the float 1.0.
    """
    if divisor is None or count() == 1 or tf.distribute.in_cross_replica_context():
        return 1.0
    context = tf.distribute.get_replica_context()
    all_rows, divisors = context.all_reduce(tf.distribute.ReduceOp.SUM, [rows, divisor])
    return tf.math.divide_no_nan(divisor * all_rows, rows * divisors)


def part_of_global(total, rows, regularisers):
    """What a replica differentiates: its part of the global batch's loss.

    Args:
        total: Float32 scalar, an average over this replica's rows.
        rows: Float32 scalar, the rows of this replica's batch.
        regularisers: Scalars, the same in each replica.
    """
    replicas = count()
    if replicas > 1:
        total = total * share(rows) / replicas
        regularisers = [loss / replicas for loss in regularisers]
    return keras.ops.sum([total, *regularisers])


def is_multi_worker(strategy):
    """Whether several processes train in step."""
    return isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)


def refuse_what_fails(strategy, optimizer, steps_per_execution):
    """Raises for settings with which TensorFlow cannot train in replicas, nor any Keras model."""
    if strategy.num_replicas_in_sync == 1 and not is_multi_worker(strategy):
        return
    # TensorFlow's own name of the class is CollectiveAllReduceStrategy.
    multi_worker = is_multi_worker(strategy)
    name = "MultiWorkerMirroredStrategy" if multi_worker else type(strategy).__name__
    if steps_per_execution != 1:
        raise ValueError(
            f"steps_per_execution={steps_per_execution} does not run under {name}: TensorFlow "
            "cannot reduce over replicas inside its loop. Use 1."
        )
    accumulated = getattr(optimizer, "gradient_accumulation_steps", None)
    if accumulated is not None:
        raise ValueError(
            f"gradient_accumulation_steps={accumulated} does not run under {name}: TensorFlow "
            "cannot reduce over replicas inside the condition that applies the gradients. Use "
            "larger batches or more replicas."
        )


class MultiWorkerFit:
    """Mixin of a `keras.Model`: makes `fit` work under `MultiWorkerMirroredStrategy`.

    Keras 3.15's own `fit` fails there twice, for any model. Its symbolic build hands the first
    batch, still distributed, to a function that takes tensors: here it gets this worker's part.
    (This overrides a private method of Keras, and does nothing if Keras renames it.) And it
    reduces the logs over an axis that scalars do not have: here they get one.
    """

    def _maybe_symbolic_build(self, iterator=None, data_batch=None):
        strategy = self.distribute_strategy
        if iterator is not None and is_multi_worker(strategy):
            for _, _, batches in iterator:
                data_batch = keras.tree.map_structure(
                    lambda value: strategy.experimental_local_results(value)[0], next(batches)
                )
                iterator = None
                break
        return super()._maybe_symbolic_build(iterator, data_batch)

    def per_worker(self, logs):
        """The logs of a step, in the shape that Keras can reduce over workers."""
        if not is_multi_worker(self.distribute_strategy):
            return logs
        return {key: keras.ops.reshape(value, (1,)) for key, value in logs.items()}
