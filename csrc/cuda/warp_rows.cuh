// Rows that fit the registers of a warp, or of a part of one: up to 1024 classes.
//
// kLanes threads hold a row, kPieces pieces each, so every byte is read once and written once:
// 12 bytes a class in float, 6 in 16-bit types. Exponentials stay in registers: 2 a class, 3 with a
// hard loss at T != 1. No shared memory, no barrier.
#ifndef KERAS_KD_CSRC_CUDA_WARP_ROWS_CUH_
#define KERAS_KD_CSRC_CUDA_WARP_ROWS_CUH_

#include "row.cuh"

namespace keras_kd {
namespace cuda {

constexpr int kWarp = 32;
constexpr int kWarpsPerBlock = 4;
constexpr unsigned kAllLanes = 0xffffffffu;

// Sum and maximum over the kLanes threads of a row, the same in all of them: a butterfly adds in an
// order of its own, but in the same one every time.
template <int kLanes>
__device__ __forceinline__ float SumOverLanes(float value) {
#pragma unroll
  for (int step = kLanes / 2; step > 0; step /= 2) {
    value += __shfl_xor_sync(kAllLanes, value, step);
  }
  return value;
}
template <int kLanes>
__device__ __forceinline__ float LargestOverLanes(float value) {
#pragma unroll
  for (int step = kLanes / 2; step > 0; step /= 2) {
    value = fmaxf(value, __shfl_xor_sync(kAllLanes, value, step));
  }
  return value;
}

template <typename T, Divergence kDivergence, int kLanes, int kPieces>
struct WarpRow {
  static constexpr int kCount = kPieces * kPiece;

  const Row<T>& row;
  int lane;
  float student[kCount], teacher[kCount];  // logits; then q and p, without their scale
  float ratio[kCount];                     // log p - log q; then the score
  float hard[kCount];                      // exponentials at T = 1
  Sums sums;

  __device__ WarpRow(const Row<T>& row, int lane) : row(row), lane(lane) {}

  __device__ __forceinline__ int64_t Column(int i) const {
    return row.grid.Column(lane + kLanes * (i / kPiece)) + i % kPiece;
  }
  __device__ __forceinline__ bool Has(int i) const {
    return row.Active() && row.grid.Has(Column(i));
  }

  __device__ void Load() {
#pragma unroll
    for (int k = 0; k < kPieces; ++k) {
      float s[kPiece], t[kPiece];
#pragma unroll
      for (int j = 0; j < kPiece; ++j) s[j] = t[j] = -kInfinity;
      const int64_t piece = lane + kLanes * k;
      if (piece < row.Pieces()) {
        LoadPiece(row.student, row.grid, piece, -kInfinity, s);
        row.teacher.Load(row.grid, piece, -kInfinity, t);
      }
#pragma unroll
      for (int j = 0; j < kPiece; ++j) {
        student[k * kPiece + j] = s[j];
        teacher[k * kPiece + j] = t[j];
      }
    }
  }

  __device__ void FindLargest() {
    float s = -kInfinity, t = -kInfinity;
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      s = fmaxf(s, student[i]);
      t = fmaxf(t, teacher[i]);
    }
    sums.student_largest = LargestOverLanes<kLanes>(s);
    sums.teacher_largest = LargestOverLanes<kLanes>(t);
  }

  // Replaces the logits by their exponentials and differences.
  __device__ void Exponentials() {
    const float scale = kLog2E / row.problem.temperature;
    const bool own_hard = row.OwnHard();
    const Comparison compare = Comparison::Of(sums);
    float student_sum = 0.0f, teacher_sum = 0.0f, hard_sum = 0.0f;
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      const float s = student[i], t = teacher[i];
      const float from_student = s - sums.student_largest, from_teacher = t - sums.teacher_largest;
      ratio[i] = compare(s, t);
      const bool has = Has(i);
      student[i] = has ? exp2f(from_student * scale) : 0.0f;
      teacher[i] = has ? exp2f(from_teacher * scale) : 0.0f;
      hard[i] = own_hard && has ? exp2f(from_student * kLog2E) : student[i];
      student_sum += student[i];
      teacher_sum += teacher[i];
      hard_sum += hard[i];
    }
    sums.student = SumOverLanes<kLanes>(student_sum);
    sums.teacher = SumOverLanes<kLanes>(teacher_sum);
    sums.hard = SumOverLanes<kLanes>(hard_sum);
  }

  // Leaves the soft gradient, without its factor, in `ratio`; returns the divergence.
  __device__ float Diverge(const ReadyRow<kDivergence>& ready) {
    float first = 0.0f, second = 0.0f;
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      const float q = student[i] * ready.student_scale, p = teacher[i] * ready.teacher_scale;
      const float d = ready.LogRatio(ratio[i]);
      float a = 0.0f, b = 0.0f;
      const float score = ready.Add(p, q, d, &a, &b);
      const bool has = Has(i);
      ratio[i] = has ? score : 0.0f;
      first += has ? a : 0.0f;
      second += has ? b : 0.0f;
    }
    first = SumOverLanes<kLanes>(first);
    second = SumOverLanes<kLanes>(second);
    if constexpr (kDivergence != Divergence::kForwardKl) {
      const float mean = ready.MeanScore(first, second);
#pragma unroll
      for (int i = 0; i < kCount; ++i) {
        ratio[i] = ready.Centred(student[i] * ready.student_scale, ratio[i], mean);
      }
    }
    return ready.Loss(first, second);
  }

  __device__ void WriteGradient(const ReadyRow<kDivergence>& ready) {
#pragma unroll
    for (int k = 0; k < kPieces; ++k) {
      const int64_t piece = lane + kLanes * k;
      if (piece >= row.Pieces()) continue;
      float values[kPiece];
#pragma unroll
      for (int j = 0; j < kPiece; ++j) {
        const int i = k * kPiece + j;
        values[j] = row.Gradient(ready, ratio[i], hard[i], sums.hard, Column(i));
      }
      StorePiece(row.gradient, row.grid, piece, values);
    }
  }
};

template <typename T, Divergence kDivergence, int kLanes, int kPieces>
__global__ void __launch_bounds__(kWarp* kWarpsPerBlock) WarpRows(Problem problem) {
  constexpr int kRowsPerBlock = kWarp * kWarpsPerBlock / kLanes;
  const int lane = static_cast<int>(threadIdx.x) % kLanes;
  const int64_t index =
      static_cast<int64_t>(blockIdx.x) * kRowsPerBlock + static_cast<int>(threadIdx.x) / kLanes;
  const Row<T> row(problem, index);
  WarpRow<T, kDivergence, kLanes, kPieces> held(row, lane);
  held.Load();
  held.FindLargest();
  held.Exponentials();
  const auto ready =
      ReadyRow<kDivergence>::Of(problem, held.sums, row.soft_weight, row.hard_weight);
  const float divergence = held.Diverge(ready);
  if (!row.Active()) return row.WriteZeros(lane, kLanes);
  if (lane == 0) row.WriteLosses(held.sums, divergence);
  if (row.gradient) held.WriteGradient(ready);
}

}  // namespace cuda
}  // namespace keras_kd

#endif  // KERAS_KD_CSRC_CUDA_WARP_ROWS_CUH_
