// Curves (see curves.py) and e^x on vectors of floats, in the vector extension that GCC and Clang share.

#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "../../../native.h"

#ifdef __AVX__
#include <immintrin.h>
#endif

constexpr int WIDTH = 8;  // floats of a vector; a machine with narrower ones takes several
constexpr int MAX_PIECES = 8;

typedef float Float __attribute__((vector_size(4 * WIDTH)));
typedef int32_t Int __attribute__((vector_size(4 * WIDTH)));

struct Piece {  // of a curve, see `pieces.table`
  float left, inverse, control, low, high, start, rise, bend;
};

static inline Float load(const float* from) {
  Float out;
  std::memcpy(&out, from, sizeof out);
  return out;
}

static inline void store(float* to, Float x) { std::memcpy(to, &x, sizeof x); }

// The same of at most `left` numbers; those missing are 0.
static inline Float load_some(const float* from, int64_t left) {
  if (left >= WIDTH) return load(from);
  Float out = {};
  std::memcpy(&out, from, left * sizeof(float));
  return out;
}

static inline void store_some(float* to, Float x, int64_t left) {
  std::memcpy(to, &x, (left >= WIDTH ? WIDTH : left) * sizeof(float));
}

static inline Float square_root(Float x) {
#ifdef __AVX__
  return (Float)_mm256_sqrt_ps((__m256)x);
#else
  for (int lane = 0; lane < WIDTH; ++lane) x[lane] = std::sqrt(x[lane]);
  return x;
#endif
}

// e^x of x <= 0 to about 1 ulp, 0 below -87, NaN of NaN. As in Cephes: e^x = 2^n e^r, |r| <= log(2) / 2.
static inline Float exponential(Float x) {
  const float magic = 12582912.0f;  // 1.5 * 2^23: a sum with it has no fraction
  const Float shifted = x * 1.44269504f + magic, n = shifted - magic;
  const Float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  Float y = r * 1.9875691500e-4f + 1.3981999507e-3f;
  y = y * r + 8.3334519073e-3f;
  y = y * r + 4.1665795894e-2f;
  y = y * r + 1.6666665459e-1f;
  y = y * r + 5.0000001201e-1f;
  y = y * (r * r) + r + 1.0f;
  const Float power = (Float)(((Int)shifted - (0x4B400000 - 127)) << 23);
  return x < -87.0f ? Float{} : y * power;
}

template <int K>
struct Curve {
  Piece pieces[K];

  explicit Curve(const Piece* from) { std::copy(from, from + K, pieces); }

  Float value(Float x) const {
    const Point on = locate(x);
    const Float t = on.u / on.reach;
    return on.start + t * (on.rise + (on.rise + on.bend * t));
  }

  // The two divisions, t = u / reach and by root, as one.
  Float slope(Float x) const {
    const Point on = locate(x);
    const Float both = 1.0f / (on.reach * on.root), t = on.u * (on.root * both);
    return (on.rise + on.bend * t) * (on.inverse * on.reach * both);
  }

 private:
  struct Point {  // of the piece stretched to [0, 1]: u its x, root = dx/dt / 2, t = u / reach
    Float start, rise, bend, inverse, u, root, reach;
  };

  Point locate(Float x) const {
    const Float zero = {}, one = zero + 1.0f;
    const Piece& p = pieces[0];
    Float left = zero + p.left, inverse = zero + p.inverse, control = zero + p.control, low = zero + p.low,
          high = zero + p.high, start = zero + p.start, rise = zero + p.rise, bend = zero + p.bend;
    for (int k = 1; k < K; ++k) {  // a knot belongs to the piece on its left
      const Piece& next = pieces[k];
      const Int beyond = x > next.left;
      left = beyond ? zero + next.left : left;
      inverse = beyond ? zero + next.inverse : inverse;
      control = beyond ? zero + next.control : control;
      low = beyond ? zero + next.low : low;
      high = beyond ? zero + next.high : high;
      start = beyond ? zero + next.start : start;
      rise = beyond ? zero + next.rise : rise;
      bend = beyond ? zero + next.bend : bend;
    }
    Float u = (x - left) * inverse;
    u = u < 0.0f ? zero : u;
    u = u > 1.0f ? one : u;
    const Float root = square_root(low * (one - u) + high * u);
    return {start, rise, bend, inverse, u, root, control + root};
  }
};
