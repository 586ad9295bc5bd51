"""What tensorflow-model-optimization makes of a small model; run in a process of its own.

Importing it turns `tf.keras` into Keras 2 for the whole process.
"""

import json
import sys

import numpy as np
import tensorflow_model_optimization as tfmot
import tf_keras


def network(given):
    layers = [
        tf_keras.layers.Dense(6, activation="tanh", input_shape=(8,)),
        tf_keras.layers.Dense(3),
    ]
    model = tf_keras.Sequential(layers)
    model.set_weights([np.array(weight, "float32") for weight in given["weights"]])
    return model


def trained(model, given, callbacks):
    model.compile(tf_keras.optimizers.legacy.SGD(given["rate"]), "mse")
    x, y = np.array(given["x"], "float32"), np.array(given["y"], "float32")
    options = {"batch_size": given["batch"], "epochs": given["epochs"], "shuffle": False}
    model.fit(x, y, callbacks=callbacks, verbose=0, **options)
    return model


def pruned(given, **options):
    sparsity = tfmot.sparsity.keras
    model = sparsity.prune_low_magnitude(network(given), **options)
    trained(model, given, [sparsity.UpdatePruningStep()])
    return [weight.tolist() for weight in sparsity.strip_pruning(model).get_weights()]


def clustered(given, **options):
    clustering = tfmot.clustering.keras
    model = clustering.cluster_weights(
        network(given),
        cluster_centroids_init=clustering.CentroidInitialization.LINEAR,
        cluster_gradient_aggregation="GradientAggregation.AVG",
        **options,
    )
    trained(model, given, [])
    return [weight.tolist() for weight in clustering.strip_clustering(model).get_weights()]


def main(source, target):
    with open(source) as file:
        given = json.load(file)
    schedules = tfmot.sparsity.keras
    decay = schedules.PolynomialDecay(**given["decay"])
    steps = [decay(step) for step in range(given["decay"]["end_step"] + 2)]
    found = {
        "is_due": [bool(due) for due, _ in steps],
        "sparsity": [float(share) for _, share in steps],
        "pruned": pruned(given, pruning_schedule=decay),
        "two_of_four": pruned(
            given,
            pruning_schedule=schedules.ConstantSparsity(0.5, begin_step=0, frequency=2),
            sparsity_m_by_n=(2, 4),
        ),
        "clustered": clustered(given, number_of_clusters=5),
    }
    with open(target, "w") as file:
        json.dump(found, file)


if __name__ == "__main__":
    main(*sys.argv[1:])
