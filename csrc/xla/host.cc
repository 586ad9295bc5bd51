// The kernels of the CPU as XLA's custom calls.
#include "../c_api.h"
#include "decode.h"
#include "handlers.h"

namespace keras_kd {
namespace xla_ffi {
namespace {

ffi::Error Run(const Buffers& buffers, float temperature, int32_t divergence, float mixing_weight) {
  Problem problem;
  if (auto error = Decode(buffers, divergence, mixing_weight, &problem); error.failure()) {
    return error;
  }
  problem.temperature = temperature;
  char message[512];
  if (keras_kd_losses(&problem, message, sizeof message) != 0) {
    return ffi::Error::InvalidArgument(message);
  }
  return ffi::Error::Success();
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

XLA_FFI_DEFINE_HANDLER(kSoftTargetLoss, SoftTargetLoss, WithSoftTargets(ffi::Ffi::Bind()));
XLA_FFI_DEFINE_HANDLER(kHardAndSoftLoss, HardAndSoftLoss, WithHardAndSoft(ffi::Ffi::Bind()));

}  // namespace

std::string RegisterHost(const XLA_FFI_Api* api) {
  return Register(api, "Host", kSoftTargetLoss, kHardAndSoftLoss);
}

}  // namespace xla_ffi
}  // namespace keras_kd
