#include "thread_pool.h"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdlib>
#include <deque>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#if defined(__linux__)
#include <pthread.h>
#include <sched.h>
#include <unistd.h>
#endif

namespace keras_kd {
namespace {

using Work = std::function<void(int64_t, int64_t)>;

// Linux may wake a worker on its caller's processor, where the two take turns until the scheduler
// balances the load, a millisecond or two later: on a virtual machine of two processors, after a
// pause of 2 ms, 298 of 300 wake-ups were such, and a kernel of 1.2 ms gained nothing from its
// second thread. So a caller first forbids the workers its own processor. Many processors have
// enough idle ones, and a system call for each worker would cost more than it saves.
constexpr size_t kMostGuided = 7;

#if defined(__linux__)
int CurrentProcessor() { return sched_getcpu(); }

void KeepOff(int processor, const std::vector<std::thread::native_handle_type>& workers) {
  cpu_set_t allowed;
  if (processor < 0 || sched_getaffinity(getpid(), sizeof allowed, &allowed) != 0) return;
  CPU_CLR(processor, &allowed);
  if (CPU_COUNT(&allowed) == 0) return;
  for (auto worker : workers) pthread_setaffinity_np(worker, sizeof allowed, &allowed);
}
#else
int CurrentProcessor() { return -1; }
void KeepOff(int, const std::vector<std::thread::native_handle_type>&) {}
#endif

// Pieces are claimed with a counter, so a thread that is late takes fewer. The job outlives the
// call (shared_ptr): a worker may look at it after the last piece is done.
struct Job {
  Job(int64_t count, int64_t grain, const Work& work) : count(count), grain(grain), work(&work) {}

  void Run() {
    for (;;) {
      const int64_t begin = next.fetch_add(grain, std::memory_order_relaxed);
      if (begin >= count) return;
      const int64_t end = std::min(begin + grain, count);
      (*work)(begin, end);
      Finish(end - begin);
    }
  }
  void Finish(int64_t pieces) {
    if (done.fetch_add(pieces, std::memory_order_acq_rel) + pieces != count) return;
    std::lock_guard<std::mutex> lock(mutex);
    finished.notify_all();
  }
  void Wait() {
    std::unique_lock<std::mutex> lock(mutex);
    finished.wait(lock, [this] { return done.load(std::memory_order_acquire) == count; });
  }

  const int64_t count, grain;
  const Work* work;  // valid until the last piece is done
  std::atomic<int64_t> next{0}, done{0};
  std::mutex mutex;
  std::condition_variable finished;
};

class Pool {
 public:
  // Threads are only added: one that was started for a larger setting sleeps.
  void Submit(const std::shared_ptr<Job>& job, int helpers) {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      Start(helpers);
      Guide();
      for (int i = 0; i < helpers; ++i) jobs_.push_back(job);
    }
    for (int i = 0; i < helpers; ++i) wake_.notify_one();
  }

 private:
  void Start(int helpers) {
    while (workers_.size() < static_cast<size_t>(helpers)) {
      std::thread worker(&Pool::Loop, this);
      workers_.push_back(worker.native_handle());
      worker.detach();  // it never ends, so its handle stays valid
      avoided_ = -1;
    }
  }
  // Once for each processor that the callers move to.
  void Guide() {
    const int here = CurrentProcessor();
    if (here == avoided_ || workers_.size() > kMostGuided) return;
    avoided_ = here;
    KeepOff(here, workers_);
  }
  void Loop() {
    for (;;) {
      std::shared_ptr<Job> job;
      {
        std::unique_lock<std::mutex> lock(mutex_);
        wake_.wait(lock, [this] { return !jobs_.empty(); });
        job = std::move(jobs_.front());
        jobs_.pop_front();
      }
      job->Run();
    }
  }

  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<std::shared_ptr<Job>> jobs_;
  std::vector<std::thread::native_handle_type> workers_;
  int avoided_ = -1;
};

// Never deleted: its threads run until the process ends, also while static objects are destroyed.
std::atomic<Pool*> pool{nullptr};
std::atomic<int> num_threads{0};

// In the child of a fork only the forking thread lives, and the old pool's mutex may be held by a
// thread that is gone: forget that pool.
void ForgetPool() { pool.store(nullptr, std::memory_order_release); }

Pool* ThePool() {
  Pool* current = pool.load(std::memory_order_acquire);
  if (current) return current;
  static const int registered = pthread_atfork(nullptr, nullptr, ForgetPool);
  (void)registered;
  Pool* fresh = new Pool;
  if (pool.compare_exchange_strong(current, fresh)) return fresh;
  delete fresh;  // another thread was first; no thread of this one has started
  return current;
}

int DefaultThreads() {
  if (const char* text = std::getenv("KERAS_KD_NUM_THREADS")) {
    const int threads = std::atoi(text);
    if (threads > 0) return threads;
  }
#if defined(__linux__)
  cpu_set_t mask;
  if (sched_getaffinity(0, sizeof mask, &mask) == 0) return std::max(1, CPU_COUNT(&mask));
#endif
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

}  // namespace

void SetNumThreads(int threads) {
  num_threads.store(threads > 0 ? threads : DefaultThreads(), std::memory_order_relaxed);
}

int NumThreads() {
  if (num_threads.load(std::memory_order_relaxed) == 0) SetNumThreads(0);
  return num_threads.load(std::memory_order_relaxed);
}

void ParallelFor(int64_t count, int64_t grain, const Work& work) {
  if (count <= 0) return;
  const int64_t pieces = (count + grain - 1) / grain;
  const int threads = static_cast<int>(std::min<int64_t>(NumThreads(), pieces));
  if (threads <= 1) return work(0, count);
  const auto job = std::make_shared<Job>(count, grain, work);
  ThePool()->Submit(job, threads - 1);
  job->Run();
  job->Wait();
}

}  // namespace keras_kd
