"""`label`: a teacher writes a text for each prompt, once; killed, it continues where it stopped."""

import dataclasses
import itertools
import os
import pathlib
import time
from collections.abc import Callable, Iterator
from typing import Any

from keras_kd._utils import files, locks, progress, validation
from keras_kd._utils.validation import invalid
from keras_kd.language import label_files, writers
from keras_kd.language.label_files import MANIFEST, PLAN
from keras_kd.teachers.cache import CacheError
from keras_kd.teachers.cache import format as cache_format

# Prompts of a shard, where it is not given: a killed run loses one.
_BATCHES_PER_SHARD = 16
_OTHER_FILES = "It holds other files than labels: pass a folder of its own"


@dataclasses.dataclass(frozen=True)
class Labels:
    """What `label` has written; also the path of it (`os.PathLike`).

    Args:
        path: The folder.
        prompts: How many prompts there were.
        kept: How many labels are in the folder.
        dropped: `{filter: how many it dropped}`; each prompt counts for the first that did.

    Example:

    ```python
    import pathlib
    import tempfile
    import keras_kd as kd

    folder = pathlib.Path(tempfile.mkdtemp()) / "labels"
    shout = lambda prompts: [each.upper() for each in prompts]
    short = lambda prompt, text, reference: len(text) < 4
    found = kd.language.label(shout, ["one", "three"], folder, keep={"short": short}, verbose=0)
    assert isinstance(found, kd.language.Labels)
    assert (found.prompts, found.kept, found.dropped) == (2, 1, {"short": 1})
    ```
    """

    path: pathlib.Path
    prompts: int
    kept: int
    dropped: dict[str, int]

    def __fspath__(self) -> str:
        return os.fspath(self.path)


def label(
    teacher: Any,
    prompts: Any,
    path: str | os.PathLike,
    keep: Any = None,
    *,
    batch_size: int = 8,
    sampler: Any = None,
    max_length: int | None = None,
    seed: int = 0,
    prompts_per_shard: int | None = None,
    fingerprint: str | None = None,
    verbose: int | str = 1,
) -> Labels:
    """Has a teacher write a text for each prompt: data for sequence-level distillation.

    Killed at any moment it continues when it is called again with the same arguments, and loses one
    shard at most; the folder is then the same, byte for byte, as one that was written in one go.

    Args:
        teacher: A `CausalLM` or `Seq2SeqLM` of KerasHub with its preprocessor, whose own sampler
            stays as it is; or a function from a list of prompts to a list of as many strings. The
            text of a causal model is what comes after the prompt. For a resumed run to equal an
            uninterrupted one, a function must give the same texts for the same batch.
        prompts: A list of strings, or of pairs `(prompt, reference)`; a function that returns an
            iterator of them, for more than fit into memory; or a `tf.data.Dataset` of single ones.
            The same ones in the same order each time: they may be read more than once. For a
            function prompts may be other things than texts, such as arrays of sound or dicts of
            arrays; these are not written.
        path: A folder of this machine, which is made.
        keep: Which texts are kept: a function of `(prompt, text, reference)` that returns a bool
            (the reference is `None` where there is none), or a dict of such by name; all of them
            must agree. `keras_kd.language.WordErrorFilter` is one.
        batch_size: Prompts at once.
        sampler: A sampler of KerasHub or its name, such as `"beam"` or `"top_p"`; `None`: greedy.
        max_length: Tokens of prompt and text together, of an encoder-decoder those of the text;
            `None`: the preprocessor's `sequence_length`.
        seed: Of samplers that draw. Draws depend on it and on the number of the batch.
        prompts_per_shard: How many prompts a file is of, a multiple of `batch_size`; default: 16
            batches.
        fingerprint: A text that tells this teacher from others. Default: the digest of a model's
            weights and configuration; a function has none.
        verbose: 1 or `"auto"`: a progress bar with prompts per second and the share that is kept,
            and a line of counts; 2: that line alone; 0: silent.

    Returns:
        A `keras_kd.language.Labels`: `path`, `prompts`, `kept`, `dropped`. `load_labels` reads it.

    Raises:
        ImportError: A package is missing; it names the extra.
        ValueError: Before anything is written: an argument is wrong, a model has no preprocessor,
            or a prompt leaves no room for a text. Later: a function does not return what it should.
        CacheError: The folder holds labels of another teacher, other prompts or other settings.

    Example:

    ```python
    import pathlib
    import tempfile
    import keras_kd as kd

    pairs = [("clip 1", "the cat sat"), ("clip 2", "a dog ran off")]
    heard = {"clip 1": "The cat sat.", "clip 2": "Thanks for watching!"}
    found = kd.language.label(
        lambda prompts: [heard[each] for each in prompts],
        pairs,
        pathlib.Path(tempfile.mkdtemp()) / "labels",
        keep=kd.language.WordErrorFilter(0.2),
        verbose=0,
    )
    assert (found.kept, found.dropped) == (1, {"WordErrorFilter": 1})
    (only,) = kd.language.load_labels(found)
    assert only["text"] == "The cat sat."
    ```

    Reference: Kim and Rush, "Sequence-Level Knowledge Distillation",
    https://arxiv.org/abs/1606.07947
    """
    folder = pathlib.Path(validation.path("path", path, "a folder"))
    batch_size = validation.integer("batch_size", batch_size, 1)
    per_shard = _per_shard(prompts_per_shard, batch_size)
    filters = _filters(keep)
    validation.integer("seed", seed, 0)
    fingerprint = validation.text("fingerprint", fingerprint, optional=True)
    verbose = progress.check_verbose(verbose)
    label_files.check_prompts("prompts", prompts)
    writer = writers.writer_of(teacher, sampler, max_length, seed)
    _check_folder(folder)
    total = _check_all(writer, prompts)
    plan = {
        "version": label_files.VERSION,
        "teacher": fingerprint or writer.fingerprint(),
        "keep": list(filters),
        "batch_size": batch_size,
        "prompts_per_shard": per_shard,
        "seed": seed,
        **writer.settings,
    }
    shown = _Progress(folder, total, verbose)
    run = _Run(folder, plan, writer, filters, shown)
    folder.mkdir(parents=True, exist_ok=True)
    with locks.held(folder, cache_format.writer_lock(0), shown.wait):
        _agree_on_plan(folder, plan)
        for leftover in folder.glob("partial-*"):  # of a run that was killed
            leftover.unlink()
        manifest = run.write(prompts)
    shown.end(manifest)
    return Labels(folder, manifest["prompts"], manifest["kept"], manifest["dropped"])


def _per_shard(value: Any, batch_size: int) -> int:
    found = validation.integer("prompts_per_shard", value, 1, optional=True)
    found = _BATCHES_PER_SHARD * batch_size if found is None else found
    if found % batch_size:
        raise invalid("prompts_per_shard", f"a multiple of batch_size, {batch_size}", found)
    return found


def _filters(keep: Any) -> dict[str, Callable]:
    if keep is None:
        return {}
    if not isinstance(keep, dict):
        name = getattr(keep, "__name__", type(keep).__name__)
        keep = {"keep" if name == "<lambda>" else name: keep}
    for name, function in keep.items():
        if not isinstance(name, str) or not name:
            raise invalid("keep", "a function, or a dict of functions by name", repr(keep))
        validation.function(f"keep[{name!r}]", function, ["prompt", "text", "reference"])
    return dict(keep)


def _check_folder(folder: pathlib.Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise invalid("path", "the path of a folder", f"{str(folder)!r}, which is a file")
    if not folder.is_dir():
        return
    others = [x.name for x in folder.iterdir() if x.name != locks.FOLDER]
    others = [x for x in others if not x.startswith("partial-")]
    # Looked for last: another run may begin meanwhile, and writes the plan first.
    if others and not (folder / PLAN).exists():
        raise CacheError(f"{folder}: {_OTHER_FILES}. Found: {sorted(others)[:5]}")


def _check_all(writer: writers.Writer, prompts: Any) -> int | None:
    """How many prompts there are, where it is known; raises for those that cannot be answered."""
    if not writer.can_check:
        return label_files.count_prompts(prompts)
    count = 0
    texts = (prompt for prompt, _ in label_files.read_prompts(prompts))
    while part := list(itertools.islice(texts, 1024)):
        writer.check(part, count)
        count += len(part)
    return count


def _agree_on_plan(folder: pathlib.Path, plan: dict) -> None:
    """Writes the plan, or raises where the folder has another one."""
    path = folder / PLAN
    if not path.exists():
        cache_format.write_json(path, plan)
        return
    found = label_files.read(path)
    differing = sorted(x for x in {*found, *plan} if found.get(x) != plan.get(x))
    if not differing:
        return
    if not any(folder.glob("shard-*.json")):  # a run that ended before its first shard
        cache_format.write_json(path, plan)
        return
    listed = "; ".join(f"{x}: {found.get(x)!r} there, {plan.get(x)!r} now" for x in differing)
    raise CacheError(
        f"{folder} holds labels of another kind. {listed}. Pass another folder, or remove this one."
    )


class _Run:
    """One call of `label`: writes the shards that are not there yet."""

    def __init__(
        self,
        folder: pathlib.Path,
        plan: dict,
        writer: writers.Writer,
        filters: dict[str, Callable],
        shown: "_Progress",
    ) -> None:
        self._folder, self._plan, self._writer = folder, plan, writer
        self._filters, self._shown = filters, shown

    def write(self, prompts: Any) -> dict:
        """Writes what is missing; returns the manifest."""
        items = label_files.read_prompts(prompts)
        notes: list[dict] = []
        first = 0
        with self._writer.ready():
            while part := list(itertools.islice(items, self._plan["prompts_per_shard"])):
                notes.append(self._shard(len(notes), first, part))
                first += len(part)
        if not notes:
            raise invalid("prompts", "at least one prompt", "none")
        self._check_no_others(len(notes))
        manifest = {
            **self._plan,
            "shards": notes,
            "prompts": first,
            "kept": sum(note["kept"] for note in notes),
            "dropped": {
                name: sum(note["dropped"][name] for note in notes) for name in self._filters
            },
            "has_prompts": any(note["has_prompts"] for note in notes),
            "has_references": any(note["has_references"] for note in notes),
        }
        path = self._folder / MANIFEST
        if not path.exists() or label_files.read(path) != manifest:
            cache_format.write_json(path, manifest)
        return manifest

    def _check_no_others(self, count: int) -> None:
        """Raises where an earlier run had more prompts."""
        later = self._folder / f"{label_files.shard_name(count)}.json"
        if later.exists():
            raise _other_prompts(self._folder, later.stem)

    def _shard(self, number: int, first: int, items: list[tuple]) -> dict:
        """The note of a shard, which is written unless it is there."""
        name = label_files.shard_name(number)
        path = self._folder / f"{name}.jsonl"
        inputs = label_files.digest_of(items)
        if path.with_suffix(".json").exists():
            note = label_files.read(path.with_suffix(".json"))
            if note["inputs"] != inputs:
                raise _other_prompts(self._folder, name)
            if path.is_file() and cache_format.sha256(path) == note["sha256"]:
                self._shown.add(len(items), note["kept"], is_new=False)
                return note
        dropped = dict.fromkeys(self._filters, 0)
        kept = 0
        with files.replace_atomically(path) as partial:
            with partial.open("wb") as file:
                for record, reason in self._records(first, items):
                    if reason is None:
                        file.write(label_files.encode(record))
                        kept += 1
                    else:
                        dropped[reason] += 1
            digest = cache_format.sha256(partial)
        note = {
            "name": name,
            "first": first,
            "prompts": len(items),
            "kept": kept,
            "dropped": dropped,
            "sha256": digest,
            "inputs": inputs,
            "has_prompts": any(isinstance(prompt, str) for prompt, _ in items),
            "has_references": any(reference is not None for _, reference in items),
        }
        # After the shard itself: where there is a note its shard is whole.
        cache_format.write_json(path.with_suffix(".json"), note)
        return note

    def _records(self, first: int, items: list[tuple]) -> Iterator[tuple[dict, str | None]]:
        """`(label, name of the filter that drops it or None)` of each prompt."""
        size = self._plan["batch_size"]
        for start in range(0, len(items), size):
            part = items[start : start + size]
            number = (first + start) // size
            kept = 0
            for place, text in enumerate(self._texts([prompt for prompt, _ in part], number)):
                prompt, reference = part[place]
                record: dict[str, Any] = {"index": first + start + place, "text": text}
                if isinstance(prompt, str):
                    record["prompt"] = prompt
                if reference is not None:
                    record["reference"] = reference
                reason = self._reason(prompt, text, reference)
                kept += reason is None
                yield record, reason
            self._shown.add(len(part), kept, is_new=True)

    def _texts(self, prompts: list, number: int) -> list[str]:
        count = len(prompts)
        if self._writer.pads and number:  # one more shape would be compiled once more
            prompts = prompts + prompts[-1:] * (self._plan["batch_size"] - count)
        found = self._writer.write(prompts, number)
        texts = [label_files.as_text(each) for each in found] if _is_list(found) else None
        if texts is None or len(texts) != len(prompts) or not all(_is_text(x) for x in texts):
            raise ValueError(
                f"The teacher {self._writer.name!r} must return a list with a string for each of "
                f"{len(prompts)} prompts. Received: {found!r}"
            )
        return texts[:count]

    def _reason(self, prompt: Any, text: str, reference: str | None) -> str | None:
        for name, function in self._filters.items():
            answer = function(prompt, text, reference)
            if not validation.boolean(f"keep[{name!r}](...)", answer):
                return name
        return None


def _is_list(value: Any) -> bool:
    return hasattr(value, "__len__") and not isinstance(value, (str, bytes, dict))


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _other_prompts(folder: pathlib.Path, name: str) -> CacheError:
    return CacheError(
        f"The prompts or references of {name} differ from those when it was written. Pass the same "
        f"ones in the same order, or remove {folder} and write the labels again."
    )


class _Progress:
    """Shows how many prompts were answered."""

    def __init__(self, folder: pathlib.Path, total: int | None, verbose: int) -> None:
        self._folder, self._verbose = folder, verbose
        self._bar = progress.Bar(
            f"label: {folder}", total, "prompt", verbose, figures=("prompts/s", "kept")
        )
        self._done = self._new = self._kept = 0
        self._start = time.monotonic()

    def wait(self) -> None:
        """Another run holds the lock."""
        if self._verbose:
            progress.print_line(f"{self._folder}: another run is writing here; waiting for it.")

    def add(self, prompts: int, kept: int, is_new: bool) -> None:
        """Counts prompts."""
        self._done += prompts
        self._new += prompts * is_new
        self._kept += kept
        seconds = max(time.monotonic() - self._start, 1e-3)
        self._bar.update(self._done, self._new / seconds, self._kept / self._done)

    def end(self, manifest: dict) -> None:
        """Ends the bar, and shows the counts."""
        self._bar.end()
        if not self._verbose:
            return
        dropped = "".join(f", {name} dropped {n}" for name, n in manifest["dropped"].items())
        there = self._done - self._new
        earlier = f"; {there} were answered before" if there else ""
        progress.print_line(
            f"{self._folder}: kept {manifest['kept']} of {manifest['prompts']} labels{dropped}"
            f"{earlier}."
        )
