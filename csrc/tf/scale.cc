// ScaleGradient: rows of a gradient times the upstream gradient of their losses.
#include "../c_api.h"
#include "kernels.h"
#include "tensors.h"

namespace keras_kd {
namespace tf {
namespace {

// Gives back the reference to `gradient`, because TensorFlow hands a buffer on only to the last one
// that holds it, and takes it again if the output got memory of its own.
bool ForwardOrAllocate(TF_OpKernelContext* context, const std::vector<int64_t>& shape,
                       Tensor* gradient, Tensor* scaled) {
  TF_DeleteTensor(gradient->tensor);
  gradient->tensor = nullptr;
  const int candidate = 0;
  int forwarded = -1;
  Status status;
  scaled->tensor =
      TF_ForwardInputOrAllocateOutput(context, &candidate, 1, 0, shape.data(),
                                      static_cast<int>(shape.size()), &forwarded, status.status);
  if (!status.ok()) {
    TF_OpKernelContext_Failure(context, status.status);
    return false;
  }
  return forwarded == candidate || Input(context, candidate, gradient);
}

void ScaleInto(TF_OpKernelContext* context, const Tensor& from, const Tensor& upstream,
               const Tensor& to, int64_t classes) {
  ScaleProblem problem;
  problem.classes = classes;
  problem.rows = classes == 0 ? 0 : from.size() / classes;
  problem.gradient = from.data();
  problem.upstream = upstream.data<float>();
  problem.upstream_is_scalar = upstream.shape().empty();
  problem.out = to.data();
  StorageType(from.type(), &problem.gradient_type);
  StorageType(to.type(), &problem.out_type);
  char message[512];
  if (keras_kd_scale(&problem, message, sizeof message) != 0) Fail(context, message);
}

}  // namespace

// In place where nothing else holds the gradient, which is the usual case in a training step; and
// where every upstream value is 1 (a loss that is summed) the memory is not touched at all.
void ComputeScaleGradient(void*, TF_OpKernelContext* context) {
  Tensor gradient, upstream, scaled;
  if (!Input(context, 0, &gradient) || !Input(context, 1, &upstream)) return;
  const auto shape = gradient.shape();
  const std::vector<int64_t> leading(shape.begin(), shape.empty() ? shape.end() : shape.end() - 1);
  if (shape.empty() || (!upstream.shape().empty() && upstream.shape() != leading)) {
    Fail(context, "upstream must be a scalar or have shape " + Text(leading) +
                      ". Received: " + Text(upstream.shape()));
    return;
  }
  const TF_DataType type = TF_ExpectedOutputDataType(context, 0);
  const bool same_type = type == gradient.type();
  if (same_type && keras_kd_all_ones(upstream.data<float>(), upstream.size())) {
    Status status;
    TF_SetOutput(context, 0, gradient.tensor, status.status);
    if (!status.ok()) TF_OpKernelContext_Failure(context, status.status);
    return;
  }
  if (same_type ? !ForwardOrAllocate(context, shape, &gradient, &scaled)
                : !Output(context, 0, type, shape, &scaled)) {
    return;
  }
  ScaleInto(context, gradient.tensor ? gradient : scaled, upstream, scaled, shape.back());
}

}  // namespace tf
}  // namespace keras_kd
