// The kernels of the GPU as XLA's custom calls: XLA says on which stream. All buffers are in device
// memory, so nothing of them is looked at here, and nothing is waited for.
#include "decode.h"
#include "handlers.h"

namespace keras_kd {
namespace xla_ffi {
namespace {

CudaLibrary cuda_library;

ffi::Error Run(void* stream, ffi::ScratchAllocator& scratch, const Buffers& buffers,
               const float* temperature, int32_t divergence, float mixing_weight) {
  cuda::Task task;
  if (auto error = Decode(buffers, divergence, mixing_weight, &task.problem); error.failure()) {
    return error;
  }
  task.temperature = temperature;
  char message[512];
  int64_t bytes = 0;
  if (cuda_library.workspace(&task, &bytes, message, sizeof message) != 0) {
    return ffi::Error::InvalidArgument(message);
  }
  void* workspace = nullptr;  // without it the kernels run too, slower
  if (bytes > 0) workspace = scratch.Allocate(static_cast<size_t>(bytes), 16).value_or(nullptr);
  if (cuda_library.losses(&task, workspace, bytes, stream, message, sizeof message) != 0) {
    return ffi::Error::Internal(message);
  }
  return ffi::Error::Success();
}

ffi::Error SoftTargetLoss(void* stream, ffi::ScratchAllocator scratch, ffi::AnyBuffer student,
                          ffi::AnyBuffer teacher, Float temperature, Float soft_weight,
                          ffi::Result<Float> soft, ffi::Result<ffi::AnyBuffer> gradient,
                          int32_t divergence, float mixing_weight) {
  return Run(stream, scratch,
             {student, teacher, nullptr, nullptr, soft_weight, nullptr, *soft, *gradient},
             temperature.typed_data(), divergence, mixing_weight);
}

ffi::Error HardAndSoftLoss(void* stream, ffi::ScratchAllocator scratch, ffi::AnyBuffer student,
                           ffi::AnyBuffer teacher, ffi::AnyBuffer labels, Float temperature,
                           Float hard_weight, Float soft_weight, ffi::Result<Float> hard,
                           ffi::Result<Float> soft, ffi::Result<ffi::AnyBuffer> gradient,
                           int32_t divergence, float mixing_weight) {
  return Run(stream, scratch,
             {student, teacher, &labels, &hard_weight, soft_weight, &*hard, *soft, *gradient},
             temperature.typed_data(), divergence, mixing_weight);
}

auto Bind() {
  return ffi::Ffi::Bind().Ctx<ffi::PlatformStream<void*>>().Ctx<ffi::ScratchAllocator>();
}
XLA_FFI_DEFINE_HANDLER(kSoftTargetLoss, SoftTargetLoss, WithSoftTargets(Bind()));
XLA_FFI_DEFINE_HANDLER(kHardAndSoftLoss, HardAndSoftLoss, WithHardAndSoft(Bind()));

}  // namespace

std::string RegisterCuda(const XLA_FFI_Api* api, CudaLibrary library) {
  cuda_library = library;
  return Register(api, "CUDA",
                  {{"keras_kd_soft_target_loss", kSoftTargetLoss},
                   {"keras_kd_hard_and_soft_loss", kHardAndSoftLoss}});
}

}  // namespace xla_ffi
}  // namespace keras_kd
