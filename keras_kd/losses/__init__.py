"""The distillation losses."""

from keras_kd.losses.attention_maps import AttentionMaps
from keras_kd.losses.attention_transfer import AttentionTransfer
from keras_kd.losses.base import DistillationLoss
from keras_kd.losses.channel_wise import ChannelWise
from keras_kd.losses.contrastive_representation import ContrastiveRepresentation
from keras_kd.losses.corrected_targets import CorrectedTargets
from keras_kd.losses.cosine_hidden import CosineHidden
from keras_kd.losses.curriculum_temperature import CurriculumTemperature
from keras_kd.losses.decoupled_kd import DecoupledKD
from keras_kd.losses.dist import DIST
from keras_kd.losses.embedding_kd import EmbeddingKD
from keras_kd.losses.feature_hint import FeatureHint
from keras_kd.losses.flow_matrix import FlowMatrix
from keras_kd.losses.hidden_states import HiddenStates
from keras_kd.losses.learning_without_forgetting import LearningWithoutForgetting
from keras_kd.losses.logit_standardization import LogitStandardization
from keras_kd.losses.logits_mse import LogitsMSE
from keras_kd.losses.margin_mse import MarginMSE
from keras_kd.losses.neuron_selectivity import NeuronSelectivity
from keras_kd.losses.probabilistic_transfer import ProbabilisticTransfer
from keras_kd.losses.regression_kd import RegressionKD
from keras_kd.losses.relational_angle import RelationalAngle
from keras_kd.losses.relational_distance import RelationalDistance
from keras_kd.losses.score_matrix_kd import ScoreMatrixKD
from keras_kd.losses.sequence_relations import SequenceRelations
from keras_kd.losses.sigmoid_kd import SigmoidKD
from keras_kd.losses.similarity_preserving import SimilarityPreserving
from keras_kd.losses.soft_targets import SoftTargets
from keras_kd.losses.token_kd import TokenKD
from keras_kd.losses.universal_logits import UniversalLogits
from keras_kd.losses.variational_information import VariationalInformation

__all__ = [
    "DIST",
    "AttentionMaps",
    "AttentionTransfer",
    "ChannelWise",
    "ContrastiveRepresentation",
    "CorrectedTargets",
    "CosineHidden",
    "CurriculumTemperature",
    "DecoupledKD",
    "DistillationLoss",
    "EmbeddingKD",
    "FeatureHint",
    "FlowMatrix",
    "HiddenStates",
    "LearningWithoutForgetting",
    "LogitStandardization",
    "LogitsMSE",
    "MarginMSE",
    "NeuronSelectivity",
    "ProbabilisticTransfer",
    "RegressionKD",
    "RelationalAngle",
    "RelationalDistance",
    "ScoreMatrixKD",
    "SequenceRelations",
    "SigmoidKD",
    "SimilarityPreserving",
    "SoftTargets",
    "TokenKD",
    "UniversalLogits",
    "VariationalInformation",
]
