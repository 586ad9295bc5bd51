"""Does kernel_test notice a bug? Plants one at a time in a copy of the sources and runs it.

Each bug is a replacement in one file; the test, built with a sanitizer, must fail. The unchanged
sources must pass first, so that a failure means the bug. The bugs go into the baseline kernels (the
code is the same for every instruction set) and into what all of them share.

    python csrc/tests/seeded_bugs.py
"""

import concurrent.futures
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

CSRC = pathlib.Path(__file__).parents[1]
SHARED = ["cpu/dispatch.cc", "cpu/thread_pool.cc", "cpu/launch.cc"]
CXX = [os.environ.get("CXX", "c++"), "-std=c++17", "-O1", "-g", "-w", "-pthread"]
INSTRUCTION_SETS = {
    "baseline": [],
    "avx2": ["-mavx2", "-mfma", "-mf16c"],
    "avx512": [f"-mavx512{part}" for part in ("f", "bw", "dq", "vl")] + ["-mfma", "-mf16c"],
}
ADDRESS, THREAD = "address", "thread"

# (what, file, code, code with the bug, sanitizer)
BUGS = [
    (
        "the end of a long row is left out",
        "cpu/long_rows.h",
        "  if (whole < classes) {\n    body",
        "  if (whole + 1 < classes) {\n    body",
        ADDRESS,
    ),
    (
        "half of the largest logits are forgotten",
        "cpu/long_rows.h",
        "Largest(Max(largest, other))",
        "Largest(largest)",
        ADDRESS,
    ),
    (
        "the gradient is written past its row",
        "cpu/simd.h",
        "for (int64_t lane = 0; lane < count; ++lane) to[lane] = elements[lane];",
        "for (int64_t lane = 0; lane <= count; ++lane) to[lane] = elements[lane];",
        ADDRESS,
    ),
    (
        "a row is read past its end",
        "cpu/simd.h",
        "for (int64_t lane = 0; lane < count; ++lane) elements[lane] = from[lane];",
        "for (int64_t lane = 0; lane < kLanes; ++lane) elements[lane] = from[lane];",
        ADDRESS,
    ),
    (
        "close models get the plain sum",
        "cpu/kernels.cc",
        "const Form form = FormFor(plain, offset);",
        "const Form form = Form::kPlain;",
        ADDRESS,
    ),
    (
        "the logits' difference is rounded",
        "cpu/simd_math.h",
        "return {high, ZeroUnless(low == low, low)};",
        "return {high, Vec{}};",
        ADDRESS,
    ),
    (
        "the gradient of the hard loss lacks its label",
        "cpu/kernels.cc",
        "at.hard_exp[label] -= sums.hard;",
        "",
        ADDRESS,
    ),
    (
        "a short row's label is its neighbour's",
        "cpu/short_rows.h",
        "weights.label[lane] * kLanes + lane",
        "weights.label[lane] * kLanes + (lane ^ 1)",
        ADDRESS,
    ),
    (
        "a skipped row keeps what the gradient held",
        "cpu/kernels.cc",
        "static_cast<size_t>(bytes));",
        "0);",
        ADDRESS,
    ),
    (
        "a row of no soft weight feels its teacher",
        "cpu/kernels.cc",
        "if (problem.SoftWeight(row) == 0.0f) logits.teacher = logits.student;",
        "",
        ADDRESS,
    ),
    (
        "Jensen-Shannon's gradient lacks a factor",
        "cpu/divergence_rule.h",
        "kJensenShannon ? 1.0f - mixing_weight : 1.0f",
        "kJensenShannon ? 1.0f : 1.0f",
        ADDRESS,
    ),
    (
        "reverse KL's gradient is not centred",
        "cpu/divergence_rule.h",
        "q * (score - mean_score)",
        "q * score",
        ADDRESS,
    ),
    (
        "an exponent may leave its range",
        "cpu/simd_math.h",
        "x = Max(Set(-127.0f), x);",
        "",
        ADDRESS,
    ),
    (
        "the last rows of a block are taken for a full one",
        "cpu/kernels.cc",
        "end - row < kLanes ? end - row : kLanes",
        "kLanes",
        ADDRESS,
    ),
    (
        "bfloat16 is cut off, not rounded",
        "cpu/simd.h",
        "bits + 0x7fffu + ((bits >> 16) & 1u)",
        "bits",
        ADDRESS,
    ),
    (
        "a gradient is scaled by the first row's upstream",
        "cpu/kernels.cc",
        "problem.upstream[problem.upstream_is_scalar ? 0 : row]",
        "problem.upstream[begin]",
        ADDRESS,
    ),
    (
        "labels are checked one too far",
        "cpu/launch.cc",
        "label < problem.classes",
        "label <= problem.classes",
        ADDRESS,
    ),
    (
        "two threads take the same rows",
        "cpu/thread_pool.cc",
        "std::atomic<int64_t> next{0}, done{0};",
        "struct { int64_t value = 0; int64_t fetch_add(int64_t n, std::memory_order) "
        "{ const int64_t old = value; value += n; return old; } } next; "
        "std::atomic<int64_t> done{0};",
        THREAD,
    ),
    (
        "a caller does not wait for the other threads",
        "cpu/thread_pool.cc",
        "job->Wait();",
        "",
        THREAD,
    ),
    (
        "a forked child waits for its parent's threads",
        "cpu/thread_pool.cc",
        "void ForgetPool() { pool.store(nullptr, std::memory_order_release); }",
        "void ForgetPool() {}",
        ADDRESS,
    ),
]


def build(source, folder, sanitizer, kept=None):
    """Compiles kernel_test; what cannot hold the bug is taken from the folder `kept`."""
    folder.mkdir(parents=True, exist_ok=True)
    objects = []
    for name, options in INSTRUCTION_SETS.items():
        flags = ["-fno-trapping-math", f"-DKERAS_KD_ISA={name}", *options]
        objects.append((name, source / "cpu/kernels.cc", flags, name != "baseline"))
    objects.append(("kernel_test", source / "tests/kernel_test.cc", [], True))
    objects += [(pathlib.Path(name).stem, source / name, [], False) for name in SHARED]
    compiler = [*CXX, f"-fsanitize={sanitizer}"]
    files = []
    for name, path, flags, unchanging in objects:
        files.append((kept if kept and unchanging else folder) / f"{name}.o")
        if files[-1].parent == folder:
            run([*compiler, *flags, "-c", path, "-o", files[-1]])
    run([*compiler, *files, "-o", folder / "test"])
    return folder / "test"


def run(command):
    subprocess.run(list(map(str, command)), check=True)


def passes(test):
    """Whether the test passes within a minute (it takes seconds; a bug may hang it)."""
    try:
        done = subprocess.run([test, "baseline"], capture_output=True, timeout=60, check=False)
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


def planted(folder, file, code, bug):
    """A copy of the sources with one bug."""
    shutil.copytree(CSRC, folder / "csrc")
    path = folder / "csrc" / file
    text = path.read_text()
    if text.count(code) != 1:
        sys.exit(f"{file} holds {code!r} {text.count(code)} times, expected once: update BUGS.")
    path.write_text(text.replace(code, bug))
    return folder / "csrc"


def survives(number, scratch, unchanged):
    _, file, code, bug, sanitizer = BUGS[number]
    folder = scratch / str(number)
    source = planted(folder, file, code, bug)
    return passes(build(source, folder, sanitizer, kept=unchanged[sanitizer]))


def main():
    with tempfile.TemporaryDirectory() as name, concurrent.futures.ThreadPoolExecutor(2) as pool:
        scratch = pathlib.Path(name)
        unchanged = {kind: scratch / kind for kind in (ADDRESS, THREAD)}
        tests = list(pool.map(lambda kind: build(CSRC, unchanged[kind], kind), unchanged))
        if not all(map(passes, tests)):
            sys.exit("kernel_test fails without a bug.")
        found = pool.map(lambda n: survives(n, scratch, unchanged), range(len(BUGS)))
        survivors = []
        for (what, *_), alive in zip(BUGS, found, strict=True):
            print(f"{'SURVIVES' if alive else 'caught':10}{what}", flush=True)
            survivors += [what] if alive else []
    print(f"{len(BUGS) - len(survivors)} of {len(BUGS)} seeded bugs caught")
    sys.exit(1 if survivors else 0)


if __name__ == "__main__":
    main()
