"""Locks of folders: between threads, and of processes that are killed."""

import subprocess
import sys
import threading

import pytest

from keras_kd._utils import locks

HOLDER = """
import sys, time
from keras_kd._utils import locks
with locks.held(sys.argv[1], "a"):
    print("held", flush=True)
    time.sleep(600)
"""


def test_lock_of_another_thread_is_refused_at_once(tmp_path):
    assert not locks.is_held(tmp_path, "a")
    seen = []
    with locks.held(tmp_path, "a"):
        thread = threading.Thread(target=lambda: seen.append(locks.is_held(tmp_path, "a")))
        thread.start()
        thread.join()
        assert not locks.is_held(tmp_path, "b")
    assert seen == [True]
    with locks.held_at_once(tmp_path, "a"):
        pass


def test_lock_of_a_process_ends_with_it(tmp_path):
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    holder = subprocess.Popen(command, stdout=subprocess.PIPE)
    try:
        assert holder.stdout.readline() == b"held\n"
        assert locks.is_held(tmp_path, "a")
        with pytest.raises(locks.LockHeldError), locks.held_at_once(tmp_path, "a"):
            pass
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()
    assert not locks.is_held(tmp_path, "a")
