"""Bugs for `csrc/tests/kernel_test.cc`: in the CPU kernels, their threads and their checks.

Those in the kernels go into the baseline's copy: the code is the same for every instruction set.
"""

import pathlib

from tools.seeded_bugs.planting import ADDRESS, THREAD, Bug, compile_and_link

SHARED = ["cpu/dispatch.cc", "cpu/thread_pool.cc", "cpu/launch.cc"]
INSTRUCTION_SETS = {
    "baseline": [],
    "avx2": ["-mavx2", "-mfma", "-mf16c"],
    "avx512": [f"-mavx512{part}" for part in ("f", "bw", "dq", "vl")] + ["-mfma", "-mf16c"],
}
FOLDERS = ["csrc"]
ARGUMENTS = {ADDRESS: ["baseline"], THREAD: ["baseline"]}

BUGS = [
    Bug(
        "the end of a long row is left out",
        "csrc/cpu/long_rows.h",
        "  if (whole < classes) {\n    body",
        "  if (whole + 1 < classes) {\n    body",
        ADDRESS,
    ),
    Bug(
        "half of the largest logits are forgotten",
        "csrc/cpu/long_rows.h",
        "Largest(Max(largest, other))",
        "Largest(largest)",
        ADDRESS,
    ),
    Bug(
        "the gradient is written past its row",
        "csrc/cpu/simd.h",
        "for (int64_t lane = 0; lane < count; ++lane) to[lane] = elements[lane];",
        "for (int64_t lane = 0; lane <= count; ++lane) to[lane] = elements[lane];",
        ADDRESS,
    ),
    Bug(
        "a row is read past its end",
        "csrc/cpu/simd.h",
        "for (int64_t lane = 0; lane < count; ++lane) elements[lane] = from[lane];",
        "for (int64_t lane = 0; lane < kLanes; ++lane) elements[lane] = from[lane];",
        ADDRESS,
    ),
    Bug(
        "close models get the plain sum",
        "csrc/cpu/kernels.cc",
        "const Form form = FormFor(plain, offset);",
        "const Form form = Form::kPlain;",
        ADDRESS,
    ),
    Bug(
        "the logits' difference is rounded",
        "csrc/cpu/simd_math.h",
        "return {high, ZeroUnless(low == low, low)};",
        "return {high, Vec{}};",
        ADDRESS,
    ),
    Bug(
        "the gradient of the hard loss lacks its label",
        "csrc/cpu/kernels.cc",
        "at.hard_exp[label] -= sums.hard;",
        "",
        ADDRESS,
    ),
    Bug(
        "a short row's label is its neighbour's",
        "csrc/cpu/short_rows.h",
        "weights.label[lane] * kLanes + lane",
        "weights.label[lane] * kLanes + (lane ^ 1)",
        ADDRESS,
    ),
    Bug(
        "a skipped row keeps what the gradient held",
        "csrc/cpu/kernels.cc",
        "static_cast<size_t>(bytes));",
        "0);",
        ADDRESS,
    ),
    Bug(
        "a row of no soft weight feels its teacher",
        "csrc/cpu/kernels.cc",
        "if (problem.SoftWeight(row) == 0.0f) logits.teacher = logits.student;",
        "",
        ADDRESS,
    ),
    Bug(
        "Jensen-Shannon's gradient lacks a factor",
        "csrc/cpu/divergence_rule.h",
        "kJensenShannon ? 1.0f - mixing_weight : 1.0f",
        "kJensenShannon ? 1.0f : 1.0f",
        ADDRESS,
    ),
    Bug(
        "reverse KL's gradient is not centred",
        "csrc/cpu/divergence_rule.h",
        "q * (score - mean_score)",
        "q * score",
        ADDRESS,
    ),
    Bug(
        "an exponent may leave its range",
        "csrc/cpu/simd_math.h",
        "x = Max(Set(-127.0f), x);",
        "",
        ADDRESS,
    ),
    Bug(
        "the last rows of a block are taken for a full one",
        "csrc/cpu/kernels.cc",
        "end - row < kLanes ? end - row : kLanes",
        "kLanes",
        ADDRESS,
    ),
    Bug(
        "bfloat16 is cut off, not rounded",
        "csrc/cpu/simd.h",
        "bits + 0x7fffu + ((bits >> 16) & 1u)",
        "bits",
        ADDRESS,
    ),
    Bug(
        "a gradient is scaled by the first row's upstream",
        "csrc/cpu/kernels.cc",
        "problem.upstream[problem.upstream_is_scalar ? 0 : row]",
        "problem.upstream[begin]",
        ADDRESS,
    ),
    Bug(
        "labels are checked one too far",
        "csrc/cpu/launch.cc",
        "label < problem.classes",
        "label <= problem.classes",
        ADDRESS,
    ),
    Bug(
        "two threads take the same rows",
        "csrc/cpu/thread_pool.cc",
        "std::atomic<int64_t> next{0}, done{0};",
        "struct { int64_t value = 0; int64_t fetch_add(int64_t n, std::memory_order) "
        "{ const int64_t old = value; value += n; return old; } } next; "
        "std::atomic<int64_t> done{0};",
        THREAD,
    ),
    Bug(
        "a caller does not wait for the other threads",
        "csrc/cpu/thread_pool.cc",
        "job->Wait();",
        "",
        THREAD,
    ),
    Bug(
        "a forked child waits for its parent's threads",
        "csrc/cpu/thread_pool.cc",
        "void ForgetPool() { pool.store(nullptr, std::memory_order_release); }",
        "void ForgetPool() {}",
        ADDRESS,
    ),
]


def build(source, folder, sanitizer, kept=None):
    """Compiles the test; objects that cannot hold a bug are taken from the folder `kept`."""
    csrc = source / "csrc"
    parts = []
    for name, options in INSTRUCTION_SETS.items():
        flags = ["-fno-trapping-math", f"-DKERAS_KD_ISA={name}", *options]
        parts.append((name, csrc / "cpu/kernels.cc", flags, name != "baseline"))
    parts.append(("kernel_test", csrc / "tests/kernel_test.cc", [], True))
    parts += [(pathlib.Path(name).stem, csrc / name, [], False) for name in SHARED]
    return compile_and_link(parts, folder, sanitizer, kept)
