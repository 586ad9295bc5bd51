// Rows that do not fit a warp's registers: a block a row.
//
// kCached: both rows stay in shared memory between the sweeps, so they are read once; largest
// logits first, then sums (no rescaling). Otherwise the first sweep finds both at once, rescaling
// its sums when a larger logit turns up, and the rows are read again from L2 or DRAM.
// Each thread keeps to its own pieces, so the cache needs no barrier.
#ifndef KERAS_KD_CSRC_CUDA_BLOCK_ROWS_CUH_
#define KERAS_KD_CSRC_CUDA_BLOCK_ROWS_CUH_

#include "row.cuh"
#include "warp_rows.cuh"

namespace keras_kd {
namespace cuda {

constexpr int kBlockThreads = 256;
constexpr int kBlockWarps = kBlockThreads / kWarp;
constexpr int kSlots = 3;  // values reduced at once

// Shared memory of a block: the warps' part of a reduction, then the cache, one plane of float4 for
// each half of each model's pieces (a plane, so that neighbouring threads touch neighbouring 16
// bytes).
constexpr int64_t kReductionBytes = kSlots * kBlockWarps * sizeof(float);
constexpr int64_t kPlanes = 4;
inline __host__ __device__ int64_t SharedBytes(int64_t pieces) {
  return kReductionBytes + pieces * kPlanes * static_cast<int64_t>(sizeof(float4));
}
// The most pieces a row may have, wherever its address lies.
inline __host__ __device__ int64_t MostPieces(int64_t classes) {
  return (classes + 2 * kPiece - 2) / kPiece;
}

struct Add {
  template <int kLanes>
  static __device__ float Lanes(float value) {
    return SumOverLanes<kLanes>(value);
  }
  static constexpr float kNothing = 0.0f;
};
struct Largest {
  template <int kLanes>
  static __device__ float Lanes(float value) {
    return LargestOverLanes<kLanes>(value);
  }
  static constexpr float kNothing = -kInfinity;
};

// Reduces `values` over the block, the same in every thread and in every run.
template <typename Operation, int kCount>
__device__ void OverBlock(float (&values)[kCount], float* slots) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  __syncthreads();  // the slots of the reduction before have been read
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    const float value = Operation::template Lanes<kWarp>(values[i]);
    if (lane == 0) slots[i * kBlockWarps + warp] = value;
  }
  __syncthreads();
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    const float value = lane < kBlockWarps ? slots[i * kBlockWarps + lane] : Operation::kNothing;
    values[i] = Operation::template Lanes<kWarp>(value);
  }
}

// Largest value and sum of exp2((value - largest) * scale), found together.
struct OnlineSum {
  float largest = -kInfinity, sum = 0.0f;

  __device__ void Add(const float (&values)[kPiece], float scale) {
    float next = largest;
#pragma unroll
    for (int i = 0; i < kPiece; ++i) next = fmaxf(next, values[i]);
    if (next != largest) sum = Moved(next, scale);
    largest = next;
#pragma unroll
    for (int i = 0; i < kPiece; ++i) {
      // What is left out of the row is -inf; so is a logit that has no probability.
      if (values[i] != -kInfinity) sum += exp2f((values[i] - largest) * scale);
    }
  }
  // The sum relative to another largest value.
  __device__ float Moved(float to, float scale) const {
    return largest == -kInfinity ? sum : sum * exp2f((largest - to) * scale);
  }
};

template <typename T, Divergence kDivergence, bool kCached>
struct BlockRow {
  const Row<T>& row;
  float* slots;
  float4* cache;
  Sums sums;

  __device__ BlockRow(const Row<T>& row, float* shared)
      : row(row), slots(shared), cache(reinterpret_cast<float4*>(shared + kSlots * kBlockWarps)) {}

  // Calls body(piece, s, t) for this thread's pieces; columns outside of the row are -inf.
  template <typename Body>
  __device__ void Sweep(bool first, Body body) {
    const int64_t pieces = row.Pieces();
    for (int64_t piece = threadIdx.x; piece < pieces; piece += kBlockThreads) {
      float s[kPiece], t[kPiece];
      if (first || !kCached) {
        LoadPiece(row.student, row.grid, piece, -kInfinity, s);
        row.teacher.Load(row.grid, piece, -kInfinity, t);
      }
      if (kCached && first) {
        Keep(0, piece, s);
        Keep(2, piece, t);
      } else if (kCached) {
        Recall(0, piece, s);
        Recall(2, piece, t);
      }
      body(piece, s, t);
    }
  }
  __device__ void Keep(int plane, int64_t piece, const float (&v)[kPiece]) {
    const int64_t pieces = row.Pieces();
    cache[plane * pieces + piece] = make_float4(v[0], v[1], v[2], v[3]);
    cache[(plane + 1) * pieces + piece] = make_float4(v[4], v[5], v[6], v[7]);
  }
  __device__ void Recall(int plane, int64_t piece, float (&v)[kPiece]) const {
    const int64_t pieces = row.Pieces();
    const float4 a = cache[plane * pieces + piece], b = cache[(plane + 1) * pieces + piece];
    v[0] = a.x, v[1] = a.y, v[2] = a.z, v[3] = a.w;
    v[4] = b.x, v[5] = b.y, v[6] = b.z, v[7] = b.w;
  }

  __device__ void FindSums() {
    if constexpr (kCached) {
      FindLargest();
      SumExponentials();
    } else {
      FindOnline();
    }
  }

  __device__ void FindLargest() {
    float largest[2] = {-kInfinity, -kInfinity};
    Sweep(true, [&](int64_t, const float (&s)[kPiece], const float (&t)[kPiece]) {
#pragma unroll
      for (int i = 0; i < kPiece; ++i) {
        largest[0] = fmaxf(largest[0], s[i]);
        largest[1] = fmaxf(largest[1], t[i]);
      }
    });
    OverBlock<Largest>(largest, slots);
    sums.student_largest = largest[0];
    sums.teacher_largest = largest[1];
  }

  __device__ void SumExponentials() {
    const float scale = kLog2E / row.problem.temperature;
    const bool own_hard = row.OwnHard();
    float sum[3] = {0.0f, 0.0f, 0.0f};
    Sweep(false, [&](int64_t piece, const float (&s)[kPiece], const float (&t)[kPiece]) {
#pragma unroll
      for (int i = 0; i < kPiece; ++i) {
        if (!row.grid.Has(row.grid.Column(piece) + i)) continue;
        sum[0] += exp2f((s[i] - sums.student_largest) * scale);
        sum[1] += exp2f((t[i] - sums.teacher_largest) * scale);
        if (own_hard) sum[2] += HardExp(s[i], sums.student_largest);
      }
    });
    OverBlock<cuda::Add>(sum, slots);
    SetSums(sum);
  }

  __device__ void FindOnline() {
    const float scale = kLog2E / row.problem.temperature;
    const bool own_hard = row.OwnHard();
    OnlineSum student, teacher, hard;
    Sweep(true, [&](int64_t, const float (&s)[kPiece], const float (&t)[kPiece]) {
      student.Add(s, scale);
      teacher.Add(t, scale);
      if (own_hard) hard.Add(s, kLog2E);
    });
    float largest[2] = {student.largest, teacher.largest};
    OverBlock<Largest>(largest, slots);
    sums.student_largest = largest[0];
    sums.teacher_largest = largest[1];
    float sum[3] = {student.Moved(largest[0], scale), teacher.Moved(largest[1], scale),
                    hard.Moved(largest[0], kLog2E)};
    OverBlock<cuda::Add>(sum, slots);
    SetSums(sum);
  }

  __device__ void SetSums(const float (&sum)[3]) {
    sums.student = sum[0];
    sums.teacher = sum[1];
    sums.hard = row.OwnHard() ? sum[2] : sum[0];
  }

  // The sweep that sums the divergence; it writes the gradient of the forward KL too.
  __device__ float Diverge(const ReadyRow<kDivergence>& ready) {
    float parts[2] = {0.0f, 0.0f};
    Sweep(false, [&](int64_t piece, const float (&s)[kPiece], const float (&t)[kPiece]) {
      float soft[kPiece];
#pragma unroll
      for (int i = 0; i < kPiece; ++i) {
        float a = 0.0f, b = 0.0f;
        soft[i] = ready.AddLogits(s[i], t[i], &a, &b);
        const bool has = row.grid.Has(row.grid.Column(piece) + i);
        parts[0] += has ? a : 0.0f;
        parts[1] += has ? b : 0.0f;
      }
      if (kDivergence == Divergence::kForwardKl && row.gradient) WritePiece(ready, piece, s, soft);
    });
    OverBlock<cuda::Add>(parts, slots);
    if (kDivergence != Divergence::kForwardKl && row.gradient) {
      WriteCentred(ready, ready.MeanScore(parts[0], parts[1]));
    }
    return ready.Loss(parts[0], parts[1]);
  }

  // Gradients of reverse KL and JSD, which need the row's sum first.
  __device__ void WriteCentred(const ReadyRow<kDivergence>& ready, float mean) {
    Sweep(false, [&](int64_t piece, const float (&s)[kPiece], const float (&t)[kPiece]) {
      float soft[kPiece];
#pragma unroll
      for (int i = 0; i < kPiece; ++i) {
        float a = 0.0f, b = 0.0f;
        const float score = ready.AddLogits(s[i], t[i], &a, &b);
        soft[i] = ready.Centred(ready.StudentExp(s[i]) * ready.student_scale, score, mean);
      }
      WritePiece(ready, piece, s, soft);
    });
  }

  __device__ void WritePiece(const ReadyRow<kDivergence>& ready, int64_t piece,
                             const float (&s)[kPiece], const float (&soft)[kPiece]) {
    const bool own_hard = row.OwnHard();
    float values[kPiece];
#pragma unroll
    for (int i = 0; i < kPiece; ++i) {
      const float hard = own_hard ? HardExp(s[i], sums.student_largest) : ready.StudentExp(s[i]);
      values[i] = row.Gradient(ready, soft[i], hard, sums.hard, row.grid.Column(piece) + i);
    }
    StorePiece(row.gradient, row.grid, piece, values);
  }
};

template <typename T, Divergence kDivergence, bool kCached>
__global__ void __launch_bounds__(kBlockThreads) BlockRows(Problem problem) {
  KERAS_KD_DYNAMIC_SHARED(float, shared);
  const Row<T> row(problem, blockIdx.x);
  const int thread = static_cast<int>(threadIdx.x);
  if (!row.Active()) return row.WriteZeros(thread, kBlockThreads);  // the whole block
  BlockRow<T, kDivergence, kCached> held(row, shared);
  held.FindSums();
  const auto ready =
      ReadyRow<kDivergence>::Of(problem, held.sums, row.soft_weight, row.hard_weight);
  const float divergence = held.Diverge(ready);
  if (thread == 0) row.WriteLosses(held.sums, divergence);
}

}  // namespace cuda
}  // namespace keras_kd

#endif  // KERAS_KD_CSRC_CUDA_BLOCK_ROWS_CUH_
