"""`Folder`: keeps the finished models of a sequence, so that a rerun goes on with the next."""

import json
import os
import pathlib
import random

from keras_kd.files import renamed

_SEEDS = 2**32
# How the names of files begin that are not finished, in earlier versions too.
_PARTIAL = ("partial-", "partial_")


class Folder:
    """Models and records by number.

    A model is there when its record is: first the model, then the record gets its name.

    Args:
        path: The folder, made if it is missing; `None` keeps nothing.
        settings: `{name: text}` of what must be the same in a rerun. A rerun may add names.

    Raises:
        ValueError: The folder was made with other settings, or holds other things.
    """

    def __init__(self, path, settings):
        self.keeps, self.path = path is not None, pathlib.Path(path or "")
        self.seed = random.randrange(_SEEDS)
        if not self.keeps:
            return
        file = self.path / "settings.json"
        if file.exists():
            found = self._read(file)
            self._compare(found["settings"], settings)
            self.seed = found["seed"]
            settings = {**found["settings"], **settings}
        elif self.path.exists() and not all(_is_partial(each) for each in self.path.iterdir()):
            raise ValueError(
                f"The directory {os.fspath(self.path)!r} holds other files and no settings.json. "
                "Use an empty one."
            )
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(
                f"The directory {os.fspath(self.path)!r} cannot be made: {error.strerror}. Pass "
                "another one."
            ) from error
        self._write("settings.json", {"seed": self.seed, "settings": settings})

    def _read(self, file):
        try:
            found = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise self._damaged(file, error) from error
        is_whole = isinstance(found, dict) and isinstance(found.get("settings"), dict)
        if not is_whole or not isinstance(found.get("seed"), int):
            raise self._damaged(file, "it has no settings and seed")
        return found

    def _damaged(self, file, why):
        return ValueError(
            f"{file.name} in the directory {os.fspath(self.path)!r} cannot be read: {why}. Use "
            "another directory, or delete this one to begin anew."
        )

    def _compare(self, found, settings):
        other = sorted(key for key in settings if found.get(key, settings[key]) != settings[key])
        if other:
            raise ValueError(
                f"The directory {os.fspath(self.path)!r} holds models that were made with other "
                f"settings; these differ: {', '.join(other)}. Use another directory, or delete "
                "this one to begin anew."
            )

    def seed_of(self, number):
        """The seed of a training, for `keras.utils.set_random_seed`."""
        return (self.seed + number) % _SEEDS

    def load(self, number, model):
        """Gives a finished model's weights to `model`; returns its record, or `None`."""
        if not self.keeps or not (self.path / f"model_{number}.json").exists():
            return None
        model.load_weights(self.path / f"model_{number}.keras")
        return json.loads((self.path / f"model_{number}.json").read_text(encoding="utf-8"))

    def save(self, number, model, record):
        """Keeps a finished model."""
        if not self.keeps:
            return
        with renamed(self.path / f"model_{number}.keras") as partial:
            model.save(partial)
        self._write(f"model_{number}.json", record)

    def _write(self, name, content):
        with renamed(self.path / name) as partial:
            partial.write_text(json.dumps(content, default=float, indent=1), encoding="utf-8")


def _is_partial(path):
    """Whether a run that was ended has left this file half written."""
    return path.name.startswith(_PARTIAL)
