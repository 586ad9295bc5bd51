// Rows that fit the registers of a warp, or of a part of one: up to 1024 classes.
//
// Some threads (a power of two) hold a row, up to kCount columns each, so every byte is read once
// and written once: 12 bytes a class in float, 6 in 16-bit types. Exponentials stay in registers: 2
// a class, 3 with a hard loss at T != 1. No shared memory, no barrier.
#ifndef KERAS_KD_CSRC_CUDA_WARP_ROWS_CUH_
#define KERAS_KD_CSRC_CUDA_WARP_ROWS_CUH_

#include "lanes.cuh"
#include "row.cuh"

namespace keras_kd {
namespace cuda {

constexpr int kWarpRowThreads = 4 * kWarp;
// Blocks that a multiprocessor should hold: three leave 168 registers to a thread, with which
// Jensen-Shannon, of two sums, and gradients of two types would spill.
template <typename T, Divergence kDivergence>
constexpr int kWarpRowBlocks =
    std::is_same_v<T, float> && kDivergence != Divergence::kJensenShannon ? 3 : 2;

template <typename T, Divergence kDivergence, int kCount>
struct WarpRow {
  static constexpr int kPiece = kPieceOf<T>;
  static constexpr int kPieces = kCount / kPiece;

  const Row<T>& row;
  int lane, lanes;
  // How many pieces each thread has, the same in the whole warp, so that nothing is spent on those
  // that no row of this length has.
  int pieces;
  float student[kCount], teacher[kCount];  // exponentials: q and p, without their scale
  float ratio[kCount];                     // log p - log q; then the score
  float hard[kCount];                      // exponentials at T = 1
  Sums sums;

  __device__ WarpRow(const Row<T>& row, int lane, int lanes) : row(row), lane(lane), lanes(lanes) {
    const int classes = static_cast<int>(row.task.problem.classes);
    pieces = (Grid<kPiece>::PiecesOf(classes) + lanes - 1) / lanes;
  }

  __device__ __forceinline__ int Piece(int k) const { return lane + lanes * k; }
  __device__ __forceinline__ bool Has(int i) const {
    const int piece = Piece(i / kPiece);
    return row.Active() && piece < row.grid.Pieces() && row.grid.Has(piece, i % kPiece);
  }

  // Calls body(i) for the columns of the pieces that rows of this length have.
  template <typename Body>
  __device__ __forceinline__ void ForColumns(Body body) {
#pragma unroll
    for (int k = 0; k < kPieces; ++k) {
      if (k >= pieces) continue;
#pragma unroll
      for (int j = 0; j < kPiece; ++j) body(k * kPiece + j);
    }
  }

  __device__ void Load() {
#pragma unroll
    for (int k = 0; k < kPieces; ++k) {
      float s[kPiece], t[kPiece];
#pragma unroll
      for (int j = 0; j < kPiece; ++j) s[j] = t[j] = -kInfinity;
      if (row.Active() && Piece(k) < row.grid.Pieces()) row.Load(Piece(k), s, t);
#pragma unroll
      for (int j = 0; j < kPiece; ++j) {
        student[k * kPiece + j] = s[j];
        teacher[k * kPiece + j] = t[j];
      }
    }
  }

  __device__ void FindLargest() {
    float s = -kInfinity, t = -kInfinity;
    ForColumns([&](int i) {
      s = fmaxf(s, student[i]);
      t = fmaxf(t, teacher[i]);
    });
    sums.student_largest = OverLanes<Largest>(s, lanes);
    sums.teacher_largest = OverLanes<Largest>(t, lanes);
  }

  // Replaces the logits by their exponentials and differences.
  __device__ void Exponentials() {
    const float scale = kLog2E / row.temperature;
    const bool own_hard = row.OwnHard();
    const Comparison compare = Comparison::Of(sums);
    float student_sum = 0.0f, teacher_sum = 0.0f, hard_sum = 0.0f;
    ForColumns([&](int i) {
      const float s = student[i], t = teacher[i];
      const float from_student = s - sums.student_largest, from_teacher = t - sums.teacher_largest;
      ratio[i] = compare(s, t);
      const bool has = Has(i);
      student[i] = has ? exp2f(from_student * scale) : 0.0f;
      teacher[i] = has ? exp2f(from_teacher * scale) : 0.0f;
      hard[i] = student[i];
      if (own_hard) hard[i] = has ? exp2f(from_student * kLog2E) : 0.0f;
      student_sum += student[i];
      teacher_sum += teacher[i];
      hard_sum += hard[i];
    });
    sums.student = OverLanes<Add>(student_sum, lanes);
    sums.teacher = OverLanes<Add>(teacher_sum, lanes);
    sums.hard = OverLanes<Add>(hard_sum, lanes);
  }

  // Leaves the soft gradient, without its factor, in `ratio`; returns the divergence.
  __device__ float Diverge(const ReadyRow<kDivergence>& ready, float* mean_score) {
    float first = 0.0f, second = 0.0f;
    ForColumns([&](int i) {
      const float q = student[i] * ready.student_scale, p = teacher[i] * ready.teacher_scale;
      const float d = ready.LogRatio(ratio[i]);
      float a = 0.0f, b = 0.0f;
      const float score = ready.Add(p, q, d, &a, &b);
      const bool has = Has(i);
      ratio[i] = has ? score : 0.0f;
      first += has ? a : 0.0f;
      second += has ? b : 0.0f;
    });
    first = OverLanes<Add>(first, lanes);
    second = OverLanes<Add>(second, lanes);
    const float mean = *mean_score = ready.MeanScore(first, second);
    if constexpr (kDivergence != Divergence::kForwardKl) {
      ForColumns([&](int i) {
        ratio[i] = ready.Centered(student[i] * ready.student_scale, ratio[i], mean);
      });
    }
    return ready.Loss(first, second);
  }

  __device__ void WriteGradient(const ReadyRow<kDivergence>& ready) {
#pragma unroll
    for (int k = 0; k < kPieces; ++k) {
      if (Piece(k) >= row.grid.Pieces()) continue;
      float values[kPiece];
#pragma unroll
      for (int j = 0; j < kPiece; ++j) {
        const int i = k * kPiece + j;
        const int column = row.grid.Column(Piece(k), j);
        values[j] = row.Gradient(ready, ratio[i], hard[i], sums.hard, column);
      }
      row.Store(Piece(k), values);
    }
  }
};

template <typename T, Divergence kDivergence, int kCount>
__global__ void __launch_bounds__(kWarpRowThreads, kWarpRowBlocks<T, kDivergence>)
    WarpRows(Task task, int lanes) {
  const int thread = static_cast<int>(threadIdx.x);
  const int lane = thread % lanes;
  const int64_t index =
      static_cast<int64_t>(blockIdx.x) * (kWarpRowThreads / lanes) + thread / lanes;
  const Row<T> row(task, index);
  WarpRow<T, kDivergence, kCount> held(row, lane, lanes);
  held.Load();
  held.FindLargest();
  held.Exponentials();
  const auto ready = row.template Ready<kDivergence>(held.sums);
  float mean_score;
  const float divergence = held.Diverge(ready, &mean_score);
  if (!row.exists) return;
  if (!row.Active()) {
    if (lane == 0) row.WriteZeroLosses();
    return row.WriteZeroGradient(lane, lanes, row.grid.Pieces());
  }
  if (lane == 0) row.WriteLosses(held.sums, divergence, mean_score);
  if (row.gradient) held.WriteGradient(ready);
}

}  // namespace cuda
}  // namespace keras_kd

#endif  // KERAS_KD_CSRC_CUDA_WARP_ROWS_CUH_
