#include "launch.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdlib>
#include <memory>

#include "dispatch.h"
#include "thread_pool.h"

namespace keras_kd {
namespace {

// A piece of work worth handing to another thread: below it, waking one costs more than it saves.
constexpr int64_t kElementsPerPiece = 16 * 1024;

// Results larger than this are streamed past the caches: nothing could keep them until they are
// read again, and a normal store would read every line first (a third of the triad's traffic).
constexpr int64_t kStreamBytes = 24 * 1024 * 1024;

// Scratch that stays with its thread, so that a training step does not pay for fresh pages.
float* Scratch(int64_t floats) {
  struct Free {
    void operator()(float* memory) const { std::free(memory); }
  };
  thread_local std::unique_ptr<float, Free> memory;
  thread_local int64_t size = 0;
  if (size < floats) {
    const int64_t rounded = (floats + 1023) / 1024 * 1024;
    memory.reset(
        static_cast<float*>(std::aligned_alloc(64, static_cast<size_t>(rounded) * sizeof(float))));
    size = memory ? rounded : 0;
  }
  return memory.get();
}

int64_t RowsPerPiece(int64_t rows, int64_t classes, int64_t multiple) {
  const int64_t enough = std::max<int64_t>(1, kElementsPerPiece / std::max<int64_t>(1, classes));
  // Eight pieces a thread at most: a late thread then costs an eighth of its share.
  const int64_t balanced = rows / (8 * NumThreads());
  const int64_t grain = std::max(enough, balanced);
  return (grain + multiple - 1) / multiple * multiple;
}

std::string CheckLabels(const Problem& problem) {
  if (!problem.labels) return "";
  for (int64_t row = 0; row < problem.rows; ++row) {
    if (problem.HardWeight(row) == 0.0f) continue;
    const int64_t label = problem.Label(row);
    if (label >= 0 && label < problem.classes) continue;
    return "Label " + std::to_string(label) + " at row " + std::to_string(row) +
           " is out of range: expected 0 <= label < " + std::to_string(problem.classes) +
           ", the number of classes.";
  }
  return "";
}

std::string CheckScalars(const Problem& problem) {
  if (!(problem.temperature > 0.0f) || std::isinf(problem.temperature)) {
    return "Invalid value for argument `temperature`. Expected a positive, finite number. "
           "Received: temperature=" +
           std::to_string(problem.temperature);
  }
  if (problem.divergence == Divergence::kJensenShannon &&
      !(problem.mixing_weight > 0.0f && problem.mixing_weight < 1.0f)) {
    return "Invalid value for argument `mixing_weight`. Expected a number between 0 and 1, both "
           "excluded. Received: mixing_weight=" +
           std::to_string(problem.mixing_weight);
  }
  if (problem.classes < 1) return "Expected at least one class. Received logits of no classes.";
  return "";
}

}  // namespace

std::string RunLosses(const Problem& problem) {
  if (problem.rows == 0) return "";
  std::string error = CheckScalars(problem);
  if (error.empty()) error = CheckLabels(problem);
  if (!error.empty()) return error;
  const KernelTable& kernels = Kernels();
  const int64_t floats = kernels.scratch_floats(problem.classes);
  if (!Scratch(floats)) return "Out of memory: a scratch of " + std::to_string(floats) + " floats.";
  const bool stream =
      problem.gradient &&
      problem.rows * problem.classes * static_cast<int64_t>(SizeOf(problem.gradient_type)) >=
          kStreamBytes;
  std::atomic<bool> out_of_memory{false};
  ParallelFor(problem.rows, RowsPerPiece(problem.rows, problem.classes, kernels.lanes),
              [&](int64_t begin, int64_t end) {
                float* scratch = Scratch(floats);
                if (!scratch) {
                  out_of_memory = true;
                  return;
                }
                kernels.losses(problem, begin, end, scratch, stream);
              });
  return out_of_memory ? "Out of memory for a thread's scratch." : "";
}

std::string RunScale(const ScaleProblem& problem) {
  const KernelTable& kernels = Kernels();
  ParallelFor(problem.rows, RowsPerPiece(problem.rows, problem.classes, 1),
              [&](int64_t begin, int64_t end) { kernels.scale(problem, begin, end); });
  return "";
}

void RunTriad(const float* a, const float* b, float factor, float* out, int64_t count) {
  const KernelTable& kernels = Kernels();
  const bool stream = count * static_cast<int64_t>(sizeof(float)) >= kStreamBytes;
  ParallelFor(count, RowsPerPiece(count, 1, 64), [&](int64_t begin, int64_t end) {
    kernels.triad(a + begin, b + begin, factor, out + begin, end - begin, stream);
  });
}

bool AllOnes(const float* values, int64_t count) {
  return std::all_of(values, values + count, [](float value) { return value == 1.0f; });
}

}  // namespace keras_kd
