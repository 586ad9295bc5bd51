"""The CUDA compiler, from PATH or from the packages of PyPI, and what it makes of the kernels."""

import functools
import hashlib
import os
import pathlib
import shutil
import site
import subprocess
import sysconfig

ROOT = pathlib.Path(__file__).parents[2]
BUILD = ROOT / "build" / "cuda"
# Of csrc/cuda/CMakeLists.txt.
OPTIONS = ("-std=c++17", "-O3", "-ftz=true")


@functools.cache
def find(tool):
    """The path of nvcc, nvdisasm, ...; `None` where there is none."""
    folders = [sysconfig.get_path("purelib"), *site.getsitepackages()]
    packaged = [os.path.join(folder, "nvidia", "cu13", "bin") for folder in folders]
    search = os.pathsep.join([*packaged, os.environ.get("PATH", "")])
    return shutil.which(tool, path=search)


def ptx(source, architecture):
    """The PTX of a file of csrc/cuda, without its ending, for an architecture such as 80.

    Compiled once: the result is kept under a name made of all that it depends on.
    """
    command = [find("nvcc"), *OPTIONS, f"-arch=compute_{architecture}", "-ptx"]
    state = hashlib.sha256(" ".join([*command, source]).encode())
    for path in sorted((ROOT / "csrc").glob("cuda/*")) + [ROOT / "csrc/problem.h"]:
        state.update(path.read_bytes())
    result = BUILD / f"{source}-{state.hexdigest()[:20]}.ptx"
    if not result.exists():
        BUILD.mkdir(parents=True, exist_ok=True)
        part = result.with_name(f"{os.getpid()}-{result.name}")
        command += [str(ROOT / "csrc/cuda" / f"{source}.cu"), "-o", str(part)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"nvcc failed:\n{done.stderr}")
        part.replace(result)
    return result.read_text()
