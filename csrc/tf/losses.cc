// SoftTargetLoss and HardAndSoftLoss: read and check the inputs, allocate, call the kernels.
#include "../c_api.h"
#include "kernels.h"
#include "tensors.h"

namespace keras_kd {
namespace tf {
namespace {

struct Attributes {
  Divergence divergence = Divergence::kForwardKl;
  float mixing_weight = 0.5f;
  bool with_gradient = true;
};

// The inputs and outputs common to both losses, and the problem they describe.
struct LossCall {
  TF_OpKernelContext* context;
  const Attributes& attributes;
  Tensor student, teacher, temperature, soft_weight, hard_weight, labels;
  Tensor soft, hard, gradient;
  Problem problem;
  std::vector<int64_t> leading;

  LossCall(TF_OpKernelContext* context, const Attributes& attributes)
      : context(context), attributes(attributes) {}

  bool ReadLogits() {
    if (!Input(context, 0, &student) || !Input(context, 1, &teacher)) return false;
    const auto shape = student.shape();
    if (shape.empty() || shape != teacher.shape()) {
      return Fail(context,
                  "student_logits and teacher_logits must have the same shape [..., num_classes]. "
                  "Received: student_logits.shape=" +
                      Text(shape) + ", teacher_logits.shape=" + Text(teacher.shape()));
    }
    if (!StorageType(student.type(), &problem.student_type) ||
        !StorageType(teacher.type(), &problem.teacher_type)) {
      return Fail(context, "logits must be float32, float16 or bfloat16.");
    }
    leading.assign(shape.begin(), shape.end() - 1);
    problem.rows = 1;
    for (int64_t dim : leading) problem.rows *= dim;
    problem.classes = shape.back();
    problem.student = student.data();
    problem.teacher = teacher.data();
    problem.divergence = attributes.divergence;
    problem.mixing_weight = attributes.mixing_weight;
    return true;
  }

  bool ReadTemperature(int index) {
    if (!Input(context, index, &temperature)) return false;
    if (temperature.size() != 1) return Fail(context, "temperature must be a scalar.");
    problem.temperature = *temperature.data<float>();
    return true;
  }

  bool ReadWeight(int index, const char* name, Tensor* weight, const float** values,
                  bool* is_scalar) {
    if (!Input(context, index, weight)) return false;
    if (weight->shape() == std::vector<int64_t>{0} && leading != std::vector<int64_t>{0}) {
      return true;
    }
    *is_scalar = weight->shape().empty();
    if (!*is_scalar && weight->shape() != leading) {
      return Fail(context, std::string(name) + " must be a scalar or have shape " + Text(leading) +
                               ". Received: " + Text(weight->shape()));
    }
    *values = weight->data<float>();
    return true;
  }

  bool ReadLabels(int index) {
    if (!Input(context, index, &labels)) return false;
    if (labels.shape() != leading) {
      return Fail(context, "labels must have the shape of the logits without the classes, " +
                               Text(leading) + ". Received: labels.shape=" + Text(labels.shape()));
    }
    problem.labels = labels.data();
    problem.labels_are_int64 = labels.type() == TF_INT64;
    return true;
  }

  bool AllocateLoss(int index, Tensor* loss, float** values) {
    if (!Output(context, index, TF_FLOAT, leading, loss)) return false;
    *values = loss->data<float>();
    return true;
  }

  bool AllocateGradient(int index) {
    const TF_DataType type = TF_ExpectedOutputDataType(context, index);
    const auto shape = attributes.with_gradient ? student.shape() : std::vector<int64_t>{0};
    if (!Output(context, index, type, shape, &gradient)) return false;
    StorageType(type, &problem.gradient_type);
    problem.gradient = attributes.with_gradient ? gradient.data() : nullptr;
    return true;
  }

  void Run() {
    char message[512];
    if (keras_kd_losses(&problem, message, sizeof message) != 0) Fail(context, message);
  }
};

}  // namespace

void* CreateLossAttributes(TF_OpKernelConstruction* construction) {
  Status status;
  int32_t divergence = 0;
  float mixing_weight = 0.5f;
  TF_Bool with_gradient = 1;
  TF_OpKernelConstruction_GetAttrInt32(construction, "divergence", &divergence, status.status);
  if (status.ok()) {
    TF_OpKernelConstruction_GetAttrFloat(construction, "mixing_weight", &mixing_weight,
                                         status.status);
  }
  if (status.ok()) {
    TF_OpKernelConstruction_GetAttrBool(construction, "with_gradient", &with_gradient,
                                        status.status);
  }
  if (!status.ok()) {
    TF_OpKernelConstruction_Failure(construction, status.status);
    return nullptr;
  }
  return new Attributes{static_cast<Divergence>(divergence), mixing_weight, with_gradient != 0};
}

void DeleteLossAttributes(void* attributes) { delete static_cast<Attributes*>(attributes); }

void ComputeSoftTargetLoss(void* attributes, TF_OpKernelContext* context) {
  LossCall call(context, *static_cast<Attributes*>(attributes));
  Problem& problem = call.problem;
  if (call.ReadLogits() && call.ReadTemperature(2) &&
      call.ReadWeight(3, "soft_weight", &call.soft_weight, &problem.soft_weight,
                      &problem.soft_weight_is_scalar) &&
      call.AllocateLoss(0, &call.soft, &problem.soft) && call.AllocateGradient(1)) {
    call.Run();
  }
}

void ComputeHardAndSoftLoss(void* attributes, TF_OpKernelContext* context) {
  LossCall call(context, *static_cast<Attributes*>(attributes));
  Problem& problem = call.problem;
  if (call.ReadLogits() && call.ReadLabels(2) && call.ReadTemperature(3) &&
      call.ReadWeight(4, "hard_weight", &call.hard_weight, &problem.hard_weight,
                      &problem.hard_weight_is_scalar) &&
      call.ReadWeight(5, "soft_weight", &call.soft_weight, &problem.soft_weight,
                      &problem.soft_weight_is_scalar) &&
      call.AllocateLoss(0, &call.hard, &problem.hard) &&
      call.AllocateLoss(1, &call.soft, &problem.soft) && call.AllocateGradient(2)) {
    call.Run();
  }
}

}  // namespace tf
}  // namespace keras_kd
