"""`Worker`: one process of several that train in step; `WorkerError`: one that cannot go on."""

import dataclasses
from collections.abc import Callable

#: Tells processes how often all of them have been started again.
ATTEMPT = "KERAS_KD_SCALE_ATTEMPT"


@dataclasses.dataclass(frozen=True)
class Worker:
    """The place of this process among those that train in step.

    Args:
        index: From 0 on.
        count: How many workers there are.
        attempt: How often all of them have been started again; 0 where the environment does not
            tell.
        tell: What `alive` calls.

    Attributes:
        index: As above.
        count: As above.
        attempt: As above.
        is_chief: Whether it is worker 0, which writes what is to be written once.

    Example:

    ```python
    import keras_kd as kd

    worker = kd.scale.Worker(index=0, count=2)
    assert worker.is_chief
    ```
    """

    index: int
    count: int
    attempt: int = 0
    tell: Callable[[], None] | None = dataclasses.field(default=None, repr=False, compare=False)

    @property
    def is_chief(self) -> bool:
        """Whether it is worker 0."""
        return self.index == 0

    def alive(self) -> None:
        """Gives a sign of life, which `kd.scale.run(timeout=...)` waits for."""
        if self.tell is not None:
            self.tell()


class WorkerError(RuntimeError):
    """A worker of `kd.scale.run` raised an error, or was lost too often.

    Attributes:
        index: The worker's, or `None` where it is about all of them.
        output: The last lines that it printed.
        traceback: Of the error that it raised, as text, or `None`.
    """

    def __init__(
        self,
        message: str,
        index: int | None = None,
        output: tuple[str, ...] = (),
        traceback: str | None = None,
    ) -> None:
        super().__init__(message)
        self.index, self.output, self.traceback = index, tuple(output), traceback
