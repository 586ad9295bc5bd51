"""Models that are trained one after the other, each taught by the one before."""

from keras_kd.sequences.born_again import BornAgain
from keras_kd.sequences.chain import distill_chain

__all__ = ["BornAgain", "distill_chain"]
