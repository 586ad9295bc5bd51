// One vector of kLanes floats, on the vector extensions of GCC and Clang, with intrinsics only
// where the compilers do not find the instruction themselves. The same source serves x86-64
// (baseline, AVX2+FMA, AVX-512) and aarch64; KERAS_KD_ISA names the namespace of this copy.
#ifndef KERAS_KD_CSRC_CPU_SIMD_H_
#define KERAS_KD_CSRC_CPU_SIMD_H_

#include <cstdint>

#include "../dtype.h"

#if defined(__SSE2__)
#include <immintrin.h>
#elif defined(__ARM_NEON)
#include <arm_neon.h>
#endif

#ifndef KERAS_KD_ISA
#error "KERAS_KD_ISA must name the instruction set this file is compiled for"
#endif

#define KERAS_KD_INLINE static inline __attribute__((always_inline))

namespace keras_kd {
namespace KERAS_KD_ISA {

// KERAS_KD_LANES widens the vectors past the hardware's: that is how the 16-lane code of AVX-512
// is executed, and tested, on machines that have only AVX2.
#if defined(KERAS_KD_LANES)
constexpr int kLanes = KERAS_KD_LANES;
#elif defined(__AVX512F__)
constexpr int kLanes = 16;
#elif defined(__AVX2__)
constexpr int kLanes = 8;
#else
constexpr int kLanes = 4;
#endif

#if defined(__AVX512F__) && !defined(KERAS_KD_LANES)
#define KERAS_KD_AVX512 1
#elif defined(__AVX2__) && defined(__FMA__) && !defined(KERAS_KD_LANES)
#define KERAS_KD_AVX2 1
#endif

typedef float Vec __attribute__((vector_size(4 * kLanes)));
typedef int32_t Int __attribute__((vector_size(4 * kLanes)));
typedef uint32_t Uint __attribute__((vector_size(4 * kLanes)));
typedef uint16_t Half __attribute__((vector_size(2 * kLanes)));
typedef float UnalignedVec __attribute__((vector_size(4 * kLanes), aligned(4), may_alias));
typedef uint16_t UnalignedHalf __attribute__((vector_size(2 * kLanes), aligned(2), may_alias));

KERAS_KD_INLINE Vec Set(float value) { return value - Vec{}; }
KERAS_KD_INLINE Int SetInt(int32_t value) { return value - Int{}; }

KERAS_KD_INLINE Vec Select(Int mask, Vec yes, Vec no) { return mask ? yes : no; }
KERAS_KD_INLINE Vec ZeroUnless(Int mask, Vec value) {
  return reinterpret_cast<Vec>(reinterpret_cast<Int>(value) & mask);
}
KERAS_KD_INLINE Vec Abs(Vec value) {
  return reinterpret_cast<Vec>(reinterpret_cast<Int>(value) & 0x7fffffff);
}

// max(a, b); b if either is NaN.
KERAS_KD_INLINE Vec Max(Vec a, Vec b) {
#if defined(KERAS_KD_AVX512)
  return _mm512_max_ps(a, b);
#elif defined(KERAS_KD_AVX2)
  return _mm256_max_ps(a, b);
#else
  return a > b ? a : b;
#endif
}

// a * b + c, fused where the hardware has it.
#if defined(KERAS_KD_AVX512) || defined(KERAS_KD_AVX2) || \
    (defined(__aarch64__) && !defined(KERAS_KD_LANES))
constexpr bool kFused = true;
#else
constexpr bool kFused = false;
#endif
KERAS_KD_INLINE Vec MulAdd(Vec a, Vec b, Vec c) {
#if defined(KERAS_KD_AVX512)
  return _mm512_fmadd_ps(a, b, c);
#elif defined(KERAS_KD_AVX2)
  return _mm256_fmadd_ps(a, b, c);
#elif defined(__aarch64__) && !defined(KERAS_KD_LANES)
  return (Vec)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
#else
  return a * b + c;
#endif
}

// The nearest integer of a value in the int32 range; a NaN gives an integer whose low 9 bits are
// zero on every platform (INT_MIN or 0), so that shifting it into an exponent adds nothing.
KERAS_KD_INLINE Int Round(Vec value) {
#if defined(KERAS_KD_AVX512)
  return reinterpret_cast<Int>(_mm512_cvtps_epi32(value));
#elif defined(KERAS_KD_AVX2)
  return reinterpret_cast<Int>(_mm256_cvtps_epi32(value));
#elif defined(__SSE2__) && !defined(KERAS_KD_LANES)
  return reinterpret_cast<Int>(_mm_cvtps_epi32(value));
#elif defined(__aarch64__) && !defined(KERAS_KD_LANES)
  return (Int)vcvtnq_s32_f32((float32x4_t)value);
#else
  Int rounded{};
  for (int lane = 0; lane < kLanes; ++lane) {
    const float x = value[lane];
    // Out of range or NaN: undefined in C++, so it is not converted.
    rounded[lane] = x > -2e9f && x < 2e9f ? static_cast<int32_t>(__builtin_rintf(x)) : 0;
  }
  return rounded;
#endif
}
KERAS_KD_INLINE Vec ToVec(Int value) { return __builtin_convertvector(value, Vec); }

KERAS_KD_INLINE Vec Load(const float* from) { return *reinterpret_cast<const UnalignedVec*>(from); }
// GCC 12 widens by five instructions where there is one, hence the intrinsics.
KERAS_KD_INLINE Vec Load(const BFloat16* from) {
#if defined(KERAS_KD_AVX512)
  const __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
  const Uint wide = reinterpret_cast<Uint>(_mm512_cvtepu16_epi32(bits));
#elif defined(KERAS_KD_AVX2)
  const __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
  const Uint wide = reinterpret_cast<Uint>(_mm256_cvtepu16_epi32(bits));
#else
  const Half bits = *reinterpret_cast<const UnalignedHalf*>(from);
  const Uint wide = __builtin_convertvector(bits, Uint);
#endif
  return reinterpret_cast<Vec>(wide << 16);
}
KERAS_KD_INLINE Vec Load(const Float16* from) {
#if defined(KERAS_KD_AVX512)
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
#elif defined(KERAS_KD_AVX2)
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
#else
  Vec value{};
  for (int lane = 0; lane < kLanes; ++lane) value[lane] = ToFloat(from[lane]);
  return value;
#endif
}

KERAS_KD_INLINE void Store(Vec value, float* to) { *reinterpret_cast<UnalignedVec*>(to) = value; }
// The low halves of 32-bit lanes whose upper halves are zero.
KERAS_KD_INLINE void StoreLow(Uint value, uint16_t* to) {
#if defined(KERAS_KD_AVX512)
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to),
                      _mm512_cvtepi32_epi16(reinterpret_cast<__m512i>(value)));
#elif defined(KERAS_KD_AVX2)
  const __m256i lanes = reinterpret_cast<__m256i>(value);
  const __m256i packed = _mm256_permute4x64_epi64(_mm256_packus_epi32(lanes, lanes), 0x08);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm256_castsi256_si128(packed));
#else
  *reinterpret_cast<UnalignedHalf*>(to) = __builtin_convertvector(value, Half);
#endif
}
KERAS_KD_INLINE void Store(Vec value, BFloat16* to) {
  const Uint bits = reinterpret_cast<Uint>(value);
  const Uint rounded = bits + 0x7fffu + ((bits >> 16) & 1u);
  // A NaN whose payload is all ones would round to -0: it is made the quiet NaN.
  const Int kept = value == value ? reinterpret_cast<Int>(rounded) : SetInt(0x7fc00000);
  StoreLow(reinterpret_cast<Uint>(kept) >> 16, &to->bits);
}
KERAS_KD_INLINE void Store(Vec value, Float16* to) {
#if defined(KERAS_KD_AVX512)
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to),
                      _mm512_cvtps_ph(value, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
#elif defined(KERAS_KD_AVX2)
  _mm_storeu_si128(reinterpret_cast<__m128i*>(to),
                   _mm256_cvtps_ph(value, _MM_FROUND_TO_NEAREST_INT));
#else
  for (int lane = 0; lane < kLanes; ++lane) FromFloat(value[lane], to + lane);
#endif
}

// A store that does not read the line first and leaves the caches alone; `to` must be aligned to
// the vector. Only for results that no cache could hold anyway. Followed by StreamFence.
KERAS_KD_INLINE void Stream(Vec value, float* to) {
#if defined(KERAS_KD_AVX512)
  _mm512_stream_ps(to, value);
#elif defined(KERAS_KD_AVX2)
  _mm256_stream_ps(to, value);
#elif defined(__SSE2__) && !defined(KERAS_KD_LANES)
  _mm_stream_ps(to, value);
#else
  Store(value, to);
#endif
}
KERAS_KD_INLINE void StreamFence() {
#if defined(__SSE2__)
  _mm_sfence();
#endif
}

KERAS_KD_INLINE Int LaneNumbers() {
  Int lane{};
  for (int i = 0; i < kLanes; ++i) lane[i] = i;  // a constant to the compiler
  return lane;
}
// All bits set in the first `count` lanes.
KERAS_KD_INLINE Int FirstLanes(int64_t count) {
  return LaneNumbers() < SetInt(static_cast<int32_t>(count));
}

// The first `count` (< kLanes) elements, `fill` in the other lanes; nothing past them is read.
template <typename T>
KERAS_KD_INLINE Vec LoadPart(const T* from, int64_t count, float fill) {
  T elements[kLanes];
  for (int lane = 0; lane < kLanes; ++lane) FromFloat(fill, elements + lane);
  for (int64_t lane = 0; lane < count; ++lane) elements[lane] = from[lane];
  return Load(elements);
}
template <typename T>
KERAS_KD_INLINE void StorePart(Vec value, T* to, int64_t count) {
  T elements[kLanes];
  Store(value, elements);
  for (int64_t lane = 0; lane < count; ++lane) to[lane] = elements[lane];
}
#if defined(KERAS_KD_AVX512)
KERAS_KD_INLINE Vec LoadPart(const float* from, int64_t count, float fill) {
  return _mm512_mask_loadu_ps(Set(fill), static_cast<__mmask16>((1u << count) - 1), from);
}
KERAS_KD_INLINE void StorePart(Vec value, float* to, int64_t count) {
  _mm512_mask_storeu_ps(to, static_cast<__mmask16>((1u << count) - 1), value);
}
#elif defined(KERAS_KD_AVX2)
KERAS_KD_INLINE Vec LoadPart(const float* from, int64_t count, float fill) {
  const Int mask = FirstLanes(count);
  const Vec loaded = _mm256_maskload_ps(from, reinterpret_cast<__m256i>(mask));
  return Select(mask, loaded, Set(fill));
}
KERAS_KD_INLINE void StorePart(Vec value, float* to, int64_t count) {
  _mm256_maskstore_ps(to, reinterpret_cast<__m256i>(FirstLanes(count)), value);
}
#endif

// As LoadPart, of an array that has kLanes elements before from + count: one load that reaches
// back. LoadPart goes through memory for 16-bit types, 10 ns each time.
template <typename T>
KERAS_KD_INLINE Vec LoadEnd(const T* from, int64_t count, float fill) {
#if defined(KERAS_KD_AVX512) || defined(KERAS_KD_AVX2)
  const Int lane = LaneNumbers() + SetInt(static_cast<int32_t>(kLanes - count));  // modulo kLanes
#if defined(KERAS_KD_AVX512)
  const Vec moved =
      _mm512_permutexvar_ps(reinterpret_cast<__m512i>(lane), Load(from + count - kLanes));
#else
  const Vec moved =
      _mm256_permutevar8x32_ps(Load(from + count - kLanes), reinterpret_cast<__m256i>(lane));
#endif
  return Select(FirstLanes(count), moved, Set(fill));
#else
  return LoadPart(from, count, fill);
#endif
}

// Lane i becomes lane (i + kBy) % kLanes.
template <int kBy>
KERAS_KD_INLINE Vec Rotate(Vec value) {
#if defined(__clang__)
  Vec rotated{};
  for (int i = 0; i < kLanes; ++i) rotated[i] = value[(i + kBy) % kLanes];
  return rotated;
#else
  Int from{};
  for (int i = 0; i < kLanes; ++i) from[i] = (i + kBy) % kLanes;
  return __builtin_shuffle(value, from);
#endif
}

// a0 b0 a1 b1 ... : the first kLanes of it, and the rest.
KERAS_KD_INLINE void Interleave(Vec a, Vec b, Vec* low, Vec* high) {
#if defined(__clang__)
  for (int i = 0; i < kLanes / 2; ++i) {
    (*low)[2 * i] = a[i], (*low)[2 * i + 1] = b[i];
    (*high)[2 * i] = a[kLanes / 2 + i], (*high)[2 * i + 1] = b[kLanes / 2 + i];
  }
#else
  Int first{}, second{};
  for (int i = 0; i < kLanes / 2; ++i) {
    first[2 * i] = i, first[2 * i + 1] = kLanes + i;
    second[2 * i] = kLanes / 2 + i, second[2 * i + 1] = kLanes + kLanes / 2 + i;
  }
  *low = __builtin_shuffle(a, b, first);
  *high = __builtin_shuffle(a, b, second);
#endif
}

// Transposes a square of kLanes vectors in place, in log2(kLanes) rounds of interleaving.
KERAS_KD_INLINE void Transpose(Vec* rows) {
  Vec next[kLanes];
  for (int round = 1; round < kLanes; round *= 2) {
    for (int i = 0; i < kLanes / 2; ++i) {
      Interleave(rows[i], rows[i + kLanes / 2], next + 2 * i, next + 2 * i + 1);
    }
    for (int i = 0; i < kLanes; ++i) rows[i] = next[i];
  }
}

// Across the lanes, always in the same order.
KERAS_KD_INLINE float Sum(Vec value) {
  if constexpr (kLanes >= 16) value += Rotate<kLanes / 2>(value);
  if constexpr (kLanes >= 8) value += Rotate<4>(value);
  value += Rotate<2>(value);
  value += Rotate<1>(value);
  return value[0];
}
// Whether a mask (all bits or none in each lane) has a lane set.
KERAS_KD_INLINE bool Any(Int mask) {
#if defined(KERAS_KD_AVX512)
  return _mm512_movepi32_mask(reinterpret_cast<__m512i>(mask)) != 0;
#elif defined(KERAS_KD_AVX2)
  return _mm256_movemask_ps(reinterpret_cast<__m256>(mask)) != 0;
#else
  return Sum(ZeroUnless(mask, Set(1.0f))) != 0.0f;
#endif
}
KERAS_KD_INLINE float Largest(Vec value) {
  if constexpr (kLanes >= 16) value = Max(value, Rotate<kLanes / 2>(value));
  if constexpr (kLanes >= 8) value = Max(value, Rotate<4>(value));
  value = Max(value, Rotate<2>(value));
  return Max(value, Rotate<1>(value))[0];
}

}  // namespace KERAS_KD_ISA
}  // namespace keras_kd

#endif  // KERAS_KD_CSRC_CPU_SIMD_H_
