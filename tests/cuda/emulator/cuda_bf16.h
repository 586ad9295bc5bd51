// Stands in for CUDA's <cuda_bf16.h>.
#ifndef KERAS_KD_TESTS_CUDA_EMULATOR_CUDA_BF16_H_
#define KERAS_KD_TESTS_CUDA_EMULATOR_CUDA_BF16_H_

#include "../../../csrc/dtype.h"

struct __nv_bfloat16 {
  keras_kd::BFloat16 value;
};
inline float __bfloat162float(__nv_bfloat16 value) { return keras_kd::ToFloat(value.value); }
inline __nv_bfloat16 __float2bfloat16_rn(float value) {
  __nv_bfloat16 rounded;
  keras_kd::FromFloat(value, &rounded.value);
  return rounded;
}

#endif  // KERAS_KD_TESTS_CUDA_EMULATOR_CUDA_BF16_H_
