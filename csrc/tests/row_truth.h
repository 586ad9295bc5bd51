// Rows of a problem, and what they must come to: the formulas in long double, written
// independently. Every array has exactly the size that the interface states, at odd addresses, so
// that a sanitizer sees a step too far.
#ifndef KERAS_KD_CSRC_TESTS_ROW_TRUTH_H_
#define KERAS_KD_CSRC_TESTS_ROW_TRUTH_H_

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "../dtype.h"
#include "../problem.h"

namespace keras_kd {

// An array of `count` elements of a storage type, one element past an aligned address.
class Array {
 public:
  Array(DataType type, size_t count)
      : type_(type), bytes_(SizeOf(type) * (count + 1)), memory_(new char[bytes_]) {
    std::memset(memory_, 0xff, bytes_);
  }
  Array(const Array&) = delete;
  Array& operator=(const Array&) = delete;
  ~Array() { delete[] memory_; }

  void* data() { return memory_ + SizeOf(type_); }
  float Get(size_t i) const {
    const char* at = memory_ + SizeOf(type_) * (i + 1);
    switch (type_) {
      case DataType::kFloat32: return Read<float>(at);
      case DataType::kFloat16: return ToFloat(Read<Float16>(at));
      case DataType::kBFloat16: return ToFloat(Read<BFloat16>(at));
    }
    std::abort();
  }
  void Set(size_t i, float value) {
    char* at = memory_ + SizeOf(type_) * (i + 1);
    switch (type_) {
      case DataType::kFloat32: return Write(at, value);
      case DataType::kFloat16: return Convert<Float16>(at, value);
      case DataType::kBFloat16: return Convert<BFloat16>(at, value);
    }
  }
  const char* bytes() const { return memory_; }
  size_t size() const { return bytes_; }

 private:
  template <typename T>
  static T Read(const char* at) {
    T value;
    std::memcpy(&value, at, sizeof value);
    return value;
  }
  template <typename T>
  static void Write(char* at, T value) {
    std::memcpy(at, &value, sizeof value);
  }
  template <typename T>
  static void Convert(char* at, float value) {
    T stored;
    FromFloat(value, &stored);
    Write(at, stored);
  }

  DataType type_;
  size_t bytes_;
  char* memory_;
};

struct Case {
  int64_t rows, classes;
  DataType student_type, teacher_type;
  Divergence divergence;
  float temperature;
  bool hard;
  float scale = 2.0f;  // of the logits
};

struct Data {
  Case c;
  Array student, teacher, gradient, soft, hard, soft_weight, hard_weight;
  std::vector<int64_t> labels;

  Data(const Case& c, unsigned seed)
      : c(c),
        student(c.student_type, Elements()),
        teacher(c.teacher_type, Elements()),
        gradient(c.student_type, Elements()),
        soft(DataType::kFloat32, Rows()),
        hard(DataType::kFloat32, Rows()),
        soft_weight(DataType::kFloat32, Rows()),
        hard_weight(DataType::kFloat32, Rows()) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal(0.0f, c.scale);
    for (size_t i = 0; i < Elements(); ++i) {
      student.Set(i, normal(random));
      teacher.Set(i, normal(random));
    }
    for (size_t row = 0; row < Rows(); ++row) {
      labels.push_back(static_cast<int64_t>(random() % static_cast<unsigned>(c.classes)));
      soft_weight.Set(row, row % 5 == 4 ? 0.0f : 0.25f * static_cast<float>(1 + row % 3));
      hard_weight.Set(row, row % 4 == 3 ? 0.0f : 0.5f);
    }
  }
  size_t Rows() const { return static_cast<size_t>(c.rows); }
  size_t Elements() const { return static_cast<size_t>(c.rows * c.classes); }

  Problem Describe() {
    Problem problem;
    problem.rows = c.rows;
    problem.classes = c.classes;
    problem.student = student.data();
    problem.teacher = teacher.data();
    problem.student_type = problem.gradient_type = c.student_type;
    problem.teacher_type = c.teacher_type;
    problem.temperature = c.temperature;
    problem.divergence = c.divergence;
    problem.mixing_weight = 0.3f;
    problem.soft_weight = static_cast<float*>(soft_weight.data());
    problem.soft = static_cast<float*>(soft.data());
    problem.gradient = gradient.data();
    if (c.hard) {
      problem.labels = labels.data();
      problem.labels_are_int64 = true;
      problem.hard_weight = static_cast<float*>(hard_weight.data());
      problem.hard = static_cast<float*>(hard.data());
    }
    return problem;
  }
};

using Real = long double;

inline std::vector<Real> LogSoftmax(const Array& logits, size_t first, size_t classes,
                                    Real temperature) {
  std::vector<Real> values(classes);
  Real largest = -std::numeric_limits<Real>::infinity(), sum = 0;
  for (size_t c = 0; c < classes; ++c) {
    values[c] = static_cast<Real>(logits.Get(first + c)) / temperature;
    largest = std::max(largest, values[c]);
  }
  for (Real value : values) sum += std::exp(value - largest);
  for (Real& value : values) value -= largest + std::log(sum);
  return values;
}

struct RowTruth {
  Real soft = 0, hard = 0;
  std::vector<Real> gradient;
};

inline RowTruth Truth(const Data& data, size_t row) {
  const size_t classes = static_cast<size_t>(data.c.classes), first = row * classes;
  const Real T = data.c.temperature, w = 0.3f;
  const auto p = LogSoftmax(data.teacher, first, classes, T);
  const auto q = LogSoftmax(data.student, first, classes, T);
  const auto q1 = LogSoftmax(data.student, first, classes, 1);
  RowTruth truth;
  truth.gradient.resize(classes);
  std::vector<Real> score(classes);
  Real mean = 0;
  for (size_t c = 0; c < classes; ++c) {
    const Real P = std::exp(p[c]), Q = std::exp(q[c]), m = std::log(w * P + (1 - w) * Q);
    switch (data.c.divergence) {
      case Divergence::kForwardKl: truth.soft += P * (p[c] - q[c]); break;
      case Divergence::kReverseKl:
        score[c] = q[c] - p[c];
        truth.soft += Q * score[c];
        break;
      case Divergence::kJensenShannon:
        score[c] = (1 - w) * (q[c] - m);
        truth.soft += w * P * (p[c] - m) + (1 - w) * Q * (q[c] - m);
        break;
    }
    mean += Q * score[c];
  }
  const Real soft_weight = data.soft_weight.Get(row);
  const Real hard_weight = data.c.hard ? data.hard_weight.Get(row) : 0.0f;
  for (size_t c = 0; c < classes; ++c) {
    const Real Q = std::exp(q[c]);
    const bool forward = data.c.divergence == Divergence::kForwardKl;
    const Real soft = forward ? Q - std::exp(p[c]) : Q * (score[c] - mean);
    const Real one = static_cast<size_t>(data.labels[row]) == c ? 1 : 0;
    truth.gradient[c] = soft_weight * T * soft + hard_weight * (std::exp(q1[c]) - one);
  }
  truth.soft *= soft_weight == 0 ? 0 : T * T;
  truth.hard = hard_weight == 0 ? 0 : -q1[static_cast<size_t>(data.labels[row])];
  return truth;
}

inline std::string Describe(const Case& c) {
  return "rows=" + std::to_string(c.rows) + " classes=" + std::to_string(c.classes) + " " +
         NameOf(c.student_type) + "/" + NameOf(c.teacher_type) +
         " divergence=" + std::to_string(static_cast<int>(c.divergence)) +
         " T=" + std::to_string(c.temperature) + (c.hard ? " hard" : "");
}

// Calls expect(holds, what) for every number that a kernel has computed.
template <typename Expect>
void CompareWithTruth(const Data& data, Expect expect) {
  const Case& c = data.c;
  // Storage rounding of the gradient: half a unit in the last place of the largest entry.
  const Real storage = c.student_type == DataType::kFloat32   ? 0
                       : c.student_type == DataType::kFloat16 ? 1e-3L
                                                              : 5e-3L;
  for (size_t row = 0; row < data.Rows(); ++row) {
    const RowTruth truth = Truth(data, row);
    const std::string where = Describe(c) + " row " + std::to_string(row);
    expect(std::fabs(data.soft.Get(row) - truth.soft) <= 1e-5L * truth.soft + 1e-10L,
           "soft loss, " + where);
    if (c.hard) {
      expect(std::fabs(data.hard.Get(row) - truth.hard) <= 1e-5L * truth.hard + 1e-6L,
             "hard loss, " + where);
    }
    for (size_t k = 0; k < truth.gradient.size(); ++k) {
      const Real found = data.gradient.Get(row * truth.gradient.size() + k);
      const Real bound = 4e-6L * c.temperature + storage * std::fabs(truth.gradient[k]);
      expect(std::fabs(found - truth.gradient[k]) <= bound + storage * 1e-4L, "gradient, " + where);
    }
  }
}

}  // namespace keras_kd

#endif  // KERAS_KD_CSRC_TESTS_ROW_TRUTH_H_
