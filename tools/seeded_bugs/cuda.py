"""Bugs for `tests/cuda/kernel_test.cc`: in the CUDA kernels, as executed by the emulator."""

from tools.seeded_bugs.planting import ADDRESS, PLAIN, THREAD, Bug, compile_and_link

FOLDERS = ["csrc", "tests/cuda"]
ARGUMENTS = {PLAIN: ["--few"], ADDRESS: ["--few"], THREAD: ["--races"]}


def _bug(what, file, code, replacement, sanitizer=PLAIN):
    return Bug(what, f"csrc/cuda/{file}", code, replacement, sanitizer)


BUGS = [
    # Barriers and warps.
    _bug(
        "a barrier of a reduction is missing",
        "lanes.cuh",
        "    if (lane == 0) slots[i * kMostWarps + warp] = value;\n  }\n  __syncthreads();",
        "    if (lane == 0) slots[i * kMostWarps + warp] = value;\n  }",
    ),
    _bug(
        "slots are written while another warp reads them",
        "lanes.cuh",
        "__syncthreads();  // the slots of the reduction before have been read",
        "",
        THREAD,
    ),
    _bug(
        "a shuffle's mask leaves out half of its lanes",
        "lanes.cuh",
        "constexpr unsigned kAllLanes = 0xffffffffu;",
        "constexpr unsigned kAllLanes = 0x0000ffffu;",
    ),
    _bug(
        "a lane of a warp stays away from a shuffle",
        "warp_rows.cuh",
        "  held.FindLargest();",
        "  if (lane == 1) return;\n  held.FindLargest();",
    ),
    _bug(
        "a thread of a block returns before its barrier",
        "block_rows.cuh",
        "  held.FindSums();\n  const auto ready",
        "  if (thread >= row.grid.Pieces()) return;\n  held.FindSums();\n  const auto ready",
    ),
    _bug(
        "a sum covers half of the lanes",
        "lanes.cuh",
        "for (int step = lanes / 2; step > 0; step /= 2)",
        "for (int step = lanes / 4; step > 0; step /= 2)",
    ),
    # Shared memory.
    _bug(
        "a warp's part of a sum is left out: uninitialized shared memory",
        "lanes.cuh",
        "if (lane == 0) slots[i * kMostWarps + warp] = value;",
        "if (lane == 0 && warp != 5) slots[i * kMostWarps + warp] = value;",
    ),
    _bug(
        "the cache is too small",
        "block_rows.cuh",
        "return pieces * kPiece * (type == DataType::kFloat32 ? 4 : 2);",
        "return (pieces - 1) * kPiece * (type == DataType::kFloat32 ? 4 : 2);",
        ADDRESS,
    ),
    # Addresses.
    _bug(
        "a piece is written past the end of its row",
        "packet.cuh",
        "if (grid.Has(piece, i)) Narrow(values[i], row + grid.Column(piece, i));",
        "Narrow(values[i], row + grid.Column(piece, i));",
        ADDRESS,
    ),
    _bug(
        "a piece is read past the end of its row",
        "packet.cuh",
        "grid.Has(piece, i) ? Widen(row[grid.Column(piece, i)]) : -__builtin_huge_valf();",
        "Widen(row[grid.Column(piece, i)]);",
        ADDRESS,
    ),
    _bug(
        "the row's end in the first piece is forgotten (peeling)",
        "packet.cuh",
        "return column < 0 ? column + Pieces() * kColumns : column;",
        "return column < 0 ? classes : column;",
    ),
    _bug(
        "16 bytes are loaded from an odd address",
        "packet.cuh",
        "reinterpret_cast<uintptr_t>(row + first) % Packet<T, kColumns>::kAligned == 0",
        "true",
    ),
    _bug(
        "the last block's rows past the end are written (off by one)",
        "row.cuh",
        "exists(index < task.problem.rows)",
        "exists(index <= task.problem.rows)",
        ADDRESS,
    ),
    # Blocks that work together.
    _bug(
        "two blocks write the same loss",
        "row.cuh",
        "    if (problem.labels) problem.hard[index] = hard_weight",
        "    problem.soft[0] += 0.0f;\n    if (problem.labels) problem.hard[index] = hard_weight",
        THREAD,
    ),
    _bug(
        "parts of a row write their sums to one place",
        "split_rows.cuh",
        "return memory + (row * parts + part) * kSums;",
        "return memory + row * parts * kSums;",
        THREAD,
    ),
    _bug(
        "a part of a row leaves out its last piece",
        "split_rows.cuh",
        "const int begin = split.Begin(pieces, part), end = split.Begin(pieces, part + 1);",
        "const int begin = split.Begin(pieces, part), end = split.Begin(pieces, part + 1) - 1;",
    ),
    _bug(
        "a part's sums are not moved to the row's largest logit",
        "split_rows.cuh",
        "all.student += Moved(sums.student, sums.student_largest, all.student_largest, scale);",
        "all.student += sums.student;",
    ),
    _bug(
        "too few blocks are started",
        "launch.cuh",
        "static_cast<unsigned>((items + per_block - 1) / per_block)",
        "static_cast<unsigned>(items / per_block + (items < per_block))",
    ),
    # Numbers.
    _bug(
        "the online sum is not rescaled",
        "online_sum.cuh",
        "      sum = At(largest, scale);\n",
        "",
    ),
    _bug(
        "a row of no soft weight feels its teacher",
        "row.cuh",
        "soft_weight == 0.0f ? 0.0f : soft * ready.soft_factor",
        "soft * ready.soft_factor",
    ),
    _bug(
        "the label's class is not subtracted",
        "row.cuh",
        "column == label ? hard_exp - hard_sum : hard_exp",
        "hard_exp",
    ),
    _bug(
        "the logits' difference is rounded",
        "row_math.cuh",
        "return {high, low == low ? low : 0.0f};",
        "return {high, 0.0f};",
    ),
    _bug(
        "teacher and student are swapped",
        "row_math.cuh",
        "*first += KlTerm(p, q, d);",
        "*first += KlTerm(q, p, d);",
    ),
    _bug(
        "the gradient from statistics has the row before's (wrong broadcast)",
        "saved_rows.cuh",
        "task.statistics + row.index * kStatistics",
        "task.statistics + (row.index / 2) * kStatistics",
    ),
]


def build(source, folder, sanitizer, kept=None):
    """Compiles the test; objects that cannot hold a bug are taken from the folder `kept`.

    A bug is compiled into the kernels of float32 students only, which are linked first: the others
    would take twice as long again and find nothing more.
    """
    cuda, kernels = source / "tests/cuda", source / "csrc/cuda"
    include = ["-I", str(cuda / "emulator")]
    as_cxx = [*include, "-x", "c++"]
    # The scheduler of the emulated threads must not be watched; see emulator.cc.
    unwatched = ["-fno-sanitize=thread", "-DEMULATOR_TSAN"] if sanitizer == THREAD else []
    parts = [
        ("launch_float32", kernels / "launch_float32.cu", as_cxx, False),
        ("launch_float16", kernels / "launch_float16.cu", as_cxx, True),
        ("launch_bfloat16", kernels / "launch_bfloat16.cu", as_cxx, True),
        ("cuda_api", kernels / "cuda_api.cu", as_cxx, True),
        ("kernel_test", cuda / "kernel_test.cc", include, True),
        ("runtime", cuda / "emulator/runtime.cc", include, True),
        ("emulator", cuda / "emulator/emulator.cc", [*include, *unwatched], True),
    ]
    return compile_and_link(parts, folder, sanitizer, kept)
