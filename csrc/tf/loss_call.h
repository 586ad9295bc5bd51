// What the losses' operations read, check and allocate.
#ifndef KERAS_KD_CSRC_TF_LOSS_CALL_H_
#define KERAS_KD_CSRC_TF_LOSS_CALL_H_

#include <string>
#include <vector>

#include "../problem.h"
#include "tensors.h"

namespace keras_kd {
namespace tf {

struct Attributes {
  Divergence divergence = Divergence::kForwardKl;
  float mixing_weight = 0.5f;
  bool with_gradient = true;
};

// The inputs and outputs common to the losses, and the problem they describe.
struct LossCall {
  TF_OpKernelContext* context;
  const Attributes& attributes;
  Tensor student, teacher, temperature, soft_weight, hard_weight, labels;
  Tensor soft, hard, gradient;
  Problem problem;
  std::vector<int64_t> leading;

  LossCall(TF_OpKernelContext* context, const Attributes& attributes)
      : context(context), attributes(attributes) {}

  bool ReadStudentAndTeacher() {
    if (!Input(context, 0, &student) || !Input(context, 1, &teacher)) return false;
    const auto shape = student.shape();
    if (shape.empty())
      return Fail(context, "student_logits must have the shape [..., num_classes].");
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

  bool ReadLogits() {
    if (!ReadStudentAndTeacher()) return false;
    if (student.shape() == teacher.shape()) return true;
    return Fail(context,
                "student_logits and teacher_logits must have the same shape [..., num_classes]. "
                "Received: student_logits.shape=" +
                    Text(student.shape()) + ", teacher_logits.shape=" + Text(teacher.shape()));
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

  template <typename AnyProblem>
  void Run(int32_t (*losses)(const AnyProblem*, char*, int64_t), const AnyProblem& described) {
    char message[512];
    if (losses(&described, message, sizeof message) != 0) Fail(context, message);
  }
};

}  // namespace tf
}  // namespace keras_kd

#endif  // KERAS_KD_CSRC_TF_LOSS_CALL_H_
