"""Planting a bug in a copy of the sources, building the test with it, and running it."""

import dataclasses
import os
import pathlib
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[2]
CXX = [os.environ.get("CXX", "c++"), "-std=c++17", "-O1", "-w", "-pthread"]
PLAIN, ADDRESS, THREAD = "plain", "address", "thread"
SECONDS = 200  # of a test that takes one or, under ThreadSanitizer, 60; a bug may hang it


@dataclasses.dataclass(frozen=True)
class Bug:
    """A replacement in one file, and the sanitizer, or none, that must notice it."""

    what: str
    file: str
    code: str
    replacement: str
    sanitizer: str


def compile_and_link(parts, folder, sanitizer, kept):
    """Builds a test.

    Args:
        parts: For each object `(name, source file, options, whether it cannot hold a bug)`.
        folder: Where to build.
        sanitizer: Of GCC and Clang, or `PLAIN`, the fastest by far.
        kept: Folder with the objects of the unchanged sources, or `None`.

    Returns:
        The path of the test.
    """
    folder.mkdir(parents=True, exist_ok=True)
    compiler = [*CXX]
    if sanitizer != PLAIN:
        compiler += [f"-fsanitize={sanitizer}", "-fno-sanitize-recover=all"]
    files = []
    for name, path, options, unchanging in parts:
        files.append((kept if kept and unchanging else folder) / f"{name}.o")
        if files[-1].parent == folder:
            _run([*compiler, *options, "-c", path, "-o", files[-1]])
    _run([*compiler, *files, "-o", folder / "test"])
    return folder / "test"


def _run(command):
    subprocess.run(list(map(str, command)), check=True)


def passes(test, arguments):
    """Whether the test passes in time."""
    try:
        done = subprocess.run([test, *arguments], capture_output=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


def check(bug):
    """Ends the process unless the sources have the code that the bug replaces, once."""
    count = (ROOT / bug.file).read_text().count(bug.code)
    if count != 1:
        sys.exit(
            f"{bug.file} holds {bug.code!r} {count} times, expected once: update the list of bugs."
        )


def plant(bug, folders, scratch):
    """Copies `folders` to `scratch` and puts the bug, which was checked, into them."""
    for name in folders:
        shutil.copytree(ROOT / name, scratch / name)
    path = scratch / bug.file
    path.write_text(path.read_text().replace(bug.code, bug.replacement))
