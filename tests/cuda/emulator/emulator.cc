#include "emulator.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
// ThreadSanitizer should watch the kernel's threads, not the scheduler that plays them all: this
// file is compiled without it, and knows of it by EMULATOR_TSAN.
#if defined(__SANITIZE_THREAD__)
#error "Compile this file without -fsanitize=thread and with -DEMULATOR_TSAN"
#endif
#if defined(EMULATOR_TSAN)
#include <sanitizer/tsan_interface.h>
#endif

#if !defined(__x86_64__)
#error "The switch of fibers is written for x86-64"
#endif

// Saves what the calling convention makes the callee keep, and exchanges the stacks.
asm(R"(
.text
.globl emulator_switch
.type emulator_switch, @function
emulator_switch:
  push %rbp
  push %rbx
  push %r12
  push %r13
  push %r14
  push %r15
  mov %rsp, (%rdi)
  mov %rsi, %rsp
  pop %r15
  pop %r14
  pop %r13
  pop %r12
  pop %rbx
  pop %rbp
  ret
.size emulator_switch, . - emulator_switch
)");
extern "C" void emulator_switch(void** save, void* load);

emulator::Index threadIdx, blockIdx, blockDim;

namespace emulator {
namespace {

constexpr size_t kStackBytes = 64 << 10;
constexpr int kWarp = 32;

enum class State { kReady, kAtBarrier, kAtWarpCall, kDone };

struct Fiber {
  Index index;
  int lane, warp;
  State state;
  void* stack_pointer;
  std::unique_ptr<char[]> stack;
  void* fake_stack = nullptr;  // AddressSanitizer's
  void* tsan = nullptr;
  // The warp-wide call or barrier it waits at.
  Place place;
  WarpCall call;
  unsigned mask;
  uint64_t value, result;
  int argument;
};

Order order = Order::kForward;
std::mt19937 random_order;
size_t max_shared_memory = 227 << 10;

const std::function<void()>* body;
std::vector<Fiber> fibers;
Fiber* running;
void* scheduler_stack;
std::string failure;
std::unique_ptr<char[]> shared_memory;
size_t shared_size;

// For the sanitizers: the scheduler's side of a switch.
[[maybe_unused]] void* scheduler_fake_stack;
[[maybe_unused]] const void* scheduler_bottom;
[[maybe_unused]] size_t scheduler_size;
[[maybe_unused]] void* scheduler_tsan;
char start_tag, end_tag, barrier_tag, warp_tags[1024 / kWarp];

#if defined(EMULATOR_TSAN)
// Each thread of a kernel is a thread to TSan, ordered with the others by barriers only.
void Acquire(void* tag) { __tsan_acquire(tag); }
void Release(void* tag) { __tsan_release(tag); }
#else
void Acquire(void*) {}
void Release(void*) {}
#endif

// What the threads of a block have used. To ThreadSanitizer the threads of two blocks are not
// ordered, so that races between blocks are seen: there, nothing is used again before the end of
// the launch. Then it is: making and destroying its threads took two thirds of the test's time.
std::vector<std::unique_ptr<char[]>> used;
struct Identity {  // of a thread
  void* tsan;
  std::unique_ptr<char[]> stack;
};
std::vector<Identity> used_identities, idle_identities;

void Retire(std::unique_ptr<char[]> memory) {
#if defined(EMULATOR_TSAN)
  used.push_back(std::move(memory));
#else
  memory.reset();
#endif
}

#if defined(EMULATOR_TSAN)
void RetireIdentity(Fiber& fiber) {
  if (fiber.stack) used_identities.push_back({fiber.tsan, std::move(fiber.stack)});
}

void TakeIdentity(Fiber& fiber) {
  RetireIdentity(fiber);
  if (idle_identities.empty()) {
    idle_identities.push_back(
        {__tsan_create_fiber(0), std::unique_ptr<char[]>(new char[kStackBytes])});
  }
  fiber.tsan = idle_identities.back().tsan;
  fiber.stack = std::move(idle_identities.back().stack);
  idle_identities.pop_back();
}

void EndIdentities() {
  for (Fiber& fiber : fibers) RetireIdentity(fiber);
  for (Identity& identity : used_identities) {
    // After a failure threads have stopped in the middle of their functions.
    if (failure.empty()) {
      idle_identities.push_back(std::move(identity));
    } else {
      __tsan_destroy_fiber(identity.tsan);
    }
  }
  used_identities.clear();
}
#else
void EndIdentities() {}
#endif

void EndOfLaunch() {
  Acquire(&end_tag);
  used.clear();
  EndIdentities();
}

void ToScheduler(bool dying) {
  Fiber& fiber = *running;
  (void)dying;
#if defined(EMULATOR_TSAN)
  __tsan_switch_to_fiber(scheduler_tsan, __tsan_switch_to_fiber_no_sync);
#endif
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(dying ? nullptr : &fiber.fake_stack, scheduler_bottom,
                                 scheduler_size);
#endif
  emulator_switch(&fiber.stack_pointer, scheduler_stack);
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(fiber.fake_stack, &scheduler_bottom, &scheduler_size);
#endif
}

void Resume(Fiber& fiber) {
  running = &fiber;
  threadIdx = fiber.index;
#if defined(EMULATOR_TSAN)
  __tsan_switch_to_fiber(fiber.tsan, __tsan_switch_to_fiber_no_sync);
#endif
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(&scheduler_fake_stack, fiber.stack.get(), kStackBytes);
#endif
  emulator_switch(&scheduler_stack, fiber.stack_pointer);
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(scheduler_fake_stack, nullptr, nullptr);
#endif
}

void Fail(const std::string& what) {
  if (failure.empty()) failure = what;
}

extern "C" void emulator_entry() {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(nullptr, &scheduler_bottom, &scheduler_size);
#endif
  Acquire(&start_tag);
  try {
    (*body)();
  } catch (const std::exception& error) {
    Fail(error.what());
  }
  Release(&end_tag);
  running->state = State::kDone;
  ToScheduler(true);
  std::abort();  // a thread that has returned is never resumed
}

std::string Where(const Fiber& fiber) {
  const auto text = [](const Index& i) {
    return "(" + std::to_string(i.x) + "," + std::to_string(i.y) + "," + std::to_string(i.z) + ")";
  };
  std::string where = "block " + text(blockIdx) + " thread " + text(fiber.index);
  if (fiber.state == State::kDone) return where + " has returned";
  if (fiber.state == State::kReady) return where;
  where += fiber.state == State::kAtBarrier ? " at the barrier of " : " at the warp-wide call of ";
  return where + fiber.place.file + ":" + std::to_string(fiber.place.line);
}

// Lets the block pass its barrier once all threads have reached it. On the GPU a thread that has
// returned counts as arrived (sm_70 and later).
void TryBarrier() {
  const Fiber* first = nullptr;
  for (const Fiber& fiber : fibers) {
    if (fiber.state == State::kDone) continue;
    if (fiber.state != State::kAtBarrier) return;
    if (!first) first = &fiber;
    if (fiber.place.line != first->place.line) {
      return Fail("threads meet at different barriers: " + Where(*first) + "; " + Where(fiber));
    }
  }
  for (Fiber& fiber : fibers) {
    if (fiber.state == State::kAtBarrier) fiber.state = State::kReady;
  }
}

Fiber* Lane(int warp, int lane) {
  const size_t i = static_cast<size_t>(warp * kWarp + lane);
  return i < fibers.size() ? &fibers[i] : nullptr;
}

// Carries out a warp-wide call once all lanes of its mask have come.
void TryWarpCall(const Fiber& arrived) {
  std::vector<Fiber*> lanes;
  for (int i = 0; i < kWarp; ++i) {
    if (!(arrived.mask >> i & 1u)) continue;
    Fiber* lane = Lane(arrived.warp, i);
    if (!lane || lane->state == State::kDone) {
      return Fail("a warp-wide call waits for lane " + std::to_string(i) +
                  ", which is not there: " + Where(arrived));
    }
    if (lane->state != State::kAtWarpCall || lane->mask != arrived.mask) return;
    if (lane->call != arrived.call || lane->place.line != arrived.place.line) {
      return Fail("lanes meet at different calls: " + Where(arrived) + "; " + Where(*lane));
    }
    lanes.push_back(lane);
  }
  for (Fiber* lane : lanes) {
    if (lane->call == WarpCall::kSync) continue;
    const int from =
        lane->call == WarpCall::kShuffleXor ? lane->lane ^ lane->argument : lane->argument % kWarp;
    if (from < 0 || from >= kWarp || !(lane->mask >> from & 1u)) {
      return Fail("a shuffle reads lane " + std::to_string(from) +
                  ", which takes no part: " + Where(*lane));
    }
    lane->result = Lane(lane->warp, from)->value;
  }
  for (Fiber* lane : lanes) lane->state = State::kReady;
}

void PrepareFiber(Fiber& fiber, int number, Index block) {
  const unsigned n = static_cast<unsigned>(number);
  fiber.index = {n % block.x, n / block.x % block.y, n / (block.x * block.y)};
  fiber.lane = number % kWarp;
  fiber.warp = number / kWarp;
  fiber.state = State::kReady;
  fiber.fake_stack = nullptr;
#if defined(EMULATOR_TSAN)
  TakeIdentity(fiber);
#endif
  if (!fiber.stack) fiber.stack.reset(new char[kStackBytes]);
#if defined(__SANITIZE_ADDRESS__)
  __asan_unpoison_memory_region(fiber.stack.get(), kStackBytes);  // of the thread before
#endif
  // The stack as emulator_switch leaves it: six registers, and where to go on. At entry of a
  // function the stack is 8 bytes past a multiple of 16.
  const uintptr_t top = reinterpret_cast<uintptr_t>(fiber.stack.get() + kStackBytes) / 16 * 16;
  void** at = reinterpret_cast<void**>(top);
  *--at = nullptr;
  *--at = reinterpret_cast<void*>(&emulator_entry);
  for (int i = 0; i < 6; ++i) *--at = nullptr;
  fiber.stack_pointer = at;
}

void RunThread(Fiber& fiber) {
  Resume(fiber);
  if (fiber.state != State::kDone) return;
  TryBarrier();
  for (int i = 0; i < kWarp; ++i) {
    Fiber* lane = Lane(fiber.warp, i);
    if (lane && lane->state == State::kAtWarpCall && (lane->mask >> fiber.lane & 1u)) {
      return TryWarpCall(*lane);
    }
  }
}

// One turn for each of these threads that can go on; whether any could.
bool RunTurns(const std::vector<size_t>& turns) {
  bool any = false;
  for (size_t i : turns) {
    if (fibers[i].state != State::kReady || !failure.empty()) continue;
    any = true;
    RunThread(fibers[i]);
  }
  return any;
}

void RunBlock(Index block) {
  Retire(std::move(shared_memory));
  shared_memory.reset(new char[shared_size]);
  std::memset(shared_memory.get(), 0xff, shared_size);
  std::vector<size_t> turns(fibers.size());
  for (size_t i = 0; i < turns.size(); ++i) {
    PrepareFiber(fibers[i], static_cast<int>(i), block);
    turns[i] = order == Order::kReverse ? turns.size() - 1 - i : i;
  }
  Release(&start_tag);
  ++Count().blocks;
  const size_t warps = (fibers.size() + kWarp - 1) / kWarp;
  for (bool any = true; any;) {
    any = false;
    if (order == Order::kRandom) std::shuffle(turns.begin(), turns.end(), random_order);
    if (order != Order::kWarps) any = RunTurns(turns);
    for (size_t warp = warps; order == Order::kWarps && warp-- > 0;) {
      const auto first = turns.begin() + static_cast<std::ptrdiff_t>(warp * kWarp);
      const auto last =
          turns.begin() + static_cast<std::ptrdiff_t>(std::min((warp + 1) * kWarp, turns.size()));
      const std::vector<size_t> lanes(first, last);
      while (RunTurns(lanes)) any = true;
    }
  }
  for (const Fiber& fiber : fibers) {
    if (fiber.state != State::kDone) Fail("the block hangs: " + Where(fiber));
  }
}

}  // namespace

Counters& Count() {
  static Counters counters{};
  return counters;
}

void SetOrder(Order wanted, unsigned seed) {
  order = wanted;
  random_order.seed(seed);
}

void SetMaxSharedMemory(size_t bytes) { max_shared_memory = bytes; }
size_t MaxSharedMemory() { return max_shared_memory; }

void SyncBlock(Place place) {
  Fiber& fiber = *running;
  fiber.state = State::kAtBarrier;
  fiber.place = place;
  ++Count().barriers;
  Release(&barrier_tag);
  TryBarrier();
  ToScheduler(false);
  Acquire(&barrier_tag);
}

uint64_t SyncLanes(WarpCall call, unsigned mask, uint64_t value, int argument, Place place) {
  Fiber& fiber = *running;
  fiber.state = State::kAtWarpCall;
  fiber.call = call;
  fiber.mask = mask;
  fiber.value = value;
  fiber.argument = argument;
  fiber.place = place;
  ++Count().warp_calls;
  if (!(mask >> fiber.lane & 1u)) {
    Fail("a lane calls with a mask that leaves it out: " + Where(fiber));
  }
  // A shuffle orders no memory; __syncwarp does.
  void* tag = &warp_tags[fiber.warp];
  if (call == WarpCall::kSync) Release(tag);
  TryWarpCall(fiber);
  ToScheduler(false);
  if (call == WarpCall::kSync) Acquire(tag);
  return fiber.result;
}

void* DynamicShared() { return shared_memory.get(); }

void Launch(Index grid, Index block, size_t shared_bytes, const std::function<void()>& kernel) {
  body = &kernel;
  shared_size = shared_bytes;
  failure.clear();
  const size_t threads = size_t{block.x} * block.y * block.z;
  if (fibers.size() != threads) {
    fibers.clear();
    fibers.resize(threads);
  }
  blockDim = block;
  Count().threads += threads * grid.x * grid.y * grid.z;
#if defined(EMULATOR_TSAN)
  scheduler_tsan = __tsan_get_current_fiber();
#endif
  for (blockIdx.z = 0; blockIdx.z < grid.z; ++blockIdx.z) {
    for (blockIdx.y = 0; blockIdx.y < grid.y; ++blockIdx.y) {
      for (blockIdx.x = 0; blockIdx.x < grid.x; ++blockIdx.x) {
        RunBlock(block);
        if (!failure.empty()) {
          EndOfLaunch();
          throw Error(failure);
        }
      }
    }
  }
  EndOfLaunch();
}

}  // namespace emulator
