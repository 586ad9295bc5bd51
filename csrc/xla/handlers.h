// The handlers of each platform; names and operands are those of keras_kd/ops/backends/xla.py.
#ifndef KERAS_KD_CSRC_XLA_HANDLERS_H_
#define KERAS_KD_CSRC_XLA_HANDLERS_H_

#include <initializer_list>
#include <string>
#include <utility>

#include "../cuda/cuda_api.h"
#include "ffi.h"

namespace keras_kd {
namespace xla_ffi {

// The functions of libkeras_kd_cuda.so, which this library does not link: it is there on machines
// with a GPU only.
struct CudaLibrary {
  decltype(&keras_kd_cuda_losses) losses;
  decltype(&keras_kd_cuda_workspace) workspace;
};

// Empty on success, else why not.
std::string RegisterHost(const XLA_FFI_Api* api);
std::string RegisterCuda(const XLA_FFI_Api* api, CudaLibrary library);

// For these two: registers handlers under their names.
std::string Register(const XLA_FFI_Api* api, const char* platform,
                     std::initializer_list<std::pair<const char*, XLA_FFI_Handler*>> handlers);

}  // namespace xla_ffi
}  // namespace keras_kd

#endif  // KERAS_KD_CSRC_XLA_HANDLERS_H_
