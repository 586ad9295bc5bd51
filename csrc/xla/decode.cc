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

using Dimensions = ffi::AnyBuffer::Dimensions;

bool Same(Dimensions a, Dimensions b) { return std::equal(a.begin(), a.end(), b.begin(), b.end()); }

bool IsInteger(const ffi::AnyBuffer& buffer) {
  return buffer.element_type() == ffi::S32 || buffer.element_type() == ffi::S64;
}

// All that a soft loss has, but for the relation of the two models' shapes.
ffi::Error DecodeSoft(const ffi::AnyBuffer& student, const ffi::AnyBuffer& teacher,
                      const Float& weight, Float& soft, ffi::AnyBuffer& gradient,
                      Problem* problem) {
  if (!StorageType(student.element_type(), &problem->student_type) ||
      !StorageType(teacher.element_type(), &problem->teacher_type) ||
      !StorageType(gradient.element_type(), &problem->gradient_type)) {
    return Invalid("keras_kd: logits must be float32, float16 or bfloat16.");
  }
  const auto shape = student.dimensions();
  problem->classes = shape.back();
  problem->rows = 1;
  for (size_t axis = 0; axis + 1 < shape.size(); ++axis) problem->rows *= shape[axis];
  if (static_cast<int64_t>(soft.element_count()) != problem->rows) {
    return Invalid("keras_kd: the loss must have one element a row.");
  }
  if (!Weight(weight, problem->rows, &problem->soft_weight, &problem->soft_weight_is_scalar)) {
    return Invalid("keras_kd: a weight must have one element a row.");
  }
  problem->student = student.untyped_data();
  problem->teacher = teacher.untyped_data();
  problem->soft = soft.typed_data();
  problem->gradient = gradient.element_count() == 0 ? nullptr : gradient.untyped_data();
  return ffi::Error::Success();
}

}  // namespace

ffi::Error Decode(const Buffers& buffers, int32_t divergence, float mixing_weight,
                  Problem* problem) {
  const auto shape = buffers.student.dimensions();
  if (shape.size() == 0 || !Same(shape, buffers.teacher.dimensions())) {
    return Invalid(
        "student_logits and teacher_logits must have the same shape [..., num_classes].");
  }
  if (auto error = DecodeSoft(buffers.student, buffers.teacher, buffers.soft_weight, buffers.soft,
                              buffers.gradient, problem);
      error.failure()) {
    return error;
  }
  problem->divergence = static_cast<Divergence>(divergence);
  problem->mixing_weight = mixing_weight;
  if (!buffers.labels) return ffi::Error::Success();

  if (!IsInteger(*buffers.labels)) return Invalid("keras_kd: labels must be int32 or int64.");
  if (static_cast<int64_t>(buffers.labels->element_count()) != problem->rows ||
      !Weight(*buffers.hard_weight, problem->rows, &problem->hard_weight,
              &problem->hard_weight_is_scalar)) {
    return Invalid("keras_kd: labels and weights must have one element a row.");
  }
  problem->labels = buffers.labels->untyped_data();
  problem->labels_are_int64 = buffers.labels->element_type() == ffi::S64;
  problem->hard = buffers.hard->typed_data();
  return ffi::Error::Success();
}

ffi::Error Decode(const SparseBuffers& buffers, int32_t divergence, float mixing_weight,
                  SparseProblem* problem) {
  const auto student = buffers.student.dimensions(), teacher = buffers.teacher.dimensions();
  const auto rows = buffers.tail.dimensions();
  if (student.size() == 0 || teacher.size() != student.size() ||
      !Same(teacher, buffers.indices.dimensions()) || rows.size() + 1 != student.size() ||
      !std::equal(rows.begin(), rows.end(), student.begin()) ||
      !std::equal(rows.begin(), rows.end(), teacher.begin())) {
    return Invalid(
        "teacher_logits and teacher_indices must have one shape [..., k], teacher_tail without the "
        "k, student_logits [..., num_classes].");
  }
  if (!IsInteger(buffers.indices)) return Invalid("keras_kd: indices must be int32 or int64.");
  Problem& dense = problem->dense;
  if (auto error = DecodeSoft(buffers.student, buffers.teacher, buffers.soft_weight, buffers.soft,
                              buffers.gradient, &dense);
      error.failure()) {
    return error;
  }
  dense.divergence = static_cast<Divergence>(divergence);
  dense.mixing_weight = mixing_weight;
  problem->kept = teacher.back();
  problem->indices = buffers.indices.untyped_data();
  problem->indices_are_int64 = buffers.indices.element_type() == ffi::S64;
  problem->tail = buffers.tail.typed_data();
  return ffi::Error::Success();
}

}  // namespace xla_ffi
}  // namespace keras_kd
