// Python arguments as the kernels take them: checked, and copied only where there is no way around.
//
// keras_kd/ops/backends/ctypes.py says the same in Python, message by message:
// tests/ops/both_bindings.py holds the two against each other.
#ifndef KERAS_KD_CSRC_PYTHON_ARRAYS_H_
#define KERAS_KD_CSRC_PYTHON_ARRAYS_H_

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cstdint>
#include <string>
#include <vector>

#include "problem.h"

namespace keras_kd {
namespace python {

namespace py = pybind11;

using Shape = std::vector<py::ssize_t>;

// Logits `[..., classes]` in C order, native byte order and aligned to their element.
struct Logits {
  Logits(const char* name, const py::object& value);

  Shape LeadingShape() const;
  int64_t classes() const { return array.shape(array.ndim() - 1); }

  py::array array;
  DataType type;
};

// int32 or int64 of a known shape; other integers become int64.
struct Integers {
  Integers(const char* name, const py::object& value, const Shape& shape);

  py::array array;
  bool are_int64;
};

// Float32 of a known shape.
py::array Floats(const char* name, const py::object& value, const Shape& shape);

// A weight for each row, or one for all; `None` is 1.
class RowWeights {
 public:
  RowWeights(const char* name, const py::object& value, const Shape& rows);
  RowWeights(const RowWeights&) = delete;  // data() may point into the object
  RowWeights& operator=(const RowWeights&) = delete;

  const float* data() const { return is_scalar_ ? &scalar_ : data_; }
  bool is_scalar() const { return is_scalar_; }
  // Times the weights; a row of weight zero is exactly zero, whatever the loss is.
  void MultiplyInto(float* losses, int64_t rows) const;

 private:
  py::object owner_;
  const float* data_ = nullptr;
  float scalar_ = 1.0f;
  bool is_scalar_ = false;
};

float Number(const char* name, const py::object& value);
Divergence FindDivergence(const py::object& value);
bool IsTrue(const py::object& value);

// "(4, 10)", as Python prints a tuple.
std::string Text(const Shape& shape);
Shape ShapeOf(const py::array& array);

}  // namespace python
}  // namespace keras_kd

#endif  // KERAS_KD_CSRC_PYTHON_ARRAYS_H_
