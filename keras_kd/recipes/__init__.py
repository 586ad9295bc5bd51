"""Papers' ways to distill transformers and language models, as plain losses and arguments."""

from keras_kd.recipes.causal_lm import causal_lm
from keras_kd.recipes.distil_whisper import distil_whisper
from keras_kd.recipes.distilbert import distilbert
from keras_kd.recipes.minilm import minilm
from keras_kd.recipes.mobilebert import mobilebert
from keras_kd.recipes.recipe import Recipe, Stage
from keras_kd.recipes.sentence_encoder import sentence_encoder
from keras_kd.recipes.tinybert import tinybert

__all__ = [
    "Recipe",
    "Stage",
    "causal_lm",
    "distil_whisper",
    "distilbert",
    "minilm",
    "mobilebert",
    "sentence_encoder",
    "tinybert",
]
