"""Bugs for `csrc/tests/kernel_test.cc`, `sparse_test.cc`: in the CPU kernels, threads and checks.

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
        "csrc/cpu/dense_rows.h",
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
        "csrc/cpu/dense_rows.h",
        "at.hard_exp[label] -= sums.hard;",
        "",
        ADDRESS,
    ),
    Bug(
        "a short row's label is its neighbor's",
        "csrc/cpu/short_rows.h",
        "weights.label[lane] * kLanes + lane",
        "weights.label[lane] * kLanes + (lane ^ 1)",
        ADDRESS,
    ),
    Bug(
        "a skipped row keeps what the gradient held",
        "csrc/cpu/dense_rows.h",
        "static_cast<size_t>(bytes));",
        "0);",
        ADDRESS,
    ),
    Bug(
        "a row of no soft weight feels its teacher",
        "csrc/cpu/dense_rows.h",
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
        "reverse KL's gradient is not centered",
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
        "csrc/cpu/dense_rows.h",
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
        "a kept class stays in the rest",
        "csrc/cpu/sparse_rows.h",
        "    *logit = -kInfinity;\n",
        "",
        ADDRESS,
    ),
    Bug(
        "the last whole vector's end is no part of the rest",
        "csrc/cpu/sparse_rows.h",
        "for (int64_t c = dense.classes; c < at.padded; ++c)",
        "for (int64_t c = dense.classes - 1; c < at.padded; ++c)",
        ADDRESS,
    ),
    Bug(
        "what is left in the scratch is taken for logits of the rest",
        "csrc/cpu/sparse_rows.h",
        "for (int64_t c = dense.classes; c < at.padded; ++c)",
        "for (int64_t c = dense.classes; c + 1 < at.padded; ++c)",
        ADDRESS,
    ),
    Bug(
        "the rest is taken with the largest logit of all: it underflows",
        "csrc/cpu/sparse_rows.h",
        "  float largest = LargestOf(row, padded), center = 0.0f;",
        "  float largest = LargestOf(row, padded) + 100.0f, center = 0.0f;",
        ADDRESS,
    ),
    Bug(
        "the rest's logit lacks the temperature",
        "csrc/cpu/sparse_rows.h",
        "largest + temperature * log_total",
        "largest + log_total",
        ADDRESS,
    ),
    Bug(
        "the teacher's rest lacks the temperature",
        "csrc/cpu/sparse_rows.h",
        "static_cast<double>(problem.dense.temperature) * problem.tail[row]",
        "static_cast<double>(problem.tail[row])",
        ADDRESS,
    ),
    Bug(
        "large logits are centered in name only",
        "csrc/cpu/sparse_rows.h",
        "    Stage(row, padded, largest, row);\n",
        "",
        ADDRESS,
    ),
    Bug(
        "the rounding of the pooled logits is not corrected",
        "csrc/cpu/sparse_rows.h",
        "Lost(rest.logit) - (counts ? Lost(rest.teacher) : 0.0);",
        "0.0;",
        ADDRESS,
    ),
    Bug(
        "the rounding of a logit of no probability is corrected",
        "csrc/cpu/sparse_rows.h",
        "counts ? Lost(rest.teacher) : 0.0",
        "Lost(rest.teacher)",
        ADDRESS,
    ),
    Bug(
        "pooled logits are rounded with the offset of their row",
        "csrc/cpu/sparse_rows.h",
        "size > kFarOffset * temperature",
        "size > 1e30 * temperature",
        ADDRESS,
    ),
    Bug(
        "the rest's gradient is not shared out",
        "csrc/cpu/sparse_rows.h",
        "weight * gradient[problem.kept] * rest.share",
        "weight * gradient[problem.kept]",
        ADDRESS,
    ),
    Bug(
        "kept classes' gradients lack the row's weight",
        "csrc/cpu/sparse_rows.h",
        "FromFloat(weight * gradient[k],",
        "FromFloat(gradient[k],",
        ADDRESS,
    ),
    Bug(
        "kept classes' gradients lie in the order of the indices",
        "csrc/cpu/sparse_rows.h",
        "write.to + problem.Index(row, k));",
        "write.to + k);",
        ADDRESS,
    ),
    Bug(
        "a block's rows have the first one's rest",
        "csrc/cpu/sparse_rows.h",
        "ExpandGradient(problem, row, i, rests[i], at, stream);",
        "ExpandGradient(problem, row, i, rests[0], at, stream);",
        ADDRESS,
    ),
    Bug(
        "a row without weight is looked at",
        "csrc/cpu/sparse_rows.h",
        "if (dense.Skipped(row)) {  // anything",
        "if (false) {  // anything",
        ADDRESS,
    ),
    Bug(
        "the losses lie where the gradients do",
        "csrc/cpu/sparse_rows.h",
        "float* loss = student + 3 * n;",
        "float* loss = student + 2 * n;",
        ADDRESS,
    ),
    Bug(
        "indices are checked one too far",
        "csrc/cpu/launch.cc",
        "index >= problem.dense.classes || seen",
        "index > problem.dense.classes || seen",
        ADDRESS,
    ),
    Bug(
        "an index may be there twice",
        "csrc/cpu/launch.cc",
        "    seen.Flip(index);\n  }\n",
        "  }\n",
        ADDRESS,
    ),
    Bug(
        "the indices of one row are held against the next one's",
        "csrc/cpu/launch.cc",
        "i < good; ++i) seen.Flip",
        "i + 1 < good; ++i) seen.Flip",
        ADDRESS,
    ),
    Bug(
        "any bad row is named, not the first",
        "csrc/cpu/launch.cc",
        "while (row < before && !first_bad.compare_exchange_weak(before, row)) {",
        "while (!first_bad.compare_exchange_weak(before, row)) {",
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
    for name in ("kernel_test", "sparse_test"):
        parts.append((name, csrc / f"tests/{name}.cc", [], True))
    parts += [(pathlib.Path(name).stem, csrc / name, [], False) for name in SHARED]
    return compile_and_link(parts, folder, sanitizer, kept)
