"""The distillation losses."""

from keras_kd.losses.attention_maps import AttentionMaps
from keras_kd.losses.attention_transfer import AttentionTransfer
from keras_kd.losses.base import DistillationLoss
from keras_kd.losses.channel_wise import ChannelWise
from keras_kd.losses.contrastive_representation import ContrastiveRepresentation
from keras_kd.losses.cosine_hidden import CosineHidden
from keras_kd.losses.curriculum_temperature import CurriculumTemperature
from keras_kd.losses.decoupled_kd import DecoupledKD
from keras_kd.losses.dist import DIST
from keras_kd.losses.feature_hint import FeatureHint
from keras_kd.losses.flow_matrix import FlowMatrix
from keras_kd.losses.hidden_states import HiddenStates
from keras_kd.losses.learning_without_forgetting import LearningWithoutForgetting
from keras_kd.losses.logit_standardization import LogitStandardization
from keras_kd.losses.logits_mse import LogitsMSE
from keras_kd.losses.neuron_selectivity import NeuronSelectivity
from keras_kd.losses.probabilistic_transfer import ProbabilisticTransfer
from keras_kd.losses.regression_kd import RegressionKD
from keras_kd.losses.relational_angle import RelationalAngle
from keras_kd.losses.relational_distance import RelationalDistance
from keras_kd.losses.sigmoid_kd import SigmoidKD
from keras_kd.losses.similarity_preserving import SimilarityPreserving
from keras_kd.losses.soft_targets import SoftTargets
from keras_kd.losses.token_kd import TokenKD
from keras_kd.losses.variational_information import VariationalInformation

__all__ = [
    "DIST",
    "AttentionMaps",
    "AttentionTransfer",
    "ChannelWise",
    "ContrastiveRepresentation",
    "CosineHidden",
    "CurriculumTemperature",
    "DecoupledKD",
    "DistillationLoss",
    "FeatureHint",
    "FlowMatrix",
    "HiddenStates",
    "LearningWithoutForgetting",
    "LogitStandardization",
    "LogitsMSE",
    "NeuronSelectivity",
    "ProbabilisticTransfer",
    "RegressionKD",
    "RelationalAngle",
    "RelationalDistance",
    "SigmoidKD",
    "SimilarityPreserving",
    "SoftTargets",
    "TokenKD",
    "VariationalInformation",
]
