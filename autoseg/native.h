// Threads, for the C++ that `native.py` builds.
//
// Memory may run out anywhere. An exception that left a thread of OpenMP, or a function called from Python, would end
// the process: it is caught in each, and the function returns 1, of which Python makes a MemoryError.

#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <new>

// How many threads have something to do.
inline int busy(int threads, int64_t count) { return std::max<int64_t>(1, std::min<int64_t>(threads, count)); }

// Calls work(first, end, thread) in every thread that has something to do, for its part of `count` things.
template <class Work>
inline void in_threads(int most, int64_t count, const Work& work) {
  const int threads = busy(most, count);
  std::atomic<bool> failed{false};
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int thread = 0; thread < threads; ++thread) {
    try {
      work(count * thread / threads, count * (thread + 1) / threads, thread);
    } catch (...) {
      failed = true;
    }
  }
  if (failed) throw std::bad_alloc();
}

// What a function returns that does this work: 0, or 1 without the memory for it.
template <class Work>
inline int status(const Work& work) {
  try {
    work();
  } catch (...) {
    return 1;
  }
  return 0;
}
