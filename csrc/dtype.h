// Scalar conversions between float and the 16-bit storage types, round to nearest even.
// Everything here is static: this header is compiled once per instruction set, and a shared inline
// symbol would let the linker keep the copy that an older processor cannot run.
#ifndef KERAS_KD_CSRC_DTYPE_H_
#define KERAS_KD_CSRC_DTYPE_H_

#include <cstdint>

namespace keras_kd {

struct BFloat16 {
  uint16_t bits;
};
struct Float16 {
  uint16_t bits;
};

static inline uint32_t BitsOf(float value) {
  uint32_t bits;
  __builtin_memcpy(&bits, &value, sizeof bits);
  return bits;
}
static inline float FloatOf(uint32_t bits) {
  float value;
  __builtin_memcpy(&value, &bits, sizeof value);
  return value;
}

static inline float ToFloat(float value) { return value; }
static inline float ToFloat(BFloat16 value) { return FloatOf(uint32_t{value.bits} << 16); }
static inline float ToFloat(Float16 value) {
  const uint32_t sign = uint32_t{value.bits & 0x8000u} << 16;
  const uint32_t exponent = (value.bits >> 10) & 0x1fu;
  const uint32_t mantissa = value.bits & 0x3ffu;
  if (exponent == 0) {  // zero or subnormal: mantissa * 2^-24, exact in float
    return FloatOf(BitsOf(static_cast<float>(mantissa) * 0x1p-24f) | sign);
  }
  if (exponent == 31) return FloatOf(sign | 0x7f800000u | (mantissa << 13));  // inf, NaN
  return FloatOf(sign | ((exponent + 112) << 23) | (mantissa << 13));
}

static inline void FromFloat(float value, float* out) { *out = value; }
static inline void FromFloat(float value, BFloat16* out) {
  const uint32_t bits = BitsOf(value);
  if (value != value) {
    out->bits = static_cast<uint16_t>((bits >> 16) | 0x40u);  // stay a NaN, made quiet
  } else {
    out->bits = static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
  }
}
static inline void FromFloat(float value, Float16* out) {
  const uint32_t all = BitsOf(value);
  const uint32_t sign = (all >> 16) & 0x8000u;
  const uint32_t bits = all & 0x7fffffffu;
  if (bits > 0x7f800000u) {
    out->bits = static_cast<uint16_t>(sign | 0x7e00u);
  } else if (bits >= 0x477ff000u) {  // rounds to 65536 or more
    out->bits = static_cast<uint16_t>(sign | 0x7c00u);
  } else if (bits < 0x38800000u) {  // subnormal: adding 2^-1 * 2^24 ulp rounds in the float unit
    const float shifted = FloatOf(bits) + 0.5f;
    out->bits = static_cast<uint16_t>(sign | (BitsOf(shifted) - 0x3f000000u));
  } else {
    out->bits =
        static_cast<uint16_t>(sign | ((bits - 0x38000000u + 0xfffu + ((bits >> 13) & 1u)) >> 13));
  }
}

}  // namespace keras_kd

#endif  // KERAS_KD_CSRC_DTYPE_H_
