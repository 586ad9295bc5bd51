"""Callbacks that prune and cluster the student's weights, so that files compress better."""

from keras_kd.compression.clustering import Cluster, cluster
from keras_kd.compression.pruning import Sparsify, Sparsity, sparsify, sparsity_of

__all__ = ["Cluster", "Sparsify", "Sparsity", "cluster", "sparsify", "sparsity_of"]
