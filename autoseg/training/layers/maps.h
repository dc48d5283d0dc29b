// What the C++ of the layers shares: float32 maps in channels-last order, (pixels, channels), 8 channels at a time.
//
// Sums over pixels are taken in float within a part of the pixels and added up in double, part after part in order.
// NaN goes through.

#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <memory>
#include <new>
#include <vector>

#include "../../native.h"

constexpr int64_t PART = 128;  // pixels

typedef float Eight __attribute__((vector_size(32), aligned(4)));
typedef int32_t Mask __attribute__((vector_size(32)));

inline Eight load(const float* from) { return *reinterpret_cast<const Eight*>(from); }
inline void store(float* to, Eight value) { *reinterpret_cast<Eight*>(to) = value; }
inline Eight all(float x) { return Eight{x, x, x, x, x, x, x, x}; }
template <int LANES>
struct Numbers {
  typedef Eight type;
};
#ifdef __AVX512F__
constexpr int WIDEST = 16;  // numbers in a register
template <>
struct Numbers<16> {
  typedef float type __attribute__((vector_size(64), aligned(4)));
};
#else
constexpr int WIDEST = 8;
#endif
template <int LANES>
inline typename Numbers<LANES>::type load_some(const float* from) {
  return *reinterpret_cast<const typename Numbers<LANES>::type*>(from);
}
template <int LANES>
inline void store_some(float* to, typename Numbers<LANES>::type value) {
  *reinterpret_cast<typename Numbers<LANES>::type*>(to) = value;
}

inline Eight masked(Mask mask, Eight value) { return (Eight)((Mask)value & mask); }

// Room for numbers, of any value at first.
class Scratch {
 public:
  explicit Scratch(int64_t count) : numbers_(count ? new (LINE) float[count] : nullptr) {}
  float* data() const { return numbers_.get(); }

 private:
  static constexpr std::align_val_t LINE{64};
  struct Free {
    void operator()(float* numbers) const { ::operator delete[](numbers, LINE); }
  };
  std::unique_ptr<float[], Free> numbers_;
};

template <int N>
struct Width {
  static constexpr int value = N;
};

// Calls work(first channel, how many eights) for every block of channels.
template <class Work>
inline void blocks(int64_t channels, Work work) {
  int64_t c = 0;
  for (; c + 32 <= channels; c += 32) work(c, Width<4>());
  if (c + 16 <= channels) {
    work(c, Width<2>());
    c += 16;
  }
  if (c + 8 <= channels) work(c, Width<1>());
}

// Mean and biased variance of every channel, from those of parts of the pixels.
class Moments {
 public:
  Moments(int64_t parts, int64_t channels)
      : channels_(channels), counts_(parts), means_(parts * channels), squares_(parts * channels) {}

  // A part: `count` pixels from x on.
  void take(int64_t part, int64_t count, const float* x) {
    counts_[part] = count;
    blocks(channels_, [&](int64_t c, auto width) {
      constexpr int K = decltype(width)::value;
      Eight sum[K] = {}, square[K] = {};
      for (int64_t i = 0; i < count; ++i)
        for (int k = 0; k < K; ++k) sum[k] += load(x + i * channels_ + c + 8 * k);
      for (int k = 0; k < K; ++k) sum[k] /= all(count);
      for (int64_t i = 0; i < count; ++i)
        for (int k = 0; k < K; ++k) {
          const Eight away = load(x + i * channels_ + c + 8 * k) - sum[k];
          square[k] += away * away;
        }
      for (int k = 0; k < K; ++k) {
        store(&means_[part * channels_ + c + 8 * k], sum[k]);
        store(&squares_[part * channels_ + c + 8 * k], square[k]);
      }
    });
  }

  // Chan, Golub and LeVeque 1979.
  void total(std::vector<double>& mean, std::vector<double>& variance) const {
    double before = 0;
    mean.assign(channels_, 0.0);
    variance.assign(channels_, 0.0);
    for (size_t part = 0; part < counts_.size(); ++part) {
      const double count = counts_[part], share = count / (before + count), weight = before * share;
      const float *means = &means_[part * channels_], *squares = &squares_[part * channels_];
      for (int64_t c = 0; c < channels_; ++c) {
        const double away = means[c] - mean[c];
        mean[c] += away * share;
        variance[c] += squares[c] + away * away * weight;
      }
      before += count;
    }
    for (double& each : variance) each /= before;
  }

 private:
  int64_t channels_;
  std::vector<int64_t> counts_;
  std::vector<float> means_, squares_;
};

// What a batch normalisation keeps of the maps before it.
struct Statistics {
  float *mean, *inverse;  // 1 / deviation
  float *running_mean, *running_variance;
  double eps, momentum;

  void take(const Moments& moments, int64_t pixels, int64_t channels) const {
    std::vector<double> means, variances;
    moments.total(means, variances);
    const double unbiased = pixels / double(pixels - 1);
    for (int64_t c = 0; c < channels; ++c) {
      mean[c] = means[c];
      inverse[c] = 1 / std::sqrt(variances[c] + eps);
      running_mean[c] = (1 - momentum) * running_mean[c] + momentum * mean[c];
      running_variance[c] = (1 - momentum) * running_variance[c] + momentum * variances[c] * unbiased;
    }
  }
};

// Normalisation by given statistics and the activation after it, which clamps.
struct Norm {
  const float *mean, *inverse, *weight, *bias;
  float low, high;
};

struct Affine {  // before the activation a channel is (x - mean) * scale + bias
  const float *mean, *bias;
  std::vector<float> scale;
  Eight low, high;

  Affine(const Norm& norm, int64_t channels)
      : mean(norm.mean), bias(norm.bias), scale(channels), low(all(norm.low)), high(all(norm.high)) {
    for (int64_t c = 0; c < channels; ++c) scale[c] = norm.weight[c] * norm.inverse[c];
  }
  Eight value(Eight x, int64_t c) const { return (x - load(mean + c)) * load(&scale[c]) + load(bias + c); }
  Eight clamped(Eight x, int64_t c) const {
    const Eight z = value(x, c), least = z < low ? low : z;
    return least > high ? high : least;
  }
  // Pixels from x on, clamped, to places `stride` apart, plus `added` unless that is null.
  void fill(int64_t count, int64_t channels, const float* x, float* to, int64_t stride, const float* added) const {
    const float *means = mean, *biases = bias, *scales = scale.data();  // no store can change these
    const Eight least = low, most = high;
    for (int64_t i = 0; i < count; ++i)
      for (int64_t c = 0; c < channels; c += 8) {
        Eight z = (load(x + i * channels + c) - load(means + c)) * load(scales + c) + load(biases + c);
        z = z < least ? least : z;
        z = z > most ? most : z;
        store(to + i * stride + c, added ? z + load(added + i * channels + c) : z);
      }
  }
  // What of a gradient gets through the activation.
  Eight through(Eight grad, Eight x, int64_t c) const {
    const Eight z = value(x, c);
    return masked(~((z <= low) | (z >= high)), grad);
  }
};

// Sums over pixels of what gets through an activation, and of its product with the distance from the mean.
class Sums {
 public:
  Sums(int64_t parts, int64_t channels)
      : parts_(parts), channels_(channels), sums_(parts * channels), products_(parts * channels) {}

  // A part, `count` pixels from `grad` and x on: to_x, if wanted, is what gets through times the scale.
  void take(const Affine& affine, int64_t part, int64_t count, const float* grad, const float* x, float* to_x) {
    blocks(channels_, [&](int64_t first, auto width) {
      constexpr int K = decltype(width)::value;
      Eight sum[K] = {}, product[K] = {}, mean[K], scale[K], bias[K];
      const Eight low = affine.low, high = affine.high;
      const int64_t channels = channels_;
      for (int k = 0; k < K; ++k) {
        mean[k] = load(affine.mean + first + 8 * k);
        scale[k] = load(&affine.scale[first + 8 * k]);
        bias[k] = load(affine.bias + first + 8 * k);
      }
      for (int64_t i = 0; i < count; ++i)
        for (int k = 0; k < K; ++k) {
          const int64_t at = i * channels + first + 8 * k;
          const Eight away = load(x + at) - mean[k], z = away * scale[k] + bias[k];
          const Eight through = masked(~((z <= low) | (z >= high)), load(grad + at));
          sum[k] += through;
          product[k] += through * away;
          if (to_x != nullptr) store(to_x + at, scale[k] * through);
        }
      for (int k = 0; k < K; ++k) {  // a part may come in pieces
        float *sums = &sums_[part * channels_ + first + 8 * k], *products = &products_[part * channels_ + first + 8 * k];
        store(sums, load(sums) + sum[k]);
        store(products, load(products) + product[k]);
      }
    });
  }

  void total(std::vector<double>& sums, std::vector<double>& products) const {
    sums.assign(channels_, 0.0);
    products.assign(channels_, 0.0);
    for (int64_t part = 0; part < parts_; ++part)
      for (int64_t c = 0; c < channels_; ++c) {
        sums[c] += sums_[part * channels_ + c];
        products[c] += products_[part * channels_ + c];
      }
  }

 private:
  int64_t parts_, channels_;
  std::vector<float> sums_, products_;
};

// y = normalised and clamped x, plus `added` unless that is null.
inline void normalized(int64_t pixels, int64_t channels, int threads, const float* x, const Norm& norm,
                       const float* added, float* y) {
  const Affine affine(norm, channels);
  const int64_t parts = (pixels + PART - 1) / PART;
  in_threads(threads, parts, [&](int64_t first, int64_t end, int) {
    for (int64_t part = first; part < end; ++part) {
      const int64_t at = part * PART * channels, count = std::min(PART, pixels - part * PART);
      affine.fill(count, channels, x + at, y + at, channels, added ? added + at : nullptr);
    }
  });
}
