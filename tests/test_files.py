"""Files are the old ones or the new ones, whole, whoever writes beside and whenever it ends."""

import os
import pathlib
import stat
import threading

import pytest

from keras_kd._utils import files


def write(path, text):
    with files.replace_atomically(path) as partial:
        partial.write_text(text, encoding="utf-8")


def test_a_failure_leaves_the_old_file_alone(tmp_path):
    path = tmp_path / "a.txt"
    write(path, "old")
    with pytest.raises(RuntimeError, match="midway"):
        _fail_midway(path)
    assert [each.name for each in tmp_path.iterdir()] == ["a.txt"]
    assert path.read_text(encoding="utf-8") == "old"


def _fail_midway(path):
    with files.replace_atomically(path) as partial:
        partial.write_text("ne", encoding="utf-8")
        raise RuntimeError("midway")


def test_threads_that_write_one_file_do_not_meet(tmp_path):
    path, texts = tmp_path / "a.txt", [letter * 10_000 for letter in "abcdefgh"]
    gate, failures = threading.Barrier(len(texts)), []

    def work(text):
        try:
            with files.replace_atomically(path) as partial:
                gate.wait()  # all of them are open at once
                partial.write_text(text, encoding="utf-8")
        except Exception as error:  # noqa: BLE001 - checked below
            failures.append(error)

    threads = [threading.Thread(target=work, args=(text,)) for text in texts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert path.read_text(encoding="utf-8") in texts
    assert [each.name for each in tmp_path.iterdir()] == ["a.txt"]


@pytest.mark.skipif(os.name == "nt", reason="Windows has other permissions")
def test_permissions_and_links_stay(tmp_path):
    path, link = tmp_path / "a.html", tmp_path / "link.html"
    write(path, "old")
    path.chmod(0o600)
    link.symlink_to(path)
    write(link, "new")
    assert link.is_symlink()
    assert path.read_text(encoding="utf-8") == "new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("name", ["x" * 247 + ".keras", "é" * 120 + ".weights.h5"])
def test_names_as_long_as_they_may_be(tmp_path, name):
    path = tmp_path / name
    with files.replace_atomically(path) as partial:
        assert partial.name.endswith("".join(pathlib.PurePath(name).suffixes))
        partial.write_text("whole", encoding="utf-8")
    assert path.read_text(encoding="utf-8") == "whole"


@pytest.mark.skipif(os.name == "nt", reason="Windows opens no folders")
def test_the_bytes_and_then_the_name_are_on_the_disk(tmp_path, monkeypatch):
    synced, real = [], os.fsync

    def record(descriptor):
        synced.append((os.fstat(descriptor).st_ino, (tmp_path / "a.txt").exists()))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", record)
    write(tmp_path / "a.txt", "whole")
    at, folder = (tmp_path / "a.txt").stat().st_ino, tmp_path.stat().st_ino
    assert synced == [(at, False), (folder, True)]
