#include <string>

#include "handlers.h"

namespace keras_kd {
namespace xla_ffi {
namespace {

namespace ffi = xla::ffi;

std::string RegisterOne(const XLA_FFI_Api* api, const char* name, const char* platform,
                        XLA_FFI_Handler* handler) {
  XLA_FFI_Error* error = ffi::Ffi::RegisterStaticHandler(api, name, platform, handler);
  if (!error) return "";
  const std::string message = ffi::internal::GetErrorMessage(api, error);
  ffi::internal::DestroyError(api, error);
  return std::string(name) + ": " + message;
}

}  // namespace

std::string Register(const XLA_FFI_Api* api, const char* platform, XLA_FFI_Handler* soft_targets,
                     XLA_FFI_Handler* hard_and_soft) {
  if (!api) return "this TensorFlow does not export XLA's FFI";
  const std::string error = RegisterOne(api, "keras_kd_soft_target_loss", platform, soft_targets);
  if (!error.empty()) return error;
  return RegisterOne(api, "keras_kd_hard_and_soft_loss", platform, hard_and_soft);
}

}  // namespace xla_ffi
}  // namespace keras_kd
