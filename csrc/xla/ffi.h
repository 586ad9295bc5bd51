// XLA's typed FFI, a C interface, so that the binary is not tied to a TensorFlow version.
#ifndef KERAS_KD_CSRC_XLA_FFI_H_
#define KERAS_KD_CSRC_XLA_FFI_H_

#include "xla/ffi/api/c_api.h"

// TensorFlow 2.18 and 2.20 refuse handlers of a newer minor version ("handler's API version (0.2)
// is incompatible"); nothing used here is newer than 0.1.
#undef XLA_FFI_API_MINOR
#define XLA_FFI_API_MINOR 1

#include "xla/ffi/api/ffi.h"

#endif  // KERAS_KD_CSRC_XLA_FFI_H_
