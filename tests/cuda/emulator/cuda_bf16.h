// Stands in for CUDA's <cuda_bf16.h>.
#ifndef KERAS_KD_TESTS_CUDA_EMULATOR_CUDA_BF16_H_
#define KERAS_KD_TESTS_CUDA_EMULATOR_CUDA_BF16_H_

#include "../../../csrc/dtype.h"

using __nv_bfloat16 = keras_kd::BFloat16;
inline float __bfloat162float(__nv_bfloat16 value) { return keras_kd::ToFloat(value); }
inline __nv_bfloat16 __float2bfloat16_rn(float value) {
  __nv_bfloat16 rounded;
  keras_kd::FromFloat(value, &rounded);
  return rounded;
}

#endif  // KERAS_KD_TESTS_CUDA_EMULATOR_CUDA_BF16_H_
