// The kernels of the CPU as XLA's custom calls.
#include "../c_api.h"
#include "decode.h"
#include "handlers.h"

namespace keras_kd {
namespace xla_ffi {
namespace {

template <typename AnyProblem>
ffi::Error Call(int32_t (*losses)(const AnyProblem*, char*, int64_t), const AnyProblem& problem) {
  char message[512];
  if (losses(&problem, message, sizeof message) == 0) return ffi::Error::Success();
  return ffi::Error::InvalidArgument(message);
}

ffi::Error Run(const Buffers& buffers, float temperature, int32_t divergence, float mixing_weight) {
  Problem problem;
  if (auto error = Decode(buffers, divergence, mixing_weight, &problem); error.failure()) {
    return error;
  }
  problem.temperature = temperature;
  return Call(keras_kd_losses, problem);
}

ffi::Error SoftTargetLoss(ffi::AnyBuffer student, ffi::AnyBuffer teacher, Float temperature,
                          Float soft_weight, ffi::Result<Float> soft,
                          ffi::Result<ffi::AnyBuffer> gradient, int32_t divergence,
                          float mixing_weight) {
  return Run({student, teacher, nullptr, nullptr, soft_weight, nullptr, *soft, *gradient},
             *temperature.typed_data(), divergence, mixing_weight);
}

ffi::Error HardAndSoftLoss(ffi::AnyBuffer student, ffi::AnyBuffer teacher, ffi::AnyBuffer labels,
                           Float temperature, Float hard_weight, Float soft_weight,
                           ffi::Result<Float> hard, ffi::Result<Float> soft,
                           ffi::Result<ffi::AnyBuffer> gradient, int32_t divergence,
                           float mixing_weight) {
  return Run({student, teacher, &labels, &hard_weight, soft_weight, &*hard, *soft, *gradient},
             *temperature.typed_data(), divergence, mixing_weight);
}

ffi::Error SparseSoftTargetLoss(ffi::AnyBuffer student, ffi::AnyBuffer teacher,
                                ffi::AnyBuffer indices, Float tail, Float temperature,
                                Float soft_weight, ffi::Result<Float> soft,
                                ffi::Result<ffi::AnyBuffer> gradient, int32_t divergence,
                                float mixing_weight) {
  SparseProblem problem;
  if (auto error = Decode({student, teacher, indices, tail, soft_weight, *soft, *gradient},
                          divergence, mixing_weight, &problem);
      error.failure()) {
    return error;
  }
  problem.dense.temperature = *temperature.typed_data();
  return Call(keras_kd_sparse_losses, problem);
}

XLA_FFI_DEFINE_HANDLER(kSoftTargetLoss, SoftTargetLoss, WithSoftTargets(ffi::Ffi::Bind()));
XLA_FFI_DEFINE_HANDLER(kHardAndSoftLoss, HardAndSoftLoss, WithHardAndSoft(ffi::Ffi::Bind()));
XLA_FFI_DEFINE_HANDLER(kSparseSoftTargetLoss, SparseSoftTargetLoss,
                       ffi::Ffi::Bind()
                           .Arg<ffi::AnyBuffer>()
                           .Arg<ffi::AnyBuffer>()
                           .Arg<ffi::AnyBuffer>()
                           .Arg<Float>()
                           .Arg<Float>()
                           .Arg<Float>()
                           .Ret<Float>()
                           .Ret<ffi::AnyBuffer>()
                           .Attr<int32_t>("divergence")
                           .Attr<float>("mixing_weight"));

}  // namespace

std::string RegisterHost(const XLA_FFI_Api* api) {
  return Register(api, "Host",
                  {{"keras_kd_soft_target_loss", kSoftTargetLoss},
                   {"keras_kd_hard_and_soft_loss", kHardAndSoftLoss},
                   {"keras_kd_sparse_soft_target_loss", kSparseSoftTargetLoss}});
}

}  // namespace xla_ffi
}  // namespace keras_kd
