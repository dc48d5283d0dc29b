// Products of float32 matrices of the sizes that maps and weights have, in one thread.
//
// A tile of 6 rows and 16 columns stays in registers (Goto and van de Geijn 2008), or one of 12 rows where a register
// holds 16 numbers. Sums are taken in a fixed order.

#pragma once

#include "maps.h"

#include <array>
#include <utility>

constexpr int64_t PANEL = 16;   // columns
constexpr int64_t DEPTH = 320;  // so much of a panel stays in the first-level cache

constexpr int TALL = WIDEST == 16 ? 12 : 6;  // rows of a tile

// ROWS rows and V vectors of columns of a product. `next` is from a row of b to the one below it.
template <int LANES, int ROWS, int V>
inline void tile(int64_t depth, const float* a, int64_t down, int64_t right, const float* b, int64_t next, float* c,
                 int64_t stride, bool add) {
  typedef typename Numbers<LANES>::type Vector;
  Vector sum[ROWS][V] = {};
  const float* four[(ROWS + 3) / 4];  // every fourth row: addresses of the others need no registers of their own
  for (int r = 0; r < ROWS; r += 4) four[r / 4] = a + r * down;
  for (int64_t k = 0; k < depth; ++k) {
    Vector row[V];
    for (int v = 0; v < V; ++v) row[v] = load_some<LANES>(b + LANES * v);
#pragma GCC unroll 12
    for (int r = 0; r < ROWS; ++r) {
      const float one = four[r / 4][r % 4 * down];
      for (int v = 0; v < V; ++v) sum[r][v] += one * row[v];
    }
#pragma GCC unroll 3
    for (int r = 0; r < ROWS; r += 4) four[r / 4] += right;
    b += next;
  }
#pragma GCC unroll 12
  for (int r = 0; r < ROWS; ++r)
    for (int v = 0; v < V; ++v) {
      float* to = c + r * stride + LANES * v;
      store_some<LANES>(to, add ? load_some<LANES>(to) + sum[r][v] : sum[r][v]);
    }
}

typedef void (*Tile)(int64_t, const float*, int64_t, int64_t, const float*, int64_t, float*, int64_t, bool);

template <int LANES, int V, int... LESS>
constexpr std::array<Tile, sizeof...(LESS)> tiles(std::integer_sequence<int, LESS...>) {
  return {tile<LANES, LESS + 1, V>...};
}

// 16 columns of a product, or 8.
template <int COLUMNS>
inline void strip(int64_t rows, int64_t depth, const float* a, int64_t down, int64_t right, const float* b,
                  int64_t next, float* c, int64_t stride, bool add) {
  constexpr int LANES = std::min(COLUMNS, WIDEST);
  static constexpr auto of = tiles<LANES, COLUMNS / LANES>(std::make_integer_sequence<int, TALL>());
  while (rows > 0) {  // 8 as 4 and 4: fewer rows than 4 keep the multipliers waiting
    const int64_t now = rows >= TALL + 4 || rows == TALL ? TALL : std::min<int64_t>(rows, TALL * 2 / 3);
    of[now - 1](depth, a, down, right, b, next, c, stride, add);
    a += now * down;
    c += now * stride;
    rows -= now;
  }
}

// C (rows, columns; `stride` from row to row) = A B, with A (r, k) at a[r * down + k * right] and B as it lies.
// `add`: to what C is.
inline void product(int64_t rows, int64_t depth, int64_t columns, const float* a, int64_t down, int64_t right,
                    const float* b, int64_t next, float* c, int64_t stride, bool add) {
  for (int64_t block = 0; block < depth; block += DEPTH)
    for (int64_t n = 0; n < columns; n += PANEL)
      (columns - n >= PANEL ? strip<16> : strip<8>)(rows, std::min(DEPTH, depth - block), a + block * right, down,
                                                    right, b + block * next + n, next, c + n, stride,
                                                    add || block > 0);
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
        (wide == PANEL ? strip<16> : strip<8>)(rows, deep, a + block, down, 1, b, wide, c + n, columns_, block > 0);
        b += deep * wide;
      }
  }

 private:
  int64_t depth_, columns_;
  Scratch numbers_;
};
