// SparseSoftTargetLoss: as losses.cc, with a sparse teacher, which keeps its largest logits.
#include "../c_api.h"
#include "kernels.h"
#include "loss_call.h"

namespace keras_kd {
namespace tf {
namespace {

std::vector<int64_t> AllButLast(const std::vector<int64_t>& shape) {
  return {shape.begin(), shape.empty() ? shape.end() : shape.end() - 1};
}

bool CheckShapes(const LossCall& call, const Tensor& indices, const Tensor& tail) {
  const auto teacher = call.teacher.shape();
  if (!teacher.empty() && AllButLast(teacher) == call.leading && indices.shape() == teacher &&
      tail.shape() == call.leading) {
    return true;
  }
  return Fail(call.context,
              "teacher_logits and teacher_indices must have one shape [..., k], teacher_tail "
              "without the k, student_logits [..., num_classes]. Received: student_logits.shape=" +
                  Text(call.student.shape()) + ", teacher_logits.shape=" + Text(teacher) +
                  ", teacher_indices.shape=" + Text(indices.shape()) +
                  ", teacher_tail.shape=" + Text(tail.shape()));
}

}  // namespace

void ComputeSparseSoftTargetLoss(void* attributes, TF_OpKernelContext* context) {
  LossCall call(context, *static_cast<Attributes*>(attributes));
  Tensor indices, tail;
  if (!call.ReadStudentAndTeacher() || !Input(context, 2, &indices) || !Input(context, 3, &tail) ||
      !CheckShapes(call, indices, tail) || !call.ReadTemperature(4) ||
      !call.ReadWeight(5, "soft_weight", &call.soft_weight, &call.problem.soft_weight,
                       &call.problem.soft_weight_is_scalar) ||
      !call.AllocateLoss(0, &call.soft, &call.problem.soft) || !call.AllocateGradient(1)) {
    return;
  }
  SparseProblem problem;
  problem.dense = call.problem;
  problem.kept = call.teacher.shape().back();
  problem.indices = indices.data();
  problem.indices_are_int64 = indices.type() == TF_INT64;
  problem.tail = tail.data<float>();
  call.Run(keras_kd_sparse_losses, problem);
}

}  // namespace tf
}  // namespace keras_kd
