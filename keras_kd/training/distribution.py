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


def part_of_global(total, rows, regularizers):
    """What a replica differentiates: its part of the global batch's loss.

    Args:
        total: Float32 scalar, an average over this replica's rows.
        rows: Float32 scalar, the rows of this replica's batch.
        regularizers: Scalars, the same in each replica.
    """
    replicas = count()
    if replicas > 1:
        total = total * share(rows) / replicas
        regularizers = [loss / replicas for loss in regularizers]
    return keras.ops.sum([total, *regularizers])


def is_multi_worker(strategy):
    """Whether several processes train in step."""
    return isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)


def are_several_workers(strategy):
    """Whether more than one process trains in step."""
    return is_multi_worker(strategy) and sum(map(len, _jobs(strategy).values())) > 1


def is_first_worker(strategy):
    """Whether this process is the one that writes what is to be written once."""
    place = strategy.cluster_resolver
    return place.task_id == 0 and (place.task_type == "chief" or "chief" not in _jobs(strategy))


def _jobs(strategy):
    return strategy.cluster_resolver.cluster_spec().as_dict()


def gathered(strategy, numbers):
    """The numbers of each worker, in their order; each waits here for the others.

    Args:
        strategy: A `MultiWorkerMirroredStrategy`.
        numbers: This worker's integers, a list.
    """

    def of_replica():
        return tf.constant([numbers], tf.int64)

    # A function: TensorFlow warns of what a strategy runs eagerly.
    own = tf.function(lambda: strategy.run(of_replica), autograph=False)()
    replicas = strategy.gather(own, axis=0).numpy().tolist()
    local = len(strategy.experimental_local_results(own))  # one for each of its GPUs
    return replicas[::local]


def check_supported(strategy, optimizer, steps_per_execution):
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


def undivided(loss: tf.Tensor) -> tf.Tensor:
    """A loss that Keras has divided by the number of replicas, times it, in float32.

    In float32, as all terms: `floatx` may be another.
    """
    return count() * tf.cast(loss, tf.float32)


def first_local_batch(strategy, iterator):
    """This worker's part of the first batch of an epoch iterator of Keras; `None`: it is empty."""
    for _, _, batches in iterator:
        return keras.tree.map_structure(
            lambda value: strategy.experimental_local_results(value)[0], next(batches)
        )
    return None
