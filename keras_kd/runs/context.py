"""What the stages of a run share."""

import dataclasses
import sys
from typing import Any

from keras_kd.runs.folder import RunFolder
from keras_kd.runs.reading import Configuration
from keras_kd.runs.results import Results
from keras_kd.runs.samples import Samples


@dataclasses.dataclass
class Run:
    """A run.

    Attributes:
        config: Its configuration.
        folder: Its folder.
        name: Its name, for headings.
        data: Its data.
        plan: The teacher before it is trained.
        teacher: The teacher, trained; until then the one of `plan`.
        quiet: Whether nothing is printed; `run.log` has it all the same.
    """

    config: Configuration
    folder: RunFolder
    name: str
    data: Samples
    plan: Any
    teacher: Any
    quiet: bool = False
    # How the student with labels only is trained, where a search found other settings for it.
    labels_config: Configuration | None = None

    @property
    def results(self) -> Results:
        """The rows of the epochs."""
        return Results(self.folder.file("results.csv"))

    def say(self, line: str) -> None:
        """Prints a line to stderr, and adds it to `run.log`."""
        self.folder.log(line)
        if not self.quiet:
            print(line, file=sys.stderr, flush=True)
