#include "decode.h"

#include <algorithm>

namespace keras_kd {
namespace xla_ffi {
namespace {

bool StorageType(ffi::DataType type, DataType* storage) {
  switch (type) {
    case ffi::F32: *storage = DataType::kFloat32; return true;
    case ffi::F16: *storage = DataType::kFloat16; return true;
    case ffi::BF16: *storage = DataType::kBFloat16; return true;
    default: return false;
  }
}

// A weight of no elements means 1 for every row, a scalar one value for every row.
bool Weight(const Float& weight, int64_t rows, const float** values, bool* is_scalar) {
  *is_scalar = weight.dimensions().size() == 0;
  const int64_t count = static_cast<int64_t>(weight.element_count());
  *values = count == 0 ? nullptr : weight.typed_data();
  return *is_scalar || count == 0 || count == rows;
}

ffi::Error Invalid(const char* message) { return ffi::Error::InvalidArgument(message); }

}  // namespace

ffi::Error Decode(const Buffers& buffers, int32_t divergence, float mixing_weight,
                  Problem* problem) {
  const auto shape = buffers.student.dimensions();
  const auto other = buffers.teacher.dimensions();
  if (shape.size() == 0 || !std::equal(shape.begin(), shape.end(), other.begin(), other.end())) {
    return Invalid(
        "student_logits and teacher_logits must have the same shape [..., num_classes].");
  }
  if (!StorageType(buffers.student.element_type(), &problem->student_type) ||
      !StorageType(buffers.teacher.element_type(), &problem->teacher_type) ||
      !StorageType(buffers.gradient.element_type(), &problem->gradient_type)) {
    return Invalid("keras_kd: logits must be float32, float16 or bfloat16.");
  }
  problem->classes = shape.back();
  problem->rows = 1;
  for (size_t axis = 0; axis + 1 < shape.size(); ++axis) problem->rows *= shape[axis];
  if (static_cast<int64_t>(buffers.soft.element_count()) != problem->rows) {
    return Invalid("keras_kd: the loss must have one element a row.");
  }
  problem->student = buffers.student.untyped_data();
  problem->teacher = buffers.teacher.untyped_data();
  problem->divergence = static_cast<Divergence>(divergence);
  problem->mixing_weight = mixing_weight;
  if (!Weight(buffers.soft_weight, problem->rows, &problem->soft_weight,
              &problem->soft_weight_is_scalar)) {
    return Invalid("keras_kd: a weight must have one element a row.");
  }
  problem->soft = buffers.soft.typed_data();
  problem->gradient =
      buffers.gradient.element_count() == 0 ? nullptr : buffers.gradient.untyped_data();
  if (!buffers.labels) return ffi::Error::Success();

  const ffi::DataType labels = buffers.labels->element_type();
  if (labels != ffi::S32 && labels != ffi::S64) {
    return Invalid("keras_kd: labels must be int32 or int64.");
  }
  if (static_cast<int64_t>(buffers.labels->element_count()) != problem->rows ||
      !Weight(*buffers.hard_weight, problem->rows, &problem->hard_weight,
              &problem->hard_weight_is_scalar)) {
    return Invalid("keras_kd: labels and weights must have one element a row.");
  }
  problem->labels = buffers.labels->untyped_data();
  problem->labels_are_int64 = labels == ffi::S64;
  problem->hard = buffers.hard->typed_data();
  return ffi::Error::Success();
}

}  // namespace xla_ffi
}  // namespace keras_kd
