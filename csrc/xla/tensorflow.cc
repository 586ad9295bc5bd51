// Registers the kernels with the XLA of the TensorFlow in this process (jit_compile=True).
#include <dlfcn.h>

#include <string>

#include "../c_api.h"
#include "handlers.h"

namespace keras_kd {
namespace xla_ffi {
namespace {

namespace ffi = xla::ffi;

// TensorFlow exports the FFI's table under a C name since 2.21, under a C++ one before.
const XLA_FFI_Api* FindApi() {
  for (const char* library : {"libtensorflow_framework.so.2", "libtensorflow_cc.so.2"}) {
    void* handle = dlopen(library, RTLD_NOLOAD | RTLD_NOW);
    if (!handle) continue;
    for (const char* name : {"XLA_FFI_GetApi", "_ZN3xla3ffi12GetXlaFfiApiEv"}) {
      if (void* function = dlsym(handle, name)) {
        return reinterpret_cast<const XLA_FFI_Api* (*)()>(function)();
      }
    }
  }
  return nullptr;
}

}  // namespace
}  // namespace xla_ffi
}  // namespace keras_kd

using namespace keras_kd::xla_ffi;  // NOLINT: the file is theirs

// Empty on success, else why the kernels cannot be used inside XLA.
KERAS_KD_EXPORT const char* keras_kd_register_xla() {
  static const std::string problem = RegisterHost(FindApi());
  return problem.c_str();
}
// The same for GPUs, with functions of libkeras_kd_cuda.so.
KERAS_KD_EXPORT const char* keras_kd_register_xla_cuda(
    decltype(&keras_kd_cuda_losses) losses, decltype(&keras_kd_cuda_workspace) workspace) {
  static const std::string problem = RegisterCuda(FindApi(), {losses, workspace});
  return problem.c_str();
}

KERAS_KD_EXPORT int32_t keras_kd_tf_abi_version() { return KERAS_KD_ABI_VERSION; }
