"""`Mirror`: the folder of a run in a store, worked on in a folder of this machine."""

import hashlib
import pathlib

from keras_kd._utils import files, locks, storage

# It says what is done, and is uploaded after what it speaks of.
_RECORD = "state/stages.json"


class Mirror:
    """Keeps a folder in a store as one of this machine is, stage by stage.

    A store has no locks: that another process works on the same run is noticed when the record of
    the stages is not the one that this process has left there.

    Args:
        local: The folder of this machine.
        place: The folder in the store, a `storage.Place`.
    """

    def __init__(self, local: pathlib.Path, place: storage.Place) -> None:
        self._local, self._place = local, place
        self._digests: dict[str, str] = {}  # of what is in the store, as far as this process knows

    def pull(self) -> None:
        """Brings all that is in the store into the folder."""
        found = sorted(storage.below(self._place))
        for name in found:
            (self._local / name).parent.mkdir(parents=True, exist_ok=True)

        def fetch(name: str) -> None:
            size = storage.size(self._place / name)
            storage.download(
                self._place / name,
                self._local / name,
                lambda file: None if file.stat().st_size == size else "came in part.",
            )

        for _ in storage.each_of(fetch, found):
            pass
        self._digests = {name: files.digest_files([self._local / name]) for name in found}

    def push(self) -> None:
        """Brings all that has changed in the folder into the store.

        Raises:
            ValueError: Another process works on the run.
            OSError: The store failed.
        """
        self._check_alone()
        digests = {
            name: files.digest_files([self._local / name])
            for path in self._local.rglob("*")
            if path.is_file()
            for name in [path.relative_to(self._local).as_posix()]
            if not _is_of_this_machine(name)
        }
        changed = [name for name, digest in digests.items() if self._digests.get(name) != digest]
        for name in sorted(changed, key=lambda name: (name == _RECORD, name)):
            storage.upload(self._local / name, self._place / name)
            self._digests[name] = digests[name]
        for name in self._digests.keys() - digests.keys():
            storage.remove(self._place / name)
            del self._digests[name]

    def _check_alone(self) -> None:
        known = self._digests.get(_RECORD)
        record = self._place / _RECORD
        found = hashlib.sha256(storage.read(record)).hexdigest() if storage.exists(record) else None
        if found != known:
            raise ValueError(
                f"The run in {str(self._place)!r} is in use by another process, which has changed "
                "it meanwhile. Let one of them end, and continue with --resume."
            )


def _is_of_this_machine(name: str) -> bool:
    parts = name.split("/")
    return name == ".lock" or locks.FOLDER in parts[:-1] or parts[-1].startswith("partial-")
