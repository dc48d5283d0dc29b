// What the convolutions of a chain share (see chain.py).
//
// A convolution normalises and clamps the maps it reads while it reads them, and takes the statistics of those it
// writes while they are in the cache. Going backward, it gives the gradient to the maps as if their statistics were
// constants, and the gradients to these; the convolution before adds their part while it reads.

#pragma once

#include "maps.h"
#include "products.h"

constexpr int64_t BLOCK = 49152;  // numbers of a map that are worked on at a time: 192 KiB, in the second-level cache
constexpr int64_t PAD = 16;       // numbers after each row of a scratch matrix: rows 2^n apart share cache lines

enum Kind : int64_t { POINTWISE, DEPTHWISE, DENSE };

// A convolution of maps (images, height, width, in) to (images, rows, columns, out); its padding keeps the size but for
// the stride.
struct Layer {
  int64_t images, height, width, in, out, stride, dilation;
  int64_t rows() const { return (height - 1) / stride + 1; }
  int64_t columns() const { return (width - 1) / stride + 1; }
  int64_t pixels() const { return images * rows() * columns(); }
};

// The gradient to maps, statistics included.
struct Returned {
  const float *grad, *maps, *mean, *inverse, *to_mean, *to_inverse;
};

// The gradients to the parameters and statistics of a norm.
struct Given {
  float *to_mean, *to_inverse, *to_weight, *to_bias;

  void take(const Sums& all_sums, const Norm& norm, int64_t channels) const {
    std::vector<double> sums, products;
    all_sums.total(sums, products);
    for (int64_t c = 0; c < channels; ++c) {
      to_bias[c] = sums[c];
      to_weight[c] = products[c] * norm.inverse[c];
      to_mean[c] = -sums[c] * norm.weight[c] * norm.inverse[c];
      to_inverse[c] = products[c] * norm.weight[c];
    }
  }
};

class Whole {  // `Returned` as one map
 public:
  Whole(const Returned& from, int64_t pixels, int64_t channels) : from_(from), level_(channels), slope_(channels) {
    for (int64_t c = 0; c < channels; ++c) {
      const double inverse = from.inverse[c];
      level_[c] = from.to_mean[c] / pixels;
      slope_[c] = -from.to_inverse[c] * inverse * inverse * inverse / pixels;
    }
  }
  Eight value(int64_t at, int64_t c) const {
    return load(from_.grad + at) + load(&level_[c]) + (load(from_.maps + at) - load(from_.mean + c)) * load(&slope_[c]);
  }
  // Pixels from `first` on, to places `stride` apart.
  void fill(int64_t first, int64_t count, int64_t channels, float* to, int64_t stride) const {
    const float *grad = from_.grad + first * channels, *maps = from_.maps + first * channels;
    const float *mean = from_.mean, *level = level_.data(), *slope = slope_.data();  // no store can change these
    for (int64_t i = 0; i < count; ++i)
      for (int64_t c = 0; c < channels; c += 8) {
        const int64_t at = i * channels + c;
        store(to + i * stride + c,
              load(grad + at) + load(level + c) + (load(maps + at) - load(mean + c)) * load(slope + c));
      }
  }

 private:
  const Returned& from_;
  std::vector<float> level_, slope_;
};

// The gradient to a weight, to which every thread that has something to do writes its part.
class Gathered {
 public:
  Gathered(int threads, int64_t size, float* result)
      : threads_(threads), size_(size), result_(result), rest_((threads - 1) * size) {}

  float* of(int thread) const { return thread == 0 ? result_ : rest_.data() + (thread - 1) * size_; }
  void total() const {
    in_threads(threads_, size_, [&](int64_t first, int64_t end, int) {
      for (int thread = 1; thread < threads_; ++thread)
        for (int64_t i = first; i < end; ++i) result_[i] += of(thread)[i];
    });
  }

 private:
  int threads_;
  int64_t size_;
  float* result_;
  Scratch rest_;
};

// Forward: y from x, normalised as it is read unless `norm` is null, and the statistics of y. Backward: to_x null where
// it is not wanted; without a norm `given` is not looked at.
#define CONVOLUTION(NAME)                                                                                             \
  void NAME(const Layer& layer, int threads, const float* x, const Norm* norm, const float* weight, float* y,         \
            const Statistics& statistics);                                                                            \
  void NAME##_back(const Layer& layer, int threads, const Returned& grad, const float* x, const Norm* norm,           \
                   const float* weight, float* to_x, float* to_weight, const Given* given);
CONVOLUTION(pointwise)  // weight (out, in); no stride
CONVOLUTION(depthwise)  // 3x3, every channel by itself, weight (channels, 9); to_x is always wanted
CONVOLUTION(dense)      // 3x3, weight (out, 9, in); no stride
