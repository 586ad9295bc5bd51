"""Saving and loading of `MutualDistiller`."""

import keras

from keras_kd.persistence import OwnVariables
from keras_kd.serializing import deserialized


class MutualPersistence(OwnVariables):
    """Mixin of `MutualDistiller`: its configuration; its parts save themselves."""

    def with_metrics(self):
        return [self, *self.learners]

    def build_metrics(self, data):
        for learner in self.learners:
            learner.build_metrics(data)

    def get_config(self):
        config = super().get_config()
        config.update(
            {
                "peers": [keras.saving.serialize_keras_object(peer) for peer in self.peers],
                "distillation_loss": keras.saving.serialize_keras_object(self.distillation_loss),
                "alpha": float(self.alpha),
                "beta": float(self.beta),
                "teaching": self.teaching.tolist(),
            }
        )
        return config

    @classmethod
    def from_config(cls, config):
        config = dict(config)
        config["peers"] = deserialized(config["peers"])
        loss = keras.saving.deserialize_keras_object(config["distillation_loss"])
        return cls(**{**config, "distillation_loss": loss})

    def get_compile_config(self):
        if not self.compiled:
            return None
        return keras.saving.serialize_keras_object(
            {
                **self._compiled_with.model,
                "optimizer": self.optimizers,
                "run_eagerly": self.run_eagerly,
                "steps_per_execution": self.steps_per_execution,
                "jit_compile": self.jit_compile,
            }
        )

    def compile_from_config(self, config):
        self.compile(**keras.saving.deserialize_keras_object(config))
