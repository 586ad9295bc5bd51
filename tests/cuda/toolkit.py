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
SOURCES = ("launch_float32", "launch_float16", "launch_bfloat16")
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
    """The PTX of a file of `SOURCES` for a virtual architecture such as 80."""
    return _compile(source, [f"-arch=compute_{architecture}", "-ptx"], "ptx")[0].read_text()


def cubin(source, architecture):
    """The machine code of a file for an architecture such as 90: its path and ptxas' report."""
    options = [f"-arch=sm_{architecture}", "-cubin", "-Xptxas", "-v"]
    path, report = _compile(source, options, "cubin")
    return path, report


def _compile(source, options, suffix):
    """Compiles once: the result is kept under a name made of all that it depends on."""
    nvcc = find("nvcc")
    state = hashlib.sha256(" ".join([nvcc, source, *OPTIONS, *options]).encode())
    for path in sorted((ROOT / "csrc").glob("cuda/*")) + [ROOT / "csrc/problem.h"]:
        state.update(path.read_bytes())
    result = BUILD / f"{source}-{state.hexdigest()[:20]}.{suffix}"
    report = result.with_suffix(".txt")
    if not report.exists():
        BUILD.mkdir(parents=True, exist_ok=True)
        part = result.with_name(f"{os.getpid()}-{result.name}")
        file = ROOT / "csrc/cuda" / f"{source}.cu"
        done = subprocess.run(
            [nvcc, *OPTIONS, *options, str(file), "-o", str(part)],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"nvcc failed:\n{done.stderr}")
        part.replace(result)
        report_part = part.with_suffix(".txt")
        report_part.write_text(done.stderr)
        report_part.replace(report)
    return result, report.read_text()
