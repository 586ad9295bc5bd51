"""Papers' ways to distill transformers and language models, as plain losses and arguments."""

from keras_kd.recipes.bert import distilbert, minilm, mobilebert, tinybert
from keras_kd.recipes.encoders import sentence_encoder
from keras_kd.recipes.language_models import causal_lm
from keras_kd.recipes.recipe import Recipe, Stage
from keras_kd.recipes.whisper import distil_whisper

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
