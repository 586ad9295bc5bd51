// Logits of any storage type, in pieces of 16 bytes wherever the address allows it.
#ifndef KERAS_KD_CSRC_CUDA_PACKET_CUH_
#define KERAS_KD_CSRC_CUDA_PACKET_CUH_

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>
#include <type_traits>

#include "../problem.h"

// The block's memory whose size the launch gives. An emulator has its own.
#ifndef KERAS_KD_DYNAMIC_SHARED
#define KERAS_KD_DYNAMIC_SHARED(type, name) extern __shared__ __align__(16) type name[]
#endif

namespace keras_kd {
namespace cuda {

__device__ __forceinline__ float Widen(float value) { return value; }
__device__ __forceinline__ float Widen(__half value) { return __half2float(value); }
__device__ __forceinline__ float Widen(__nv_bfloat16 value) { return __bfloat162float(value); }
__device__ __forceinline__ void Narrow(float value, float* to) { *to = value; }
__device__ __forceinline__ void Narrow(float value, __half* to) { *to = __float2half_rn(value); }
__device__ __forceinline__ void Narrow(float value, __nv_bfloat16* to) {
  *to = __float2bfloat16_rn(value);
}

// The unit in which rows are loaded and stored: 16 bytes of the student's type.
template <typename T>
constexpr int kPieceOf = 16 / static_cast<int>(sizeof(T));

// kColumns values of type T, moved by one access of 8 or 16 bytes, or by two of 16.
template <typename T, int kColumns>
union Packet {
  static constexpr int kBytes = kColumns * static_cast<int>(sizeof(T));
  static constexpr int kAligned = kBytes < 16 ? kBytes : 16;
  uint2 half;  // these members make the compiler move all bytes at once
  uint4 whole[kBytes < 16 ? 1 : kBytes / 16];
  T values[kColumns];

  __device__ Packet() : whole{} {}
  __device__ __forceinline__ void Load(const T* from) {
    if constexpr (kBytes == 8) {
      half = __ldg(reinterpret_cast<const uint2*>(from));
    } else {
#pragma unroll
      for (int i = 0; i < kBytes / 16; ++i)
        whole[i] = __ldg(reinterpret_cast<const uint4*>(from) + i);
    }
  }
  // By an intrinsic: nvcc takes an assignment apart and merges its parts with the element by
  // element stores of the other branch, which leaves four stores of 4 bytes.
  __device__ __forceinline__ void Store(T* to) const {
    if constexpr (kBytes == 8) {
      __stwb(reinterpret_cast<uint2*>(to), half);
    } else {
#pragma unroll
      for (int i = 0; i < kBytes / 16; ++i) __stwb(reinterpret_cast<uint4*>(to) + i, whole[i]);
    }
  }
};

// A row of logits as pieces that begin `shift` columns before it, so that whole pieces are aligned
// to 16 bytes. What the first piece would hold of the time before the row is the row's end instead:
// a row of C classes takes ceil(C / kColumns) pieces wherever it lies, and all rows of a tensor
// take equally many.
template <int kColumns>
struct Grid {
  int classes, shift;

  static __device__ __host__ int PiecesOf(int classes) {
    return (classes + kColumns - 1) / kColumns;
  }
  __device__ int Pieces() const { return PiecesOf(classes); }
  // The first column of a piece; below zero for the piece that holds the row's two ends.
  __device__ __forceinline__ int First(int piece) const { return piece * kColumns - shift; }
  __device__ __forceinline__ int Column(int piece, int slot) const {
    const int column = First(piece) + slot;
    return column < 0 ? column + Pieces() * kColumns : column;
  }
  __device__ __forceinline__ bool Has(int piece, int slot) const {
    return Column(piece, slot) < classes;
  }
  template <typename T>
  __device__ __forceinline__ bool Whole(const T* row, int piece) const {
    const int first = First(piece);
    return first >= 0 && first + kColumns <= classes &&
           reinterpret_cast<uintptr_t>(row + first) % Packet<T, kColumns>::kAligned == 0;
  }
};

// The grid of a row whose pieces are aligned for the student's type.
template <typename T>
__device__ __forceinline__ Grid<kPieceOf<T>> GridOf(const T* row, int64_t classes) {
  const uintptr_t address = reinterpret_cast<uintptr_t>(row);
  return {static_cast<int>(classes), static_cast<int>(address / sizeof(T) % kPieceOf<T>)};
}

// Pieces that are not whole, and all pieces of a row whose address does not fit the grid (a teacher
// that lies otherwise than the student), go element by element. Columns that the row lacks come out
// as -inf: a logit of no probability.
template <typename T, int kColumns>
__device__ __forceinline__ void LoadPiece(const T* row, const Grid<kColumns>& grid, int piece,
                                          float (&values)[kColumns]) {
  if (grid.Whole(row, piece)) {
    Packet<T, kColumns> packet;
    packet.Load(row + grid.First(piece));
#pragma unroll
    for (int i = 0; i < kColumns; ++i) values[i] = Widen(packet.values[i]);
    return;
  }
#pragma unroll
  for (int i = 0; i < kColumns; ++i) {
    values[i] = grid.Has(piece, i) ? Widen(row[grid.Column(piece, i)]) : -__builtin_huge_valf();
  }
}

template <typename T, int kColumns>
__device__ __forceinline__ void StorePiece(T* row, const Grid<kColumns>& grid, int piece,
                                           const float (&values)[kColumns]) {
  if (grid.Whole(row, piece)) {
    Packet<T, kColumns> packet;
#pragma unroll
    for (int i = 0; i < kColumns; ++i) Narrow(values[i], packet.values + i);
    packet.Store(row + grid.First(piece));
    return;
  }
#pragma unroll
  for (int i = 0; i < kColumns; ++i) {
    if (grid.Has(piece, i)) Narrow(values[i], row + grid.Column(piece, i));
  }
}

// The T of a `const T*`.
template <typename Pointer>
using Plain = std::remove_cv_t<std::remove_pointer_t<Pointer>>;

// Calls body with a pointer of the type that is known at run time only: the same for all threads,
// so no warp diverges.
template <typename Body>
__device__ __forceinline__ void WithType(DataType type, const void* base, Body body) {
  switch (type) {
    case DataType::kFloat32: return body(static_cast<const float*>(base));
    case DataType::kFloat16: return body(static_cast<const __half*>(base));
    case DataType::kBFloat16: return body(static_cast<const __nv_bfloat16*>(base));
  }
  __builtin_unreachable();
}

}  // namespace cuda
}  // namespace keras_kd

#endif  // KERAS_KD_CSRC_CUDA_PACKET_CUH_
