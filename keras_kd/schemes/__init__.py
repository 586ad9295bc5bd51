"""Trainings of more than one model: mutual, born-again, chained."""

from keras_kd.schemes.born_again import BornAgain
from keras_kd.schemes.chain import distill_chain
from keras_kd.schemes.mutual import MutualDistiller

__all__ = ["BornAgain", "MutualDistiller", "distill_chain"]
