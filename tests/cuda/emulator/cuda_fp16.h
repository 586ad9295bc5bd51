// Stands in for CUDA's <cuda_fp16.h>.
#ifndef KERAS_KD_TESTS_CUDA_EMULATOR_CUDA_FP16_H_
#define KERAS_KD_TESTS_CUDA_EMULATOR_CUDA_FP16_H_

#include "../../../csrc/dtype.h"

// A type of its own under CUDA's name: it is part of the kernels' symbols.
struct __half {
  keras_kd::Float16 value;
};
inline float __half2float(__half value) { return keras_kd::ToFloat(value.value); }
inline __half __float2half_rn(float value) {
  __half rounded;
  keras_kd::FromFloat(value, &rounded.value);
  return rounded;
}

#endif  // KERAS_KD_TESTS_CUDA_EMULATOR_CUDA_FP16_H_
