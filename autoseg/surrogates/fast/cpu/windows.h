// Extremes of a plane over square windows, and where they are from: what `windows.py` computes, written for a compiler.

#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#include "curve.h"

class Windows {  // over planes of one size; keeps its buffers from plane to plane
 public:
  Windows(int64_t height, int64_t width) : height_(height), width_(width) {}

  // Maxima or minima over squares of side 2 px + 1, of equals the first, rows before columns; beyond the border lies
  // `outside`. `place` gets each one's pixel, -1 beyond the border; null: nobody asks.
  void extremes(const float* x, int64_t px, bool largest, float outside, float* out, int32_t* place) {
    const auto run = largest ? (place ? &Windows::run<true, true> : &Windows::run<true, false>)
                             : (place ? &Windows::run<false, true> : &Windows::run<false, false>);
    (this->*run)(x, px, outside, out, place);
  }

 private:
  static constexpr int64_t STRIP = 4 * WIDTH;  // columns that are taken together

  template <bool LARGEST, bool PLACES>
  void run(const float* x, int64_t px, float outside, float* out, int32_t* place) {
    reserve(px);
    const int64_t window = 2 * px + 1;
    for (int64_t i = 0; i < height_; ++i) {
      std::fill_n(line_.begin(), width_ + 2 * px, outside);
      std::copy_n(x + i * width_, width_, line_.begin() + px);
      if (PLACES) {
        std::fill_n(line_at_.begin(), width_ + 2 * px, -1);
        for (int64_t j = 0; j < width_; ++j) line_at_[px + j] = static_cast<int32_t>(i * width_ + j);
      }
      slide<LARGEST, PLACES>(width_ + 2 * px, 1, window);
      std::copy_n(line_.begin(), width_, rows_.begin() + i * width_);
      if (PLACES) std::copy_n(line_at_.begin(), width_, rows_at_.begin() + i * width_);
    }
    for (int64_t j = 0; j < width_; j += STRIP) {
      const int64_t size = std::min(STRIP, width_ - j), length = (height_ + 2 * px) * STRIP;
      std::fill_n(line_.begin(), length, outside);
      if (PLACES) std::fill_n(line_at_.begin(), length, -1);
      for (int64_t i = 0; i < height_; ++i) {
        std::copy_n(rows_.begin() + i * width_ + j, size, line_.begin() + (px + i) * STRIP);
        if (PLACES) std::copy_n(rows_at_.begin() + i * width_ + j, size, line_at_.begin() + (px + i) * STRIP);
      }
      slide<LARGEST, PLACES>(height_ + 2 * px, STRIP, window);
      for (int64_t i = 0; i < height_; ++i) {
        std::copy_n(line_.begin() + i * STRIP, size, out + i * width_ + j);
        if (PLACES) std::copy_n(line_at_.begin() + i * STRIP, size, place + i * width_ + j);
      }
    }
  }

  // Turns `length` rows of `width` floats each into extremes over `window` rows. Widths double: 1, 2, 4, …
  template <bool LARGEST, bool PLACES>
  void slide(int64_t length, int64_t width, int64_t window) {
    for (int64_t have = 1; have < window;) {
      const int64_t step = std::min(have, window - have);
      have += step;
      length -= step;
      float *x = line_.data(), *y = x + step * width;
      int32_t *at = line_at_.data(), *other = at + step * width;
      for (int64_t i = 0; i < length * width; i += WIDTH) {
        const Float a = load(x + i), b = load(y + i);
        const Int second = (LARGEST ? b > a : b < a) | (b != b);  // what is not a number stays
        store(x + i, second ? b : a);
        if (PLACES) {
          Int p, q;
          std::memcpy(&p, at + i, sizeof p);
          std::memcpy(&q, other + i, sizeof q);
          p = second ? q : p;
          std::memcpy(at + i, &p, sizeof p);
        }
      }
    }
  }

  void reserve(int64_t px) {
    const size_t line = std::max((height_ + 2 * px) * STRIP, width_ + 2 * px) + WIDTH, all = height_ * width_;
    if (line_.size() < line) line_.resize(line), line_at_.resize(line);
    if (rows_.size() < all) rows_.resize(all), rows_at_.resize(all);
  }

  int64_t height_, width_;
  std::vector<float> line_, rows_;
  std::vector<int32_t> line_at_, rows_at_;
};
