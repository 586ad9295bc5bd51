"""`ShowCompletions`: what the student writes after some prompts, shown while `fit` runs."""

from collections.abc import Callable, Sequence
from typing import Any

import keras

from keras_kd._utils import validation
from keras_kd._utils.validation import invalid
from keras_kd.language import writers


class ShowCompletions(keras.callbacks.Callback):
    """Shows what the student writes after the same prompts, at the end of epochs.

    Perplexity falls long before texts are readable, and a student that repeats itself can have a
    good one: look at the texts. Training is the same with this callback and without it: the
    student's own sampler stays as it is, and no random number of the training is drawn.

    Args:
        prompts: Strings, a few.
        every: Epochs from one time to the next; the last epoch is shown in any case.
        teacher: Whether the teacher writes once, before the first epoch, to compare with.
        sampler: A sampler of KerasHub or its name, such as `"top_p"`; `None`: greedy.
        max_length: Tokens of prompt and text together, of an encoder-decoder those of the text;
            `None`: the preprocessor's `sequence_length`.
        seed: Of samplers that draw: the draws are the same each time.
        print_fn: Takes a string, a line for each prompt; default: `print`.

    `completions` has them all: a list of `{"epoch", "by", "prompt", "text"}`; the epoch counts from
    1, and is 0 of the teacher.

    Raises:
        ValueError: An argument is wrong; or, when `fit` begins: a model has no preprocessor or
            cannot generate, or a prompt leaves no room for a text.

    Example:

    ```python
    import keras_kd as kd

    show = kd.language.ShowCompletions(["To open a file,", "Returns"], max_length=40)
    # distiller.fit(data, epochs=3, callbacks=[show]); then show.completions
    ```
    """

    def __init__(
        self,
        prompts: Sequence[str],
        every: int = 1,
        teacher: bool = False,
        sampler: Any = None,
        max_length: int | None = None,
        seed: int = 0,
        print_fn: Callable[[str], Any] | None = None,
    ) -> None:
        super().__init__()
        is_list = isinstance(prompts, (list, tuple)) and len(prompts) > 0
        if not is_list or not all(isinstance(each, str) for each in prompts):
            raise invalid("prompts", "a list of strings", repr(prompts))
        self.prompts = list(prompts)
        self.every = validation.integer("every", every, 1)
        self.teacher = validation.boolean("teacher", teacher)
        self.sampler, self.max_length = sampler, max_length
        self.seed = validation.integer("seed", seed, 0)
        if print_fn is not None:
            validation.function("print_fn", print_fn, ["line"])
        self.print_fn = print if print_fn is None else print_fn
        self.completions: list[dict[str, Any]] = []
        self._writers: dict[str, writers.Writer] = {}
        self._last_shown = 0

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self._writers = {"student": self._writer(getattr(self.model, "student", self.model))}
        if self.teacher:
            teacher = getattr(self.model, "teacher", None)
            self._writers["teacher"] = self._writer(getattr(teacher, "model", teacher), "teacher")
        for writer in self._writers.values():
            writer.check(self.prompts, 0)
        if self.teacher and not any(each["by"] == "teacher" for each in self.completions):
            self._show("teacher", 0)

    def _writer(self, model: Any, role: str = "student") -> writers.Writer:
        return writers.HubWriter(model, self.sampler, self.max_length, self.seed, role=role)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._last_shown = epoch + 1
        if self._last_shown % self.every == 0:
            self._show("student", self._last_shown)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        if self._last_shown % self.every:
            self._show("student", self._last_shown)
        self._writers = {}

    def _show(self, by: str, epoch: int) -> None:
        writer = self._writers[by]
        with writer.ready():
            texts = writer.write(self.prompts, 0)
        self.print_fn(f"epoch {epoch}, the {by} writes:" if epoch else f"the {by} writes:")
        for prompt, text in zip(self.prompts, texts, strict=True):
            self.print_fn(f"  {prompt!r}: {text!r}")
            self.completions.append({"epoch": epoch, "by": by, "prompt": prompt, "text": text})
