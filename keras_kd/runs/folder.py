"""The folder of a run: held by one process, with a record of the stages that are done.

A folder in a store is worked on in a temporary one of this machine (`mirror.Mirror`): what a stage
has made is there when the stage is done.
"""

import contextlib
import json
import pathlib
import shutil
import tempfile
import time
import weakref
from collections.abc import Iterator
from typing import Any

import yaml

from keras_kd import version
from keras_kd._utils import files, storage
from keras_kd.runs.mirror import Mirror
from keras_kd.runs.reading import Configuration

CONFIG = "config.yaml"
_STATE, _LOCK = "state", ".lock"
# What a run that was ended while it began may have left.
_OWN = (_STATE, _LOCK, "environment.json")


class RunFolder:
    """The folder of a run.

    A stage is done where the record says so and its files are those of the record: a file that was
    removed or changed since is made again.

    Args:
        path: The folder, or its address in a store.

    Attributes:
        place: The folder as the user knows it.
        path: The folder of this machine that is worked on; `place`, where that is one.
    """

    def __init__(self, path: Any) -> None:
        self.place = storage.place(path, "--folder", "the path of a folder, or its address")
        self._mirror: Mirror | None = None
        if storage.is_remote(self.place):
            self.path = pathlib.Path(tempfile.mkdtemp(prefix="keras_kd-run-"))
            weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)
            self._mirror = Mirror(self.path, self.place)
        else:
            self.path = self.place
        self.state = self.path / _STATE
        self._record: dict[str, Any] = {}

    def file(self, name: str) -> pathlib.Path:
        """The path of a file in it."""
        return self.path / name

    # Beginning and ending.

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """While it is open no other process uses the folder.

        Raises:
            ValueError: Another process does, or it cannot be written.
            ImportError: This system has no such locks.
        """
        try:
            import fcntl
        except ImportError as error:
            raise ImportError(
                "A run folder needs the locks of Linux or macOS (the module fcntl), which this "
                "system lacks. Run it there, or in WSL."
            ) from error

        files.check_writable(self.file(_LOCK), "--folder")
        with open(self.file(_LOCK), "w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ValueError(
                    f"The run folder {str(self.place)!r} is in use by another process. Wait until "
                    "it has ended, or choose another one with --folder."
                ) from None
            yield

    def is_begun(self) -> bool:
        """Whether a run was begun here."""
        return storage.exists(self.place / CONFIG)

    def check_new(self) -> None:
        """Raises where the folder is not for a new run.

        Raises:
            ValueError: It holds a run, or other files.
        """
        if self.is_begun():
            raise ValueError(
                f"The run folder {str(self.place)!r} holds a run. Continue it with --resume, or "
                "choose another folder with --folder; nothing of it is written over."
            )
        others = sorted(storage.names(self.place) - set(_OWN))
        if others:
            raise ValueError(
                f"The run folder {str(self.place)!r} holds other files, such as {others[0]!r}. "
                "Choose an empty one with --folder."
            )

    def begin(self, config: Configuration) -> None:
        """A new run; see `check_new`."""
        self.state.mkdir(exist_ok=True)
        self.write_json("environment.json", version.installed())
        self._record = {"data": None, "stages": {}}
        self._write_record()
        self.write_config(config)  # last: from now on there is a run
        self.push()

    def resume(self, config: Configuration, apart_from: tuple[str, ...] = ()) -> None:
        """A run that was begun.

        Args:
            config: The configuration, which must be the one it was begun with.
            apart_from: Sections that may differ.

        Raises:
            ValueError: There is no run, or it has another configuration.
        """
        if not self.is_begun():
            raise ValueError(
                f"There is no run in {str(self.place)!r} to continue. Leave --resume out to begin "
                "one, or name its folder with --folder."
            )
        used = yaml.safe_load(storage.read(self.place / CONFIG).decode("utf-8"))
        differing = list(_differences(used, config.plain(), apart_from))
        if differing:
            raise ValueError(
                f"The run in {str(self.place)!r} was begun with another configuration. Differing: "
                f"{'; '.join(differing)}. Continue with the one it had "
                f"({str(self.place / CONFIG)!r}), or begin another run with --folder."
            )
        if self._mirror is not None:
            self._mirror.pull()
        self.state.mkdir(exist_ok=True)
        for each in [*self.path.glob("partial-*"), *self.state.glob("partial-*")]:
            each.unlink()  # what was being written when the run was ended
        self._record = json.loads((self.state / "stages.json").read_text(encoding="utf-8"))

    def check_data(self, digest: str) -> None:
        """Raises where a run goes on with other data than it was begun with."""
        if self._record["data"] not in (None, digest):
            raise ValueError(
                f"The data has changed since the run in {str(self.place)!r} was begun. Bring the "
                "old data back, or begin another run with --folder."
            )
        self._record["data"] = digest
        self._write_record()

    # What is done.

    def is_done(self, stage: str) -> bool:
        """Whether a stage is done and its files are there as it left them."""
        made = self._record["stages"].get(stage)
        return made is not None and all(
            self.file(name).exists() and files.digest_files([self.file(name)]) == digest
            for name, digest in made.items()
        )

    def done(self, stage: str, names: list[str]) -> None:
        """Notes that a stage is done.

        Args:
            stage: Its name.
            names: The files that it has made.
        """
        self._record["stages"][stage] = {
            name: files.digest_files([self.file(name)]) for name in names
        }
        self._write_record()

    def forget(self, stage: str) -> list[str]:
        """A stage is to be done again; returns the files that it has made."""
        made = self._record["stages"].pop(stage, {})
        self._write_record()
        return list(made)

    def clear_scratch(self, name: str) -> None:
        """Removes a file or a folder that a stage needed only while it ran."""
        shutil.rmtree(self.state / name, ignore_errors=True)

    # Files.

    def write_text(self, name: str, text: str) -> None:
        """Writes a file whole."""
        with files.replace_atomically(self.file(name)) as partial:
            partial.write_text(text, encoding="utf-8")

    def write_json(self, name: str, value: Any) -> None:
        """Writes a file of JSON whole."""
        self.write_text(name, json.dumps(value, indent=2, ensure_ascii=False) + "\n")

    def write_config(self, config: Configuration) -> None:
        """Writes the configuration as it is used, with defaults and overrides."""
        text = yaml.safe_dump(config.plain(), sort_keys=False, allow_unicode=True)
        self.write_text(CONFIG, text)

    def log(self, line: str) -> None:
        """Adds a line to `run.log`."""
        with open(self.file("run.log"), "a", encoding="utf-8") as file:
            file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {line}\n")

    def push(self) -> None:
        """Brings what has changed into the store, if the folder is in one."""
        if self._mirror is not None:
            self._mirror.push()

    def _write_record(self):
        text = json.dumps(self._record, indent=2) + "\n"
        with files.replace_atomically(self.state / "stages.json") as partial:
            partial.write_text(text, encoding="utf-8")


def _differences(one, other, apart_from, place=""):
    """`"key: before, now"` for each value that differs."""
    if isinstance(one, dict) and isinstance(other, dict):
        for key in dict.fromkeys([*one, *other]):
            inner = f"{place}.{key}" if place else str(key)
            if inner not in apart_from:
                yield from _differences(one.get(key), other.get(key), apart_from, inner)
    elif one != other:
        yield f"{place}: {one!r} before, {other!r} now"
