// Runs CUDA kernels on the CPU, one fiber a thread, one block at a time; see README.md.
//
// A fiber runs until it meets a barrier or a warp-wide call, or returns. What threads may not do is
// an error with the place of each thread concerned: lanes that meet at different calls, a shuffle
// from a lane that takes no part, barriers that not all threads reach.
#ifndef KERAS_KD_TESTS_CUDA_EMULATOR_EMULATOR_H_
#define KERAS_KD_TESTS_CUDA_EMULATOR_EMULATOR_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <stdexcept>
#include <string>

namespace emulator {

struct Index {
  unsigned x, y, z;
};

// Where a call stands in the source of the kernel.
struct Place {
  const char* file;
  int line;
};

struct Error : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// In which order the threads of a block take turns: all in a row, from barrier or warp-wide call to
// the next one; or (kWarps) a warp as far as it gets, the last one first. Results may not depend on
// it.
enum class Order { kForward, kReverse, kRandom, kWarps };
void SetOrder(Order order, unsigned seed = 0);

// Device limits that a test may set.
void SetMaxSharedMemory(size_t bytes);
size_t MaxSharedMemory();

// Runs body() once for every thread of every block; throws Error.
void Launch(Index grid, Index block, size_t shared_bytes, const std::function<void()>& body);

// Called by the threads of a kernel.
void SyncBlock(Place place);
enum class WarpCall { kSync, kShuffleXor, kShuffleIndex };
// Exchanges 64 bits among the lanes of `mask`: the value of the lane that `argument` names.
uint64_t SyncLanes(WarpCall call, unsigned mask, uint64_t value, int argument, Place place);
// The block's dynamic shared memory: fresh for each block, of exactly the size launched, filled
// with 0xff (NaN).
void* DynamicShared();

// Work done so far, by the counters below.
struct Counters {
  uint64_t blocks, threads, barriers, warp_calls;
};
Counters& Count();

}  // namespace emulator

#endif  // KERAS_KD_TESTS_CUDA_EMULATOR_EMULATOR_H_
