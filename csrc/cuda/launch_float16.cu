// The kernels for students whose logits are float16.
#include "launch.cuh"

template struct keras_kd::cuda::Launch<__half>;
