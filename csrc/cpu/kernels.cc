// The kernels of one instruction set. Compiled once for each, with KERAS_KD_ISA naming it; the
// compiler flags of the set apply to this file only. It must not instantiate anything shared (no
// standard library): the linker could keep a copy that an older processor cannot execute.
#include "dense_rows.h"
#include "kernel_table.h"
#include "sparse_rows.h"

namespace keras_kd {
namespace KERAS_KD_ISA {
namespace {

template <typename From, typename To>
void ScaleRows(const ScaleProblem& problem, int64_t begin, int64_t end) {
  const From* from = static_cast<const From*>(problem.gradient);
  To* to = static_cast<To*>(problem.out);
  for (int64_t row = begin; row < end; ++row) {
    const float factor = problem.upstream[problem.upstream_is_scalar ? 0 : row];
    int64_t i = row * problem.classes;
    const int64_t stop = i + problem.classes;
    for (; i + kLanes <= stop; i += kLanes) Store(Load(from + i) * factor, to + i);
    for (; i < stop; ++i) FromFloat(ToFloat(from[i]) * factor, to + i);
  }
}

template <typename From>
void ScaleFrom(const ScaleProblem& problem, int64_t begin, int64_t end) {
  switch (problem.out_type) {
    case DataType::kFloat32: return ScaleRows<From, float>(problem, begin, end);
    case DataType::kFloat16: return ScaleRows<From, Float16>(problem, begin, end);
    case DataType::kBFloat16: return ScaleRows<From, BFloat16>(problem, begin, end);
  }
}

void Scale(const ScaleProblem& problem, int64_t begin, int64_t end) {
  switch (problem.gradient_type) {
    case DataType::kFloat32: return ScaleFrom<float>(problem, begin, end);
    case DataType::kFloat16: return ScaleFrom<Float16>(problem, begin, end);
    case DataType::kBFloat16: return ScaleFrom<BFloat16>(problem, begin, end);
  }
}

void Triad(const float* a, const float* b, float factor, float* out, int64_t count, bool stream) {
  int64_t i = 0;
  const bool aligned = reinterpret_cast<uintptr_t>(out) % sizeof(Vec) == 0;
  if (stream && aligned) {
    for (; i + kLanes <= count; i += kLanes)
      Stream(MulAdd(Load(b + i), Set(factor), Load(a + i)), out + i);
    StreamFence();
  } else {
    for (; i + kLanes <= count; i += kLanes)
      Store(MulAdd(Load(b + i), Set(factor), Load(a + i)), out + i);
  }
  for (; i < count; ++i) out[i] = a[i] + factor * b[i];
}

}  // namespace

#define KERAS_KD_STRING_OF(name) #name
#define KERAS_KD_STRING(name) KERAS_KD_STRING_OF(name)

extern const KernelTable kKernels;
const KernelTable kKernels{KERAS_KD_STRING(KERAS_KD_ISA), kLanes,       ScratchFloats, Losses,
                           SparseScratch::Floats,         SparseLosses, Scale,         Triad};

}  // namespace KERAS_KD_ISA
}  // namespace keras_kd
