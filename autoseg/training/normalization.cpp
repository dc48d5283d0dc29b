// Batch normalisation with its activation, on float32 maps in channels-last order: (pixels, channels).
//
// Channels are a multiple of 8, worked on in blocks of 8, 16 or 32. Sums over pixels are taken in float within a chunk
// and added up in double, always in the same order: the number of threads changes no bit. NaN goes through.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

namespace {

typedef float Eight __attribute__((vector_size(32), aligned(4)));
typedef int32_t Mask __attribute__((vector_size(32)));
constexpr int64_t CHUNK = 128;  // pixels

inline Eight load(const float* from) { return *reinterpret_cast<const Eight*>(from); }
inline void store(float* to, Eight value) { *reinterpret_cast<Eight*>(to) = value; }
inline Eight all(float x) { return Eight{x, x, x, x, x, x, x, x}; }
inline Eight masked(Mask mask, Eight value) { return (Eight)((Mask)value & mask); }

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

int64_t chunks(int64_t pixels) { return (pixels + CHUNK - 1) / CHUNK; }

// Mean and biased variance of every channel.
void moments(const float* x, int64_t pixels, int64_t channels, int threads, float* mean, double* variance) {
  const int64_t parts = chunks(pixels);
  std::vector<float> means(parts * channels), squares(parts * channels);
#pragma omp parallel for num_threads(threads)
  for (int64_t part = 0; part < parts; ++part) {
    const int64_t count = std::min(CHUNK, pixels - part * CHUNK);
    const float* start = x + part * CHUNK * channels;
    blocks(channels, [&](int64_t c, auto width) {
      constexpr int K = decltype(width)::value;
      Eight sum[K] = {}, square[K] = {};
      for (int64_t i = 0; i < count; ++i)
        for (int k = 0; k < K; ++k) sum[k] += load(start + i * channels + c + 8 * k);
      for (int k = 0; k < K; ++k) sum[k] /= all(count);
      for (int64_t i = 0; i < count; ++i)
        for (int k = 0; k < K; ++k) {
          const Eight away = load(start + i * channels + c + 8 * k) - sum[k];
          square[k] += away * away;
        }
      for (int k = 0; k < K; ++k) {
        store(&means[part * channels + c + 8 * k], sum[k]);
        store(&squares[part * channels + c + 8 * k], square[k]);
      }
    });
  }
  for (int64_t c = 0; c < channels; ++c) {  // Chan, Golub and LeVeque 1979
    double centre = 0, square = 0;
    for (int64_t part = 0; part < parts; ++part) {
      const double before = part * CHUNK, count = std::min(CHUNK, pixels - part * CHUNK);
      const double away = means[part * channels + c] - centre;
      centre += away * count / (before + count);
      square += squares[part * channels + c] + away * away * before * count / (before + count);
    }
    mean[c] = centre;
    variance[c] = square / pixels;
  }
}

}  // namespace

extern "C" {

struct Layer {
  const float *weight, *bias;
  double eps, momentum;
  float low, high;  // of the activation: what is outside is clamped
};

// Normalisation by the statistics of the maps x, and activation: y. Writes mean and 1 / deviation; updates the running
// statistics.
void normalize(const Layer* layer, int64_t pixels, int64_t channels, int threads, const float* x, float* running_mean,
               float* running_variance, float* mean, float* inverse, float* y);

// The same by given statistics.
void apply(const Layer* layer, int64_t pixels, int64_t channels, int threads, const float* x, const float* mean,
           const float* inverse, float* y);

// The gradient of normalize to the maps, the weight and the bias.
void backward(const Layer* layer, int64_t pixels, int64_t channels, int threads, const float* grad, const float* x,
              const float* mean, const float* inverse, float* to_x, float* to_weight, float* to_bias);

}  // extern "C"

namespace {

struct Affine {  // before the activation a channel is (x - mean) * scale + bias
  const float *mean, *bias;
  std::vector<float> scale;
  Eight low, high;

  Affine(const Layer& layer, int64_t channels, const float* mean, const float* inverse)
      : mean(mean), bias(layer.bias), scale(channels), low(all(layer.low)), high(all(layer.high)) {
    for (int64_t c = 0; c < channels; ++c) scale[c] = layer.weight[c] * inverse[c];
  }
  Eight value(Eight x, int64_t c) const { return (x - load(mean + c)) * load(&scale[c]) + load(bias + c); }
  // What of a gradient gets through the activation.
  Eight through(Eight grad, Eight x, int64_t c) const {
    const Eight z = value(x, c);
    return masked(~((z <= low) | (z >= high)), grad);
  }
};

}  // namespace

void normalize(const Layer* layer, int64_t pixels, int64_t channels, int threads, const float* x, float* running_mean,
               float* running_variance, float* mean, float* inverse, float* y) {
  std::vector<double> variance(channels);
  moments(x, pixels, channels, threads, mean, variance.data());
  const double unbiased = pixels / double(pixels - 1), momentum = layer->momentum;
  for (int64_t c = 0; c < channels; ++c) {
    inverse[c] = 1 / std::sqrt(variance[c] + layer->eps);
    running_mean[c] = (1 - momentum) * running_mean[c] + momentum * mean[c];
    running_variance[c] = (1 - momentum) * running_variance[c] + momentum * variance[c] * unbiased;
  }
  apply(layer, pixels, channels, threads, x, mean, inverse, y);
}

void apply(const Layer* layer, int64_t pixels, int64_t channels, int threads, const float* x, const float* mean,
           const float* inverse, float* y) {
  const Affine affine(*layer, channels, mean, inverse);
#pragma omp parallel for num_threads(threads)
  for (int64_t i = 0; i < pixels; ++i)
    for (int64_t c = 0; c < channels; c += 8) {
      Eight z = affine.value(load(x + i * channels + c), c);
      z = z < affine.low ? affine.low : z;
      store(y + i * channels + c, z > affine.high ? affine.high : z);
    }
}

void backward(const Layer* layer, int64_t pixels, int64_t channels, int threads, const float* grad, const float* x,
              const float* mean, const float* inverse, float* to_x, float* to_weight, float* to_bias) {
  const Affine affine(*layer, channels, mean, inverse);
  const int64_t parts = chunks(pixels);
  std::vector<float> sums(parts * channels), products(parts * channels);
#pragma omp parallel for num_threads(threads)
  for (int64_t part = 0; part < parts; ++part) {
    const int64_t count = std::min(CHUNK, pixels - part * CHUNK);
    blocks(channels, [&](int64_t first, auto width) {
      constexpr int K = decltype(width)::value;
      Eight sum[K] = {}, product[K] = {};
      for (int64_t i = 0; i < count; ++i)
        for (int k = 0; k < K; ++k) {
          const int64_t c = first + 8 * k, at = (part * CHUNK + i) * channels + c;
          const Eight value = load(x + at), through = affine.through(load(grad + at), value, c);
          sum[k] += through;
          product[k] += through * (value - load(mean + c));
        }
      for (int k = 0; k < K; ++k) {
        store(&sums[part * channels + first + 8 * k], sum[k]);
        store(&products[part * channels + first + 8 * k], product[k]);
      }
    });
  }
  std::vector<float> level(channels), slope(channels);
  for (int64_t c = 0; c < channels; ++c) {
    double sum = 0, product = 0;
    for (int64_t part = 0; part < parts; ++part) {
      sum += sums[part * channels + c];
      product += products[part * channels + c];
    }
    to_bias[c] = sum;
    to_weight[c] = product * inverse[c];
    level[c] = sum / pixels;
    slope[c] = product * inverse[c] * inverse[c] / pixels;
  }
#pragma omp parallel for num_threads(threads)
  for (int64_t i = 0; i < pixels; ++i)
    for (int64_t c = 0; c < channels; c += 8) {
      const int64_t at = i * channels + c;
      const Eight value = load(x + at);
      const Eight rest = load(&level[c]) + (value - load(mean + c)) * load(&slope[c]);
      store(to_x + at, load(&affine.scale[c]) * (affine.through(load(grad + at), value, c) - rest));
    }
}
