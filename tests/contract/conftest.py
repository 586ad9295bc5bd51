"""What the tables of wrong calls share."""

import keras
import pytest


@pytest.fixture
def steps(monkeypatch):
    """How often an optimizer has been asked to change weights."""
    seen = []
    apply = keras.optimizers.SGD.apply

    def counted(self, *args, **kwargs):
        seen.append(self)
        return apply(self, *args, **kwargs)

    monkeypatch.setattr(keras.optimizers.SGD, "apply", counted)
    return seen
