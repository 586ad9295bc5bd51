// The kernels for students whose logits are bfloat16.
#include "launch.cuh"

template struct keras_kd::cuda::Launch<__nv_bfloat16>;
