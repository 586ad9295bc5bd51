"""The wheel for another architecture has no module; no wheel names a folder of the machine."""

import os
import zipfile

import pytest

from tools import build_wheel


def test_another_architecture_has_no_module(capsys):
    assert build_wheel.pythons_for("a-processor-of-tomorrow") == "none"
    assert "ctypes is used there" in capsys.readouterr().out


@pytest.mark.parametrize("place", ["keras_kd/_kernels.so", "keras_kd-0.1.dist-info/RECORD"])
def test_a_folder_of_this_machine(tmp_path, place):
    wheel = tmp_path / "keras_kd-0.1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("keras_kd/lib/libkeras_kd.so", b"\0GCC\0")
    build_wheel.check_paths(wheel)
    with zipfile.ZipFile(wheel, "a") as archive:
        archive.writestr(place, b"\0" + os.fsencode(build_wheel.ROOT) + b"/csrc/c_api.cc\0")
    with pytest.raises(SystemExit, match=f"{place} names"):
        build_wheel.check_paths(wheel)
