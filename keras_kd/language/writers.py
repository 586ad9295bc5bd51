"""What writes texts for `label`: a model of KerasHub with `generate`, or a function."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np

from keras_kd._utils import validation
from keras_kd._utils.validation import invalid
from keras_kd.language import samplers
from keras_kd.teachers import keras_model
from keras_kd.teachers.cache import fingerprints

# Prompts whose lengths are counted at once.
_CHECKED_AT_ONCE = 256


class Writer:
    """Base class: a teacher that writes one text for each prompt.

    Attributes:
        name: For messages.
        settings: What its texts depend on, for the plan of a folder of labels.
        pads: Whether all batches must have one size.
        can_check: Whether prompts must be checked, and so be texts.
    """

    name = ""
    settings: dict[str, Any]
    pads = False
    can_check = False

    def check(self, prompts: list[Any], first: int) -> None:
        """Raises for prompts that cannot be answered.

        Args:
            prompts: The prompts.
            first: The number of the first of them.
        """
        del prompts, first

    @contextmanager
    def ready(self) -> Iterator[None]:
        """While it is open, `write` may be called; the user's teacher is as before afterwards."""
        yield

    def write(self, prompts: list[Any], number: int) -> list[str]:
        """A text for each prompt.

        Args:
            prompts: A batch of prompts.
            number: The number of the batch: what is random in it depends on that alone.
        """
        raise NotImplementedError

    def fingerprint(self) -> str | None:
        """A text that tells it from others, or `None`."""
        return None


def writer_of(teacher: Any, sampler: Any, max_length: Any, seed: int) -> Writer:
    """The `Writer` of a teacher.

    Raises:
        ValueError: It cannot write texts, or not with these arguments.
    """
    max_length = validation.integer("max_length", max_length, 2, optional=True)
    if isinstance(teacher, keras.Model):
        return HubWriter(teacher, sampler, max_length, seed, takes_functions=True)
    for name, value in (("sampler", sampler), ("max_length", max_length)):
        if value is not None:
            raise invalid(
                name, "None for a function, which writes as it does", validation.briefly(value)
            )
    what = (
        "a model of KerasHub with `generate` and a preprocessor, or a function from a list of "
        "prompts to a list of strings"
    )
    is_function = callable(teacher) and not isinstance(teacher, type)
    if not is_function or validation.unfit_signature(teacher, ["prompts"]) is not None:
        raise invalid("teacher", what, f"{teacher!r} of type {type(teacher).__name__}")
    return FunctionWriter(teacher)


class FunctionWriter(Writer):
    """A function from a list of prompts to a list of strings.

    Args:
        function: The function.
    """

    def __init__(self, function: Callable) -> None:
        self._function = function
        self.name = str(getattr(function, "__name__", type(function).__name__))
        self.settings: dict[str, Any] = {}

    def write(self, prompts: list[Any], number: int) -> list[str]:
        del number
        return self._function(list(prompts))


class HubWriter(Writer):
    """A task of KerasHub with `generate`, a `CausalLM` or a `Seq2SeqLM`.

    Args:
        model: The model.
        sampler: A sampler of KerasHub, or its name; `None`: greedy.
        max_length: Tokens of prompt and text together, or `None`: the preprocessor's length.
        seed: Of samplers that draw.
        role: What errors call it.
        takes_functions: Whether a function may be passed in its place, for errors.
    """

    pads, can_check = True, True

    def __init__(
        self,
        model: keras.Model,
        sampler: Any,
        max_length: int | None,
        seed: int,
        role: str = "teacher",
        takes_functions: bool = False,
    ) -> None:
        self._model, self._seed = model, seed
        self._preprocessor = _preprocessor_of(model, role, takes_functions)
        self.name = model.name
        self._traced: Any = None
        # An encoder reads the prompt, and the text is all that the decoder writes.
        self._encodes = hasattr(self._preprocessor, "encoder_sequence_length")
        self._length = max_length or int(self._preprocessor.sequence_length)
        context = getattr(getattr(model, "backbone", None), "max_sequence_length", None)
        if context is not None and self._length > context:
            asked = "max_length" if max_length else "the preprocessor's sequence_length"
            raise ValueError(
                f"{asked} is {self._length}, and the model {model.name!r} has positions for "
                f"{context} tokens. Pass max_length={context} or less."
            )
        self._sampler = samplers.of_hub(sampler)
        self.settings = {
            "sampler": type(self._sampler).__name__,
            "sampler_config": _plain_config(self._sampler),
            "max_length": self._length,
        }

    def fingerprint(self) -> str | None:
        return fingerprints.fingerprint_teacher(keras_model.adapt(self._model))

    def check(self, prompts: list[Any], first: int) -> None:
        for start in range(0, len(prompts), _CHECKED_AT_ONCE):
            part = prompts[start : start + _CHECKED_AT_ONCE]
            wrong = next((x for x in part if not isinstance(x, str)), None)
            if wrong is not None:
                raise invalid("prompts", "strings for a model of KerasHub", repr(wrong))
            full = self._full_rows(part)
            if full.any():
                self._refuse(part, first + start, int(np.argmax(full)))

    def _full_rows(self, prompts: list[str]) -> np.ndarray:
        """Which prompts leave no room: not for a token of the text, or not for themselves."""
        prepare = self._preprocessor.generate_preprocess
        if self._encodes:
            most = self._preprocessor.encoder_sequence_length
            found = prepare(prompts, encoder_sequence_length=most + 1)["encoder_padding_mask"]
        else:
            found = prepare(prompts, sequence_length=self._length)["padding_mask"]
        return np.asarray(np.asarray(found).astype(bool).all(axis=-1))

    def _refuse(self, prompts: list[str], first: int, place: int) -> None:
        tokens = len(np.ravel(self._preprocessor.tokenizer(prompts[place])))
        number = first + place
        if self._encodes:
            raise ValueError(
                f"Prompt {number} has {tokens} tokens, and the encoder's sequence_length is "
                f"{self._preprocessor.encoder_sequence_length}: it would be cut. Shorten it, or "
                "give the model a preprocessor with a larger encoder_sequence_length."
            )
        raise ValueError(
            f"Prompt {number} has {tokens} tokens, and max_length={self._length} of prompt and "
            "text together leaves no room for a text. Shorten it, leave it out, or pass a larger "
            "max_length, up to the model's context."
        )

    @contextmanager
    def ready(self) -> Iterator[None]:
        model = self._model
        traced = model.generate_function
        with samplers.used(model, self._sampler):
            try:
                # With this sampler: traced once, however often it is ready.
                model.generate_function = self._traced
                yield
                self._traced = model.generate_function
            finally:
                model.generate_function = traced

    def write(self, prompts: list[Any], number: int) -> list[str]:
        def first(place: int) -> int:
            return int(np.random.SeedSequence([self._seed, number, place]).generate_state(1)[0])

        samplers.reseed(self._sampler, first)
        options = {} if self._encodes else {"strip_prompt": True}
        found = self._model.generate(list(prompts), max_length=self._length, **options)
        return [str(each) for each in found]


def _preprocessor_of(model: Any, role: str, takes_functions: bool) -> Any:
    a_function = "function from a list of prompts to a list of strings"
    if not callable(getattr(model, "generate", None)) or not hasattr(model, "sampler"):
        raise invalid(
            role,
            "a model with `generate`, such as a CausalLM or Seq2SeqLM of KerasHub"
            + (f", or a {a_function}" if takes_functions else ""),
            f"{getattr(model, 'name', model)!r} of type {type(model).__name__}",
        )
    preprocessor = getattr(model, "preprocessor", None)
    if preprocessor is None:
        raise ValueError(
            f"The model {model.name!r} has no preprocessor (preprocessor=None), which makes tokens "
            "of prompts and texts of tokens. Set one, model.preprocessor = "
            "keras_hub.models.CausalLMPreprocessor.from_preset(...)"
            + (f", or pass a {a_function} that does both." if takes_functions else ".")
        )
    return preprocessor


def _plain_config(sampler: Any) -> dict[str, Any]:
    config = sampler.get_config()
    return {key: value for key, value in sorted(config.items()) if key != "seed"}
