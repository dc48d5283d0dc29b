// Products of float32 matrices of the sizes that maps and weights have, in one thread.
//
// A tile of 6 rows and 16 columns stays in registers (Goto and van de Geijn 2008). Sums are taken in a fixed order.

#pragma once

#include "maps.h"

constexpr int64_t PANEL = 16;   // columns
constexpr int64_t DEPTH = 320;  // so much of a panel stays in the first-level cache

// ROWS rows and V eights of columns of a product. `next` is from a row of b to the one below it.
template <int ROWS, int V>
inline void tile(int64_t depth, const float* a, int64_t down, int64_t right, const float* b, int64_t next, float* c,
                 int64_t stride, bool add) {
  Eight sum[ROWS][V] = {};
  for (int64_t k = 0; k < depth; ++k) {
    Eight row[V];
    for (int v = 0; v < V; ++v) row[v] = load(b + 8 * v);
#pragma GCC unroll 6
    for (int r = 0; r < ROWS; ++r) {
      const Eight one = all(a[r * down]);
      for (int v = 0; v < V; ++v) sum[r][v] += one * row[v];
    }
    a += right;
    b += next;
  }
#pragma GCC unroll 6
  for (int r = 0; r < ROWS; ++r)
    for (int v = 0; v < V; ++v) {
      float* to = c + r * stride + 8 * v;
      store(to, add ? load(to) + sum[r][v] : sum[r][v]);
    }
}

template <int V>
inline void strip(int64_t rows, int64_t depth, const float* a, int64_t down, int64_t right, const float* b,
                  int64_t next, float* c, int64_t stride, bool add) {
  constexpr decltype(&tile<6, V>) of[] = {tile<1, V>, tile<2, V>, tile<3, V>, tile<4, V>, tile<5, V>, tile<6, V>};
  while (rows > 0) {  // 8 as 4 and 4: fewer rows than 4 keep the multipliers waiting
    const int64_t now = rows > 8 || rows == 6 ? 6 : std::min<int64_t>(rows, rows > 6 ? 4 : 5);
    of[now - 1](depth, a, down, right, b, next, c, stride, add);
    a += now * down;
    c += now * stride;
    rows -= now;
  }
}

// C (rows, columns; `stride` from row to row) += A B, with A (r, k) at a[r * down + k * right] and B as it lies.
inline void add_product(int64_t rows, int64_t depth, int64_t columns, const float* a, int64_t down, int64_t right,
                        const float* b, int64_t next, float* c, int64_t stride) {
  for (int64_t n = 0; n < columns; n += PANEL)
    (columns - n >= PANEL ? strip<2> : strip<1>)(rows, depth, a, down, right, b + n, next, c + n, stride, true);
}

// A right factor (depth, columns) that many rows are multiplied with: panel after panel within blocks of rows.
class Packed {
 public:
  // Element (k, n) lies at from[k * down + n * right].
  Packed(int64_t depth, int64_t columns, const float* from, int64_t down, int64_t right)
      : depth_(depth), columns_(columns), numbers_(depth * columns) {
    float* to = numbers_.data();
    for (int64_t block = 0; block < depth; block += DEPTH)
      for (int64_t n = 0; n < columns; n += PANEL)
        for (int64_t k = block; k < std::min(depth, block + DEPTH); ++k)
          for (int64_t i = n; i < std::min(columns, n + PANEL); ++i) *to++ = from[k * down + i * right];
  }

  // C (rows, columns) = A times this, with A's rows `down` apart.
  void multiply(int64_t rows, const float* a, int64_t down, float* c) const {
    const float* b = numbers_.data();
    for (int64_t block = 0; block < depth_; block += DEPTH)
      for (int64_t n = 0; n < columns_; n += PANEL) {
        const int64_t deep = std::min(DEPTH, depth_ - block), wide = std::min(PANEL, columns_ - n);
        (wide == PANEL ? strip<2> : strip<1>)(rows, deep, a + block, down, 1, b, wide, c + n, columns_, block > 0);
        b += deep * wide;
      }
  }

 private:
  int64_t depth_, columns_;
  std::vector<float> numbers_;
};
