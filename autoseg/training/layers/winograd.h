// The transforms of Winograd's F(2x2, 3x3), 8 channels at a time (Lavin and Gray 2016).

#pragma once

#include "links.h"

// What is done along rows and then along columns: of pixels, filter and results, and the transposes of these.
struct Pixels {
  static constexpr int from = 4, to = 4;
  static void line(const Eight* x, Eight* y) {
    y[0] = x[0] - x[2], y[1] = x[1] + x[2], y[2] = x[2] - x[1], y[3] = x[1] - x[3];
  }
};
struct ToPixels {
  static constexpr int from = 4, to = 4;
  static void line(const Eight* x, Eight* y) {
    y[0] = x[0], y[1] = x[1] - x[2] + x[3], y[2] = x[1] + x[2] - x[0], y[3] = -x[3];
  }
};
struct Filter {
  static constexpr int from = 3, to = 4;
  static void line(const Eight* x, Eight* y) {
    const Eight half = all(0.5f), ends = (x[0] + x[2]) * half, middle = x[1] * half;
    y[0] = x[0], y[1] = ends + middle, y[2] = ends - middle, y[3] = x[2];
  }
};
struct ToFilter {
  static constexpr int from = 4, to = 3;
  static void line(const Eight* x, Eight* y) {
    const Eight half = all(0.5f), both = (x[1] + x[2]) * half;
    y[0] = x[0] + both, y[1] = (x[1] - x[2]) * half, y[2] = both + x[3];
  }
};
struct Results {
  static constexpr int from = 4, to = 2;
  static void line(const Eight* x, Eight* y) { y[0] = x[0] + x[1] + x[2], y[1] = x[1] - x[2] - x[3]; }
};
struct ToResults {
  static constexpr int from = 2, to = 4;
  static void line(const Eight* x, Eight* y) { y[0] = x[0], y[1] = x[0] + x[1], y[2] = x[0] - x[1], y[3] = -x[1]; }
};

// take(row, column) gives a number, give(row, column, value) gets one of the transform's.
template <class Transform, class Take, class Give>
inline void transform(Take take, Give give) {
  constexpr int N = Transform::from, M = Transform::to;
  Eight half[N][M];
  for (int r = 0; r < N; ++r) {
    Eight line[N];
    for (int k = 0; k < N; ++k) line[k] = take(r, k);
    Transform::line(line, half[r]);
  }
  for (int k = 0; k < M; ++k) {
    Eight line[N], result[M];
    for (int r = 0; r < N; ++r) line[r] = half[r][k];
    Transform::line(line, result);
    for (int r = 0; r < M; ++r) give(r, k, result[r]);
  }
}

// 16 matrices, one of each frequency, with gaps after their rows.
class Frequencies {
 public:
  Frequencies(int64_t rows, int64_t columns) : row(columns + PAD), size_(rows * row), numbers_(16 * size_) {}
  const int64_t row;  // from a row to the next
  float* of(int frequency) const { return numbers_.data() + frequency * size_; }
  float* at(int r, int k, int64_t place) const { return of(4 * r + k) + place; }

 private:
  int64_t size_;
  Scratch numbers_;
};
