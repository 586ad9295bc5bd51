"""Bugs for `tests/cuda/kernel_test.cc`: in the CUDA kernels, as executed by the emulator."""

from tools.seeded_bugs.planting import ADDRESS, THREAD, Bug, compile_and_link

FOLDERS = ["csrc", "tests/cuda"]
ARGUMENTS = ["--few"]

BUGS = [
    Bug(
        "a barrier of a reduction is missing",
        "csrc/cuda/block_rows.cuh",
        "    if (lane == 0) slots[i * kBlockWarps + warp] = value;\n  }\n  __syncthreads();",
        "    if (lane == 0) slots[i * kBlockWarps + warp] = value;\n  }",
        ADDRESS,
    ),
    Bug(
        "slots are written while another warp reads them",
        "csrc/cuda/block_rows.cuh",
        "__syncthreads();  // the slots of the reduction before have been read",
        "",
        THREAD,
    ),
    Bug(
        "a warp's part of a sum is left out",
        "csrc/cuda/block_rows.cuh",
        "if (lane == 0) slots[i * kBlockWarps + warp] = value;",
        "if (lane == 0 && warp != 5) slots[i * kBlockWarps + warp] = value;",
        ADDRESS,
    ),
    Bug(
        "a thread of a block returns before its barrier",
        "csrc/cuda/block_rows.cuh",
        "  held.FindSums();",
        "  if (thread >= row.Pieces()) return;\n  held.FindSums();",
        ADDRESS,
    ),
    Bug(
        "the cache is one plane short",
        "csrc/cuda/block_rows.cuh",
        "constexpr int64_t kPlanes = 4;",
        "constexpr int64_t kPlanes = 3;",
        ADDRESS,
    ),
    Bug(
        "the online sum is not rescaled",
        "csrc/cuda/block_rows.cuh",
        "if (next != largest) sum = Moved(next, scale);",
        "",
        ADDRESS,
    ),
    Bug(
        "a lane of a warp stays away from a shuffle",
        "csrc/cuda/warp_rows.cuh",
        "  held.FindLargest();",
        "  if (lane == 3) return;\n  held.FindLargest();",
        ADDRESS,
    ),
    Bug(
        "a sum covers half of the lanes",
        "csrc/cuda/warp_rows.cuh",
        "  for (int step = kLanes / 2; step > 0; step /= 2) {\n    value += ",
        "  for (int step = kLanes / 4; step > 0; step /= 2) {\n    value += ",
        ADDRESS,
    ),
    Bug(
        "a piece is written past the end of its row",
        "csrc/cuda/packet.cuh",
        "if (grid.Has(first + i)) Narrow(values[i], row + first + i);",
        "Narrow(values[i], row + first + i);",
        ADDRESS,
    ),
    Bug(
        "a piece is read past the end of its row",
        "csrc/cuda/packet.cuh",
        "values[i] = grid.Has(first + i) ? Widen(row[first + i]) : fill;",
        "values[i] = Widen(row[first + i]);",
        ADDRESS,
    ),
    Bug(
        "16 bytes are loaded from an odd address",
        "csrc/cuda/packet.cuh",
        "reinterpret_cast<uintptr_t>(row + column) % 16 == 0",
        "true",
        ADDRESS,
    ),
    Bug(
        "the last block's rows past the end are written",
        "csrc/cuda/row.cuh",
        "exists(index < problem.rows)",
        "exists(index <= problem.rows)",
        ADDRESS,
    ),
    Bug(
        "a row of no soft weight feels its teacher",
        "csrc/cuda/row.cuh",
        "soft_weight == 0.0f ? 0.0f : soft * ready.soft_factor",
        "soft * ready.soft_factor",
        ADDRESS,
    ),
    Bug(
        "the label's class is not subtracted",
        "csrc/cuda/row.cuh",
        "column == label ? hard_exp - hard_sum : hard_exp",
        "hard_exp",
        ADDRESS,
    ),
    Bug(
        "the logits' difference is rounded",
        "csrc/cuda/row_math.cuh",
        "return {high, low == low ? low : 0.0f};",
        "return {high, 0.0f};",
        ADDRESS,
    ),
    Bug(
        "two blocks write the same loss",
        "csrc/cuda/row.cuh",
        "    if (problem.labels) problem.hard[index] = hard_weight",
        "    problem.soft[0] += 0.0f;\n    if (problem.labels) problem.hard[index] = hard_weight",
        THREAD,
    ),
    Bug(
        "too few blocks are started",
        "csrc/cuda/launch.cu",
        "(problem.rows + kRows - 1) / kRows",
        "problem.rows / kRows + (problem.rows < kRows)",
        ADDRESS,
    ),
]


def build(source, folder, sanitizer, kept=None):
    """Compiles the test; objects that cannot hold a bug are taken from the folder `kept`."""
    cuda = source / "tests/cuda"
    include = ["-I", str(cuda / "emulator")]
    # The scheduler of the emulated threads must not be watched; see emulator.cc.
    unwatched = ["-fno-sanitize=thread", "-DEMULATOR_TSAN"] if sanitizer == THREAD else []
    parts = [
        ("launch", source / "csrc/cuda/launch.cu", [*include, "-x", "c++"], False),
        ("kernel_test", cuda / "kernel_test.cc", include, True),
        ("runtime", cuda / "emulator/runtime.cc", include, True),
        ("emulator", cuda / "emulator/emulator.cc", [*include, *unwatched], True),
    ]
    return compile_and_link(parts, folder, sanitizer, kept)
