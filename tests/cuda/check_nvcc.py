"""What nvcc makes of the CUDA kernels: no spilled register, and no more of them than are known.

Where there is no nvcc this says so and checks nothing. Nothing is executed.

    python tests/cuda/check_nvcc.py [--architectures 75 80 90 100 120]
"""

import argparse
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).parents[2]
# Registers of a thread: what the launch bounds and the target occupancy allow.
MOST_REGISTERS = {"WarpRows": 255, "BlockRows": 128}
KERNELS = 54  # 3 types x 3 divergences x (4 of a warp + 2 of a block)


def compile_(architecture, folder):
    """Returns ptxas' report."""
    options = ["-std=c++17", "-O3", "-ftz=true", f"-arch=sm_{architecture}", "-Xptxas", "-v"]
    source = ROOT / "csrc/cuda/launch.cu"
    command = ["nvcc", *options, "-c", source, "-o", folder / "launch.o"]
    return subprocess.run(
        list(map(str, command)), check=True, capture_output=True, text=True
    ).stderr


def kernels(report):
    """Yields (name, spilled bytes, registers) for each kernel."""
    pattern = (
        r"Compiling entry function '(\w+)'.*?(\d+) bytes spill stores, (\d+) bytes spill loads"
        r".*?Used (\d+) registers"
    )
    for name, stores, loads, registers in re.findall(pattern, report, re.DOTALL):
        yield name, int(stores) + int(loads), int(registers)


def check(architecture, folder):
    found = list(kernels(compile_(architecture, folder)))
    wrong = [f"{len(found)} kernels, expected {KERNELS}"] if len(found) != KERNELS else []
    for family, most in MOST_REGISTERS.items():
        members = [entry for entry in found if family in entry[0]]
        registers = [entry[2] for entry in members]
        print(
            f"sm_{architecture:5}{family:12}{len(members):4} kernels{min(registers):6} to "
            f"{max(registers)} registers, {sum(entry[1] for entry in members)} bytes spilled"
        )
        wrong += [f"{name} spills {spilled} bytes" for name, spilled, _ in members if spilled]
        wrong += [f"{name} takes {count} registers" for name, _, count in members if count > most]
    return wrong


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--architectures", nargs="+", default=["75", "90"])
    arguments = parser.parse_args()
    if shutil.which("nvcc") is None:
        print("nvcc was not found: the CUDA kernels were not compiled for a GPU.")
        return
    with tempfile.TemporaryDirectory() as name:
        wrong = [
            problem
            for architecture in arguments.architectures
            for problem in check(architecture, pathlib.Path(name))
        ]
    if wrong:
        sys.exit("\n".join(wrong))


if __name__ == "__main__":
    main()
