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

std::string Register(const XLA_FFI_Api* api, const char* platform,
                     std::initializer_list<std::pair<const char*, XLA_FFI_Handler*>> handlers) {
  if (!api) return "this TensorFlow does not export XLA's FFI";
  for (const auto& [name, handler] : handlers) {
    const std::string error = RegisterOne(api, name, platform, handler);
    if (!error.empty()) return error;
  }
  return "";
}

}  // namespace xla_ffi
}  // namespace keras_kd
