"""The distillation losses."""

from keras_kd.losses.attention_transfer import AttentionTransfer
from keras_kd.losses.base import DistillationLoss
from keras_kd.losses.channel_wise import ChannelWise
from keras_kd.losses.dist import DIST
from keras_kd.losses.feature_hint import FeatureHint
from keras_kd.losses.logits_mse import LogitsMSE
from keras_kd.losses.neuron_selectivity import NeuronSelectivity
from keras_kd.losses.probabilistic_transfer import ProbabilisticTransfer
from keras_kd.losses.relational_angle import RelationalAngle
from keras_kd.losses.relational_distance import RelationalDistance
from keras_kd.losses.similarity_preserving import SimilarityPreserving
from keras_kd.losses.soft_targets import SoftTargets

__all__ = [
    "DIST",
    "AttentionTransfer",
    "ChannelWise",
    "DistillationLoss",
    "FeatureHint",
    "LogitsMSE",
    "NeuronSelectivity",
    "ProbabilisticTransfer",
    "RelationalAngle",
    "RelationalDistance",
    "SimilarityPreserving",
    "SoftTargets",
]
