// Largest value and sum of exponentials of a stream of values, found together.
#ifndef KERAS_KD_CSRC_CUDA_ONLINE_SUM_CUH_
#define KERAS_KD_CSRC_CUDA_ONLINE_SUM_CUH_

#include "row_math.cuh"

namespace keras_kd {
namespace cuda {

// Exponentials are taken relative to a reference, which follows the largest value only when that
// has moved past it by more than this many octaves: each rescaling costs the whole warp an
// exponential, and a sum of 2^8 times the classes is far from overflow.
constexpr float kOctaves = 8.0f;

// A sum of exponentials relative to one value, made relative to another.
__device__ __forceinline__ float Moved(float sum, float from, float to, float scale) {
  return from == -kInfinity ? sum : sum * exp2f((from - to) * scale);
}

struct OnlineSum {
  float largest = -kInfinity, reference = -kInfinity, sum = 0.0f;

  template <int kCount>
  __device__ __forceinline__ void Add(const float (&values)[kCount], float scale) {
#pragma unroll
    for (int i = 0; i < kCount; ++i) largest = fmaxf(largest, values[i]);
    // The first value that is not -inf always moves it. NaN never does: it goes into the sum.
    if ((largest - reference) * scale > kOctaves) {
      sum = At(largest, scale);
      reference = largest;
    }
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      // What is left out of the row is -inf; so is a logit that has no probability.
      if (values[i] != -kInfinity) sum += exp2f((values[i] - reference) * scale);
    }
  }
  // The sum relative to another value.
  __device__ __forceinline__ float At(float value, float scale) const {
    return Moved(sum, reference, value, scale);
  }
};

}  // namespace cuda
}  // namespace keras_kd

#endif  // KERAS_KD_CSRC_CUDA_ONLINE_SUM_CUH_
