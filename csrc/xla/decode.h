// A problem from the buffers of a custom call; the same for every platform. Order and shapes are
// those that keras_kd/ops/backends/xla.py writes.
#ifndef KERAS_KD_CSRC_XLA_DECODE_H_
#define KERAS_KD_CSRC_XLA_DECODE_H_

#include <utility>

#include "../problem.h"
#include "ffi.h"

namespace keras_kd {
namespace xla_ffi {

namespace ffi = xla::ffi;

using Float = ffi::Buffer<ffi::F32>;

struct Buffers {
  const ffi::AnyBuffer& student;
  const ffi::AnyBuffer& teacher;
  const ffi::AnyBuffer* labels;  // null: no hard loss
  const Float* hard_weight;      // with labels
  const Float& soft_weight;
  Float* hard;  // with labels
  Float& soft;
  ffi::AnyBuffer& gradient;  // no elements: losses only
};

// Fills everything but the temperature, which may lie in device memory.
ffi::Error Decode(const Buffers& buffers, int32_t divergence, float mixing_weight,
                  Problem* problem);

struct SparseBuffers {
  const ffi::AnyBuffer& student;
  const ffi::AnyBuffer& teacher;
  const ffi::AnyBuffer& indices;
  const Float& tail;
  const Float& soft_weight;
  Float& soft;
  ffi::AnyBuffer& gradient;
};
ffi::Error Decode(const SparseBuffers& buffers, int32_t divergence, float mixing_weight,
                  SparseProblem* problem);

// The handlers' signatures, after what a platform adds in front.
template <typename Binding>
auto WithSoftTargets(Binding binding) {
  return std::move(binding)
      .template Arg<ffi::AnyBuffer>()
      .template Arg<ffi::AnyBuffer>()
      .template Arg<Float>()
      .template Arg<Float>()
      .template Ret<Float>()
      .template Ret<ffi::AnyBuffer>()
      .template Attr<int32_t>("divergence")
      .template Attr<float>("mixing_weight");
}
template <typename Binding>
auto WithHardAndSoft(Binding binding) {
  return std::move(binding)
      .template Arg<ffi::AnyBuffer>()
      .template Arg<ffi::AnyBuffer>()
      .template Arg<ffi::AnyBuffer>()
      .template Arg<Float>()
      .template Arg<Float>()
      .template Arg<Float>()
      .template Ret<Float>()
      .template Ret<Float>()
      .template Ret<ffi::AnyBuffer>()
      .template Attr<int32_t>("divergence")
      .template Attr<float>("mixing_weight");
}

}  // namespace xla_ffi
}  // namespace keras_kd

#endif  // KERAS_KD_CSRC_XLA_DECODE_H_
