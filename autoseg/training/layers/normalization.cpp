// Batch normalisation with its activation, on float32 maps in channels-last order: (pixels, channels).
//
// Sums are always taken in the same order: the number of threads changes no bit.

#include "maps.h"

extern "C" {

// Normalisation by the statistics of the maps x, and activation: y.
int normalize(int64_t pixels, int64_t channels, int threads, const float* x, const Norm* norm,
              const Statistics* statistics, float* y) {
  return status([&] {
    const int64_t parts = (pixels + PART - 1) / PART;
    Moments moments(parts, channels);
    in_threads(threads, parts, [&](int64_t first, int64_t end, int) {
      for (int64_t part = first; part < end; ++part)
        moments.take(part, std::min(PART, pixels - part * PART), x + part * PART * channels);
    });
    statistics->take(moments, pixels, channels);
    normalized(pixels, channels, threads, x, *norm, nullptr, y);
  });
}

// The same by given statistics.
int apply(int64_t pixels, int64_t channels, int threads, const float* x, const Norm* norm, float* y) {
  return status([&] { normalized(pixels, channels, threads, x, *norm, nullptr, y); });
}

// The gradient of normalize to the maps, the weight and the bias.
int backward(int64_t pixels, int64_t channels, int threads, const float* x, const Norm* norm, const float* grad,
             float* to_x, float* to_weight, float* to_bias) {
  return status([&] {
    const Affine affine(*norm, channels);
    const int64_t parts = (pixels + PART - 1) / PART;
    Sums all_sums(parts, channels);
    in_threads(threads, parts, [&](int64_t first, int64_t end, int) {
      for (int64_t part = first; part < end; ++part) {
        const int64_t at = part * PART * channels;
        all_sums.take(affine, part, std::min(PART, pixels - part * PART), grad + at, x + at, nullptr);
      }
    });
    std::vector<double> sums, products;
    all_sums.total(sums, products);
    std::vector<float> level(channels), slope(channels);
    for (int64_t c = 0; c < channels; ++c) {
      const double inverse = norm->inverse[c];
      to_bias[c] = sums[c];
      to_weight[c] = products[c] * inverse;
      level[c] = sums[c] / pixels;
      slope[c] = products[c] * inverse * inverse / pixels;
    }
    in_threads(threads, pixels, [&](int64_t first, int64_t end, int) {
      for (int64_t i = first; i < end; ++i)
        for (int64_t c = 0; c < channels; c += 8) {
          const int64_t at = i * channels + c;
          const Eight value = load(x + at);
          const Eight rest = load(&level[c]) + (value - load(norm->mean + c)) * load(&slope[c]);
          store(to_x + at, load(&affine.scale[c]) * (affine.through(load(grad + at), value, c) - rest));
        }
    });
  });
}

}  // extern "C"
