// Logits of any storage type, in pieces of 16 bytes wherever the address allows it.
#ifndef KERAS_KD_CSRC_CUDA_PACKET_CUH_
#define KERAS_KD_CSRC_CUDA_PACKET_CUH_

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>

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

// 16 bytes of T; the member of type uint4 makes the compiler load and store them at once.
template <typename T>
union Packet {
  static constexpr int kSize = 16 / sizeof(T);
  uint4 bytes;
  T values[kSize];
  __device__ Packet() : bytes{} {}
};

// Columns of a piece, the unit in which rows are loaded and stored: 16 bytes of a 16-bit type,
// twice 16 bytes of float.
constexpr int kPiece = 8;

// One row of logits, seen as pieces that begin at `shift` columns before the row, so that whole
// pieces are aligned to 16 bytes. Pieces that reach over an end of the row, and all pieces of a row
// whose address does not fit (its base or its type differ from the student's), go element by
// element.
struct Grid {
  int64_t classes;
  int shift;

  __device__ int64_t Column(int64_t piece) const { return piece * kPiece - shift; }
  __device__ int64_t Pieces() const { return (classes + shift + kPiece - 1) / kPiece; }
  __device__ bool Has(int64_t column) const { return column >= 0 && column < classes; }
  template <typename T>
  __device__ bool Whole(const T* row, int64_t column) const {
    return column >= 0 && column + kPiece <= classes &&
           reinterpret_cast<uintptr_t>(row + column) % 16 == 0;
  }
};

template <typename T>
__device__ __forceinline__ void LoadPiece(const T* row, const Grid& grid, int64_t piece, float fill,
                                          float (&values)[kPiece]) {
  constexpr int kSize = Packet<T>::kSize;
  const int64_t first = grid.Column(piece);
  if (grid.Whole(row, first)) {
#pragma unroll
    for (int i = 0; i < kPiece; i += kSize) {
      Packet<T> packet;
      packet.bytes = __ldg(reinterpret_cast<const uint4*>(row + first + i));
#pragma unroll
      for (int j = 0; j < kSize; ++j) values[i + j] = Widen(packet.values[j]);
    }
    return;
  }
#pragma unroll
  for (int i = 0; i < kPiece; ++i) {
    values[i] = grid.Has(first + i) ? Widen(row[first + i]) : fill;
  }
}

template <typename T>
__device__ __forceinline__ void StorePiece(T* row, const Grid& grid, int64_t piece,
                                           const float (&values)[kPiece]) {
  constexpr int kSize = Packet<T>::kSize;
  const int64_t first = grid.Column(piece);
  if (grid.Whole(row, first)) {
#pragma unroll
    for (int i = 0; i < kPiece; i += kSize) {
      Packet<T> packet;
#pragma unroll
      for (int j = 0; j < kSize; ++j) Narrow(values[i + j], packet.values + j);
      *reinterpret_cast<uint4*>(row + first + i) = packet.bytes;
    }
    return;
  }
#pragma unroll
  for (int i = 0; i < kPiece; ++i) {
    if (grid.Has(first + i)) Narrow(values[i], row + first + i);
  }
}

// A row whose type is known at run time only: the same for all threads, so no warp diverges.
struct AnyRow {
  const void* base;
  DataType type;
  int64_t offset;  // elements before the row

  __device__ void Load(const Grid& grid, int64_t piece, float fill, float (&values)[kPiece]) const {
    switch (type) {
      case DataType::kFloat32:
        return LoadPiece(static_cast<const float*>(base) + offset, grid, piece, fill, values);
      case DataType::kFloat16:
        return LoadPiece(static_cast<const __half*>(base) + offset, grid, piece, fill, values);
      case DataType::kBFloat16:
        return LoadPiece(static_cast<const __nv_bfloat16*>(base) + offset, grid, piece, fill,
                         values);
    }
    __builtin_unreachable();
  }
};

// The grid of a row: its pieces are aligned for the student's type.
template <typename T>
__device__ __forceinline__ Grid GridOf(const T* row, int64_t classes) {
  const uintptr_t address = reinterpret_cast<uintptr_t>(row);
  return {classes, static_cast<int>(address / sizeof(T) % kPiece)};
}

}  // namespace cuda
}  // namespace keras_kd

#endif  // KERAS_KD_CSRC_CUDA_PACKET_CUH_
