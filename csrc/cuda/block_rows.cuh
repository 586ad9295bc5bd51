// Rows that do not fit a warp's registers: a block a row.
//
// kCached: both rows stay in shared memory between the sweeps, so they are read once; largest
// logits first, then sums (no rescaling): 4 exponentials a class for forward KL, 6 with a hard loss
// at T != 1. Otherwise (streamed) the first sweep finds both at once, and the rows are read again
// from L2 or DRAM.
// Each thread keeps to its own pieces, so the cache needs no barrier.
#ifndef KERAS_KD_CSRC_CUDA_BLOCK_ROWS_CUH_
#define KERAS_KD_CSRC_CUDA_BLOCK_ROWS_CUH_

#include "lanes.cuh"
#include "online_sum.cuh"
#include "row.cuh"

namespace keras_kd {
namespace cuda {

// Pieces of logits in shared memory, in their own type (what was widened narrows back exactly). 16
// bytes of each piece lie beside those of the next one, so that the threads of a warp meet no bank
// twice.
template <int kPiece>
struct Cache {
  char* base;
  int pieces;

  static __device__ __host__ int64_t Bytes(int64_t pieces, DataType type) {
    return pieces * kPiece * (type == DataType::kFloat32 ? 4 : 2);
  }
  template <typename T>
  __device__ __forceinline__ void Keep(int piece, const float (&values)[kPiece]) const {
    Packet<T, kPiece> packet;
#pragma unroll
    for (int i = 0; i < kPiece; ++i) Narrow(values[i], packet.values + i);
    if constexpr (packet.kBytes == 8) {
      reinterpret_cast<uint2*>(base)[piece] = packet.half;
    } else {
#pragma unroll
      for (int i = 0; i < packet.kBytes / 16; ++i) {
        reinterpret_cast<uint4*>(base)[i * pieces + piece] = packet.whole[i];
      }
    }
  }
  template <typename T>
  __device__ __forceinline__ void Recall(int piece, float (&values)[kPiece]) const {
    Packet<T, kPiece> packet;
    if constexpr (packet.kBytes == 8) {
      packet.half = reinterpret_cast<const uint2*>(base)[piece];
    } else {
#pragma unroll
      for (int i = 0; i < packet.kBytes / 16; ++i) {
        packet.whole[i] = reinterpret_cast<const uint4*>(base)[i * pieces + piece];
      }
    }
#pragma unroll
    for (int i = 0; i < kPiece; ++i) values[i] = Widen(packet.values[i]);
  }
};

// Shared memory of a block: slots of reductions, then the cached rows.
constexpr int64_t kSlotBytes = kSlotFloats * static_cast<int64_t>(sizeof(float));
template <typename T>
int64_t CachedBytes(const Problem& problem) {
  using RowCache = Cache<kPieceOf<T>>;
  const int64_t pieces = Grid<kPieceOf<T>>::PiecesOf(static_cast<int>(problem.classes));
  return kSlotBytes + RowCache::Bytes(pieces, problem.student_type) +
         RowCache::Bytes(pieces, problem.teacher_type);
}

// What a block computes of a row: its pieces from `begin` to before `end`.
template <typename T, bool kCached>
struct BlockRow {
  static constexpr int kPiece = kPieceOf<T>;

  const Row<T>& row;
  int begin, end;
  float* slots;
  Cache<kPiece> student, teacher;
  Sums sums;

  __device__ BlockRow(const Row<T>& row, float* shared, int begin, int end)
      : row(row), begin(begin), end(end), slots(shared) {
    const int pieces = row.grid.Pieces();
    student = {reinterpret_cast<char*>(shared + kSlotFloats), pieces};
    teacher = {student.base + pieces * 16, pieces};
  }

  // Calls body(piece, s, t) for this thread's pieces, the last one first if `backwards`: what a
  // sweep read last is the likeliest to be in a cache still.
  template <typename Body>
  __device__ void Sweep(bool first, Body body) {
    const int step = static_cast<int>(blockDim.x);
    const int start = begin + static_cast<int>(threadIdx.x);
    const int count = start < end ? (end - start + step - 1) / step : 0;
    for (int k = 0; k < count; ++k) {
      const int piece = start + step * (first ? k : count - 1 - k);
      float s[kPiece], t[kPiece];
      if (kCached && !first) {
        Recall(piece, s, t);
      } else {
        row.Load(piece, s, t);
        if (kCached) Keep(piece, s, t);
      }
      body(piece, s, t);
    }
  }
  __device__ void Keep(int piece, const float (&s)[kPiece], const float (&t)[kPiece]) const {
    student.template Keep<T>(piece, s);
    WithType(row.task.problem.teacher_type, nullptr,
             [&](auto* type) { teacher.template Keep<Plain<decltype(type)>>(piece, t); });
  }
  __device__ void Recall(int piece, float (&s)[kPiece], float (&t)[kPiece]) const {
    student.template Recall<T>(piece, s);
    WithType(row.task.problem.teacher_type, nullptr,
             [&](auto* type) { teacher.template Recall<Plain<decltype(type)>>(piece, t); });
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
    Sweep(true, [&](int, const float (&s)[kPiece], const float (&t)[kPiece]) {
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
    const float scale = kLog2E / row.temperature;
    const bool own_hard = row.OwnHard();
    float sum[3] = {0.0f, 0.0f, 0.0f};
    Sweep(false, [&](int piece, const float (&s)[kPiece], const float (&t)[kPiece]) {
#pragma unroll
      for (int i = 0; i < kPiece; ++i) {
        if (!row.grid.Has(piece, i)) continue;
        sum[0] += exp2f((s[i] - sums.student_largest) * scale);
        sum[1] += exp2f((t[i] - sums.teacher_largest) * scale);
        if (own_hard) sum[2] += HardExp(s[i], sums.student_largest);
      }
    });
    OverBlock<Add>(sum, slots);
    SetSums(sum);
  }

  __device__ void FindOnline() {
    const float scale = kLog2E / row.temperature;
    const bool own_hard = row.OwnHard();
    OnlineSum student_sum, teacher_sum, hard_sum;
    Sweep(true, [&](int, const float (&s)[kPiece], const float (&t)[kPiece]) {
      student_sum.Add(s, scale);
      teacher_sum.Add(t, scale);
      if (own_hard) hard_sum.Add(s, kLog2E);
    });
    float largest[2] = {student_sum.largest, teacher_sum.largest};
    OverBlock<Largest>(largest, slots);
    sums.student_largest = largest[0];
    sums.teacher_largest = largest[1];
    float sum[3] = {student_sum.At(largest[0], scale), teacher_sum.At(largest[1], scale),
                    hard_sum.At(largest[0], kLog2E)};
    OverBlock<Add>(sum, slots);
    SetSums(sum);
  }

  __device__ void SetSums(const float (&sum)[3]) {
    sums.student = sum[0];
    sums.teacher = sum[1];
    sums.hard = row.OwnHard() ? sum[2] : sum[0];
  }

  // Sums the divergence's two parts over the block's pieces; writes the gradient of the forward KL
  // too.
  template <Divergence kDivergence>
  __device__ void Diverge(const ReadyRow<kDivergence>& ready, float (&parts)[2]) {
    parts[0] = parts[1] = 0.0f;
    Sweep(false, [&](int piece, const float (&s)[kPiece], const float (&t)[kPiece]) {
      float soft[kPiece];
#pragma unroll
      for (int i = 0; i < kPiece; ++i) {
        float a = 0.0f, b = 0.0f;
        soft[i] = ready.AddLogits(s[i], t[i], &a, &b);
        const bool has = row.grid.Has(piece, i);
        parts[0] += has ? a : 0.0f;
        parts[1] += has ? b : 0.0f;
      }
      if (kDivergence == Divergence::kForwardKl && row.gradient) {
        row.WriteGradient(ready, sums, piece, s, soft);
      }
    });
    OverBlock<Add>(parts, slots);
  }

  // The gradient of reverse KL and Jensen-Shannon, which needs the row's mean score first.
  template <Divergence kDivergence>
  __device__ void WriteGradient(const ReadyRow<kDivergence>& ready, float mean_score) {
    Sweep(false, [&](int piece, const float (&s)[kPiece], const float (&t)[kPiece]) {
      float soft[kPiece];
#pragma unroll
      for (int i = 0; i < kPiece; ++i) soft[i] = ready.SoftGradient(s[i], t[i], mean_score);
      row.WriteGradient(ready, sums, piece, s, soft);
    });
  }
};

template <typename T, Divergence kDivergence, bool kCached>
__global__ void __launch_bounds__(kMostThreads, 1) BlockRows(Task task) {
  KERAS_KD_DYNAMIC_SHARED(float, shared);
  const Row<T> row(task, blockIdx.x);
  const int thread = static_cast<int>(threadIdx.x);
  if (!row.Active()) {  // the whole block
    if (thread == 0) row.WriteZeroLosses();
    return row.WriteZeroGradient(thread, static_cast<int>(blockDim.x), row.grid.Pieces());
  }
  BlockRow<T, kCached> held(row, shared, 0, row.grid.Pieces());
  held.FindSums();
  const auto ready = row.template Ready<kDivergence>(held.sums);
  float parts[2];
  held.Diverge(ready, parts);
  const float mean_score = ready.MeanScore(parts[0], parts[1]);
  if (kDivergence != Divergence::kForwardKl && row.gradient) held.WriteGradient(ready, mean_score);
  if (thread == 0) row.WriteLosses(held.sums, ready.Loss(parts[0], parts[1]), mean_score);
}

}  // namespace cuda
}  // namespace keras_kd

#endif  // KERAS_KD_CSRC_CUDA_BLOCK_ROWS_CUH_
