"""What `libkeras_kd_cuda.so` holds, read from its machine code: nothing is executed.

For each architecture and kernel: registers, memory of a thread's own (spilled registers), 16-byte
loads and stores, and how many warps a multiprocessor holds, by NVIDIA's own calculator. The table
is compared with `library_table.txt`, so that a change shows.

    python -m tests.cuda.check_library dist/keras_kd-*.whl [--update]
"""

import argparse
import pathlib
import re
import subprocess
import sys
import tempfile
import zipfile

from tests.cuda import toolkit

HERE = pathlib.Path(__file__).parent
TABLE = HERE / "library_table.txt"
KERNELS = 66
# Threads of a block, and bytes of dynamic shared memory in the case that the table shows: 8000
# classes for the kernel that caches a row in its own type.
SHAPES = {
    "WarpRows": (128, 0),
    "BlockRows cached": (512, 192 + 8000 * 8),
    "BlockRows streamed": (512, 192),
    "SplitSums": (256, 192),
    "SplitDivergence": (256, 192),
    "SplitLosses": (32, 0),
    "SavedRows": (256, 0),
}
# Kernels that move rows must do so 16 bytes at a time: student and teacher; gradient, and zeros in
# its place.
MOVERS = {"BlockRows": (2, 2), "SavedRows": (2, 2), "SplitSums": (2, 0), "SplitDivergence": (2, 1)}
# Registers may differ by this much between versions of ptxas.
TOLERANCE = 8


def family(symbol):
    """The kernel's template, what of its arguments changes its code most, and its type."""
    name, arguments = re.match(r"_ZN8keras_kd4cuda\d+([A-Za-z]+?)I(.*)EEv", symbol).groups()
    if name == "BlockRows":
        name += " cached" if "Lb1" in arguments else " streamed"
    if name == "WarpRows":
        name += " 16" if "Li16" in arguments else " 32"
    return name, "float" if arguments.startswith("f") else "16-bit"


def resources(library):
    """Yields (architecture, symbol, registers, bytes of a thread's own memory)."""
    text = _run("cuobjdump", "-res-usage", library)
    for part in re.split(r"Fatbin elf code:", text)[1:]:
        architecture = re.search(r"arch = sm_(\d+)", part).group(1)
        pattern = r"Function (\w+):\s+REG:(\d+) STACK:(\d+).*?LOCAL:(\d+)"
        for symbol, registers, stack, local in re.findall(pattern, part):
            yield architecture, symbol, int(registers), int(stack) + int(local)


def accesses(library):
    """Returns {(architecture, symbol): (16-byte loads, 16-byte stores, spills)}."""
    found, key, architecture = {}, None, None
    for line in _run("cuobjdump", "-sass", library).splitlines():
        if match := re.search(r"arch = sm_(\d+)", line):
            architecture = match.group(1)
        elif match := re.search(r"Function : (\w+)", line):
            key = architecture, match.group(1)
            found[key] = [0, 0, 0]
        elif key:
            found[key][0] += "LDG.E.128" in line
            found[key][1] += "STG.E.128" in line
            found[key][2] += bool(re.search(r"\b(LDL|STL)\b", line))
    return found


def _run(tool, *arguments):
    path = toolkit.find(tool)
    if path is None:
        sys.exit(f"{tool} was not found: pip install --group cuda")
    command = [path, *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def occupancy(cases):
    """Warps that a multiprocessor holds, for each (architecture, registers, threads, shared)."""
    headers = pathlib.Path(toolkit.find("nvcc")).resolve().parents[1] / "include"
    with tempfile.TemporaryDirectory() as folder:
        program = pathlib.Path(folder) / "occupancy"
        source = HERE / "occupancy.cc"
        subprocess.run(["g++", "-std=c++17", "-I", headers, source, "-o", program], check=True)
        text = "".join(" ".join(map(str, case)) + "\n" for case in cases)
        done = subprocess.run([program], input=text, check=True, capture_output=True, text=True)
    return [int(line) for line in done.stdout.split()]


def table(library):
    """Returns the rows of the table, and what is wrong whatever the table says."""
    codes, groups, wrong, counts = accesses(library), {}, [], {}
    for architecture, symbol, registers, local in resources(library):
        loads, stores, spills = codes[architecture, symbol]
        counts[architecture] = counts.get(architecture, 0) + 1
        name, dtype = family(symbol)
        if local or spills:
            wrong.append(f"sm_{architecture} {symbol} spills registers")
        least = _least(name, dtype)
        if loads < least[0] or stores < least[1]:
            wrong.append(
                f"sm_{architecture} {symbol}: {loads} loads and {stores} stores of 16 bytes"
            )
        group = groups.setdefault((int(architecture), name, dtype), [0, loads, stores])
        group[0] = max(group[0], registers)
        group[1], group[2] = min(group[1], loads), min(group[2], stores)
    newest = max(counts, key=int, default=None)
    if newest is None or f"sm_{newest}.ptx" not in _run("cuobjdump", "-lptx", library):
        wrong.append(f"no PTX for GPUs newer than sm_{newest}")
    wrong += [f"sm_{a} has {n} kernels, not {KERNELS}" for a, n in counts.items() if n != KERNELS]
    cases = []
    for (architecture, name, _), (registers, *_) in sorted(groups.items()):
        threads, shared = SHAPES.get(name) or SHAPES[name.split()[0]]
        cases.append((architecture, registers, threads, shared))
    rows = [
        (*key, *values, warps)
        for (key, values), warps in zip(sorted(groups.items()), occupancy(cases), strict=True)
    ]
    wrong += [f"sm_{row[0]} {row[1]} cannot be launched" for row in rows if row[-1] == 0]
    return rows, wrong


def _least(name, dtype):
    """The fewest 16-byte loads and stores of a kernel."""
    kind, *options = name.split()
    if kind != "WarpRows":
        return MOVERS.get(kind, (0, 0))
    pieces = int(options[0]) // (4 if dtype == "float" else 8)  # unrolled
    return 2 * pieces, pieces + 1


def text_of(rows):
    """The table as text."""
    head = f"{'sm':>4}  {'kernel':20}{'type':8}{'registers':>10}{'LDG.128':>9}{'STG.128':>9}"
    lines = [head + f"{'warps':>7}"]
    lines += [f"{r[0]:>4}  {r[1]:20}{r[2]:8}{r[3]:>10}{r[4]:>9}{r[5]:>9}{r[6]:>7}" for r in rows]
    return "\n".join(lines) + "\n"


def differences(rows):
    """Yields how rows differ from the table on file."""
    known = {}
    for line in TABLE.read_text().splitlines()[1:]:
        *name, registers, loads, stores, warps = line.split()
        known[" ".join(name)] = (int(registers), int(loads), int(stores), int(warps))
    names = {" ".join(map(str, row[:3])) for row in rows}
    yield from (f"sm_{name} is missing" for name in known if name not in names)
    for row in rows:
        name = " ".join(map(str, row[:3]))
        if name not in known:
            yield f"sm_{name} is not in {TABLE.name}"
        elif row[3] > known[name][0] + TOLERANCE or row[6] < known[name][3]:
            yield (
                f"sm_{name}: {row[3]} registers, {row[6]} warps; {TABLE.name} says "
                f"{known[name][0]} and {known[name][3]}. If that is meant: --update"
            )


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=pathlib.Path, help="a wheel, or libkeras_kd_cuda.so")
    parser.add_argument("--update", action="store_true", help=f"write {TABLE.name}")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        library = arguments.file
        if library.suffix == ".whl":
            with zipfile.ZipFile(library) as wheel:
                library = wheel.extract("keras_kd/lib/libkeras_kd_cuda.so", folder)
        rows, wrong = table(library)
    print(text_of(rows), end="")
    if arguments.update:
        TABLE.write_text(text_of(rows))
    wrong += differences(rows)
    if wrong:
        sys.exit("\n".join(wrong))


if __name__ == "__main__":
    main()
