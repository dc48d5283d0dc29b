// Convolutions of a chain conv, norm, activation, conv, norm, activation ... (see chain.py), forward and backward.
//
// A convolution normalises and clamps the maps it reads while it reads them, and takes the statistics of those it
// writes while they are in the cache. Going backward, it gives the gradient to the maps as if their statistics were
// constants, and the gradients to these; the convolution before adds their part while it reads.

#include "maps.h"
#include "products.h"

namespace {

constexpr int64_t BLOCK = 49152;  // numbers of a map that are worked on at a time: 192 KiB, in the second-level cache
constexpr int64_t PAD = 16;       // numbers after each row of a scratch matrix: rows 2^n apart share cache lines

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

int64_t block_rows(int64_t in, int64_t out) {
  return std::clamp<int64_t>(BLOCK / std::max(in, out) / 12 * 12, 24, 192);
}

// The part of `count` things that is a thread's.
int64_t first_of(int thread, int threads, int64_t count) { return count * thread / threads; }

}  // namespace

extern "C" {

// y (pixels, out) = normalised x (pixels, in) times the weight (out, in); `norm` null: x is taken as it is.
void pointwise(int64_t pixels, int64_t in, int64_t out, int threads, const float* x, const Norm* norm,
               const float* weight, float* y, const Statistics* statistics) {
  const int64_t rows = block_rows(in, out), parts = (pixels + rows - 1) / rows;
  const Packed packed(in, out, weight, 1, in);
  Moments moments(parts, out);
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int thread = 0; thread < threads; ++thread) {
    std::vector<float> read(norm ? rows * (in + PAD) : 0);
    const Affine affine = norm ? Affine(*norm, in) : Affine({}, 0);
    for (int64_t part = first_of(thread, threads, parts); part < first_of(thread + 1, threads, parts); ++part) {
      const int64_t start = part * rows, count = std::min(rows, pixels - start);
      if (norm) affine.fill(count, in, x + start * in, read.data(), in + PAD, nullptr);
      packed.multiply(count, norm ? read.data() : x + start * in, norm ? in + PAD : in, y + start * out);
      moments.take(part, count, y + start * out);
    }
  }
  statistics->take(moments, pixels, out);
}

// to_x null: not wanted. Without a norm `given` is not looked at.
void pointwise_back(int64_t pixels, int64_t in, int64_t out, int threads, const Returned* grad, const float* x,
                    const Norm* norm, const float* weight, float* to_x, float* to_weight, const Given* given) {
  const int64_t rows = block_rows(in, out), parts = (pixels + rows - 1) / rows, size = in * out;
  const Packed packed(out, in, weight, in, 1);
  const Whole whole(*grad, pixels, out);
  Sums sums(norm ? parts : 0, in);
  std::vector<std::vector<float>> to_weights(threads);
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int thread = 0; thread < threads; ++thread) {
    std::vector<float> gradient(rows * (out + PAD)), read(norm ? rows * (in + PAD) : 0);
    std::vector<float>& mine = to_weights[thread];
    mine.resize(size);
    const Affine affine = norm ? Affine(*norm, in) : Affine({}, 0);
    for (int64_t part = first_of(thread, threads, parts); part < first_of(thread + 1, threads, parts); ++part) {
      const int64_t start = part * rows, count = std::min(rows, pixels - start);
      const float* maps = x + start * in;
      whole.fill(start, count, out, gradient.data(), out + PAD);
      if (to_x) packed.multiply(count, gradient.data(), out + PAD, to_x + start * in);
      if (norm) {
        if (to_x) sums.take(affine, part, count, to_x + start * in, maps, to_x + start * in);
        affine.fill(count, in, maps, read.data(), in + PAD, nullptr);
      }
      add_product(out, count, in, gradient.data(), 1, out + PAD, norm ? read.data() : maps, norm ? in + PAD : in,
                  mine.data(), in);
    }
  }
  std::copy(to_weights[0].begin(), to_weights[0].end(), to_weight);
  for (int thread = 1; thread < threads; ++thread)
    for (int64_t i = 0; i < size; ++i) to_weight[i] += to_weights[thread][i];
  if (norm) given->take(sums, *norm, in);
}

// A 3x3 convolution of every channel by itself, with padding as its dilation.
struct Depthwise {
  int64_t images, height, width, channels, stride, dilation;
  int64_t rows() const { return (height - 1) / stride + 1; }
  int64_t columns() const { return (width - 1) / stride + 1; }
};

}  // extern "C"

namespace {

// Rows of a map that are in use at a time, with zeros left and right of each.
class Window {
 public:
  Window(const Depthwise& layer, int64_t height)
      : side(std::min(layer.dilation, layer.width)), slots_(std::min(height, 2 * layer.dilation + 1)),
        length_((layer.width + 2 * side) * layer.channels), offset_(side * layer.channels), numbers_(slots_ * length_) {}

  const int64_t side;  // columns of zeros; a tap further away than the map is wide reads nothing but them

  float* row(int64_t row) { return &numbers_[row % slots_ * length_ + offset_]; }

 private:
  int64_t slots_, length_, offset_;
  std::vector<float> numbers_;
};

std::vector<float> by_tap(const float* weight, int64_t channels) {  // (9, channels)
  std::vector<float> result(9 * channels);
  for (int64_t c = 0; c < channels; ++c)
    for (int tap = 0; tap < 9; ++tap) result[tap * channels + c] = weight[c * 9 + tap];
  return result;
}

// One row of results from the ROWS rows of the window that it meets.
template <int ROWS>
void correlate(const Depthwise& layer, const float* const* from, const float* const* weights, int64_t reach, float* y) {
  for (int64_t c = 0; c < layer.channels; c += 8) {
    Eight tap[ROWS][3];
    for (int r = 0; r < ROWS; ++r)
      for (int k = 0; k < 3; ++k) tap[r][k] = load(weights[r] + k * layer.channels + c);
    for (int64_t i = 0; i < layer.columns(); ++i) {
      const int64_t at = i * layer.stride * layer.channels + c;
      Eight sum = {};
      for (int r = 0; r < ROWS; ++r)
        for (int k = 0; k < 3; ++k) sum += tap[r][k] * load(from[r] + at + (k - 1) * reach);
      store(y + i * layer.channels + c, sum);
    }
  }
}

// One row of the gradient to the maps, and its part of that to the weights, from the ROWS rows of gradients it meets.
template <int ROWS>
void scatter(const Depthwise& layer, const float* const* from, const float* const* weights, float* const* to_weights,
             int64_t reach, const float* read, float* to_x) {
  for (int64_t c = 0; c < layer.channels; c += 8) {
    Eight total[ROWS][3];
    for (int r = 0; r < ROWS; ++r)
      for (int k = 0; k < 3; ++k) total[r][k] = load(to_weights[r] + k * layer.channels + c);
    for (int64_t i = 0; i < layer.width; ++i) {
      const int64_t at = i * layer.channels + c;
      const Eight value = load(read + at);
      Eight sum = {};
      for (int r = 0; r < ROWS; ++r)
        for (int k = 0; k < 3; ++k) {
          const Eight grad = load(from[r] + at - (k - 1) * reach);
          sum += load(weights[r] + k * layer.channels + c) * grad;
          total[r][k] += value * grad;
        }
      store(to_x + at, sum);
    }
    for (int r = 0; r < ROWS; ++r)
      for (int k = 0; k < 3; ++k) store(to_weights[r] + k * layer.channels + c, total[r][k]);
  }
}

}  // namespace

extern "C" {

// y (images, rows, columns, channels) from x (images, height, width, channels).
void depthwise(const Depthwise* given_layer, int threads, const float* x, const Norm* norm, const float* weight, float* y,
               const Statistics* statistics) {
  const Depthwise layer = *given_layer;
  const int64_t row = layer.width * layer.channels, out_row = layer.columns() * layer.channels;
  const int64_t group = std::min(layer.rows(), std::max<int64_t>(1, 64 / layer.columns()));  // rows of a part
  const int64_t parts = (layer.rows() + group - 1) / group;
  const std::vector<float> taps = by_tap(weight, layer.channels);
  Moments moments(layer.images * parts, layer.channels);
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int thread = 0; thread < threads; ++thread) {
    Window window(layer, layer.height);
    const Affine affine = norm ? Affine(*norm, layer.channels) : Affine({}, 0);
    for (int64_t n = first_of(thread, threads, layer.images); n < first_of(thread + 1, threads, layer.images); ++n) {
      int64_t there = 0;
      for (int64_t o = 0; o < layer.rows(); ++o) {
        for (; there < std::min(layer.height, o * layer.stride + layer.dilation + 1); ++there) {
          const float* from = x + (n * layer.height + there) * row;
          float* to = window.row(there);
          if (norm) affine.fill(layer.width, layer.channels, from, to, layer.channels, nullptr);
          else std::copy_n(from, row, to);
        }
        const float *from[3], *weights[3];
        int met = 0;
        for (int r = 0; r < 3; ++r) {
          const int64_t at = o * layer.stride + (r - 1) * layer.dilation;
          if (at < 0 || at >= layer.height) continue;
          from[met] = window.row(at);
          weights[met++] = &taps[r * 3 * layer.channels];
        }
        constexpr decltype(&correlate<1>) of[] = {correlate<1>, correlate<2>, correlate<3>};
        float* to = y + (n * layer.rows() + o) * out_row;
        of[met - 1](layer, from, weights, window.side * layer.channels, to);
        const int64_t begun = o / group * group;
        if (o + 1 == layer.rows() || o + 1 == begun + group)
          moments.take(n * parts + o / group, (o + 1 - begun) * layer.columns(), to - (o - begun) * out_row);
      }
    }
  }
  statistics->take(moments, layer.images * layer.rows() * layer.columns(), layer.channels);
}

// As `pointwise_back`; to_x is always wanted.
void depthwise_back(const Depthwise* given_layer, int threads, const Returned* grad, const float* x, const Norm* norm,
                    const float* weight, float* to_x, float* to_weight, const Given* given) {
  const Depthwise layer = *given_layer;
  const int64_t channels = layer.channels, stride = layer.stride, row = layer.width * channels;
  const std::vector<float> taps = by_tap(weight, channels);
  const Whole whole(*grad, layer.images * layer.rows() * layer.columns(), channels);
  Sums sums(norm ? layer.images : 0, channels);
  std::vector<float> to_taps(layer.images * 9 * channels);
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int thread = 0; thread < threads; ++thread) {
    Window window(layer, layer.rows());
    std::vector<float> read(norm ? row : 0);
    const Affine affine = norm ? Affine(*norm, channels) : Affine({}, 0);
    for (int64_t n = first_of(thread, threads, layer.images); n < first_of(thread + 1, threads, layer.images); ++n) {
      int64_t there = 0;
      for (int64_t i = 0; i < layer.height; ++i) {
        for (; there < layer.rows() && there * stride <= i + layer.dilation; ++there) {
          const int64_t first = (n * layer.rows() + there) * layer.columns();  // columns between those stay 0
          whole.fill(first, layer.columns(), channels, window.row(there), stride * channels);
        }
        const float* maps = x + (n * layer.height + i) * row;
        if (norm) affine.fill(layer.width, channels, maps, read.data(), channels, nullptr);
        const float *from[3], *weights[3];
        float* to_weights[3];
        int met = 0;
        for (int r = 0; r < 3; ++r) {
          const int64_t at = i - (r - 1) * layer.dilation;
          if (at < 0 || at % stride != 0 || at / stride >= layer.rows()) continue;
          from[met] = window.row(at / stride);
          weights[met] = &taps[r * 3 * channels];
          to_weights[met++] = &to_taps[(n * 9 + r * 3) * channels];
        }
        float* to = to_x + (n * layer.height + i) * row;
        constexpr decltype(&scatter<1>) of[] = {scatter<1>, scatter<2>, scatter<3>};
        if (met == 0) std::fill_n(to, row, 0.0f);
        else of[met - 1](layer, from, weights, to_weights, window.side * channels, norm ? read.data() : maps, to);
        if (norm) sums.take(affine, n, layer.width, to, maps, to);
      }
    }
  }
  for (int64_t c = 0; c < channels; ++c)
    for (int64_t tap = 0; tap < 9; ++tap) {
      double total = 0;
      for (int64_t n = 0; n < layer.images; ++n) total += to_taps[(n * 9 + tap) * channels + c];
      to_weight[c * 9 + tap] = total;
    }
  if (norm) given->take(sums, *norm, channels);
}

void finish(int64_t pixels, int64_t channels, int threads, const float* x, const Norm* norm, const float* added,
            float* y) {
  normalized(pixels, channels, threads, x, *norm, added, y);
}

void finish_back(int64_t pixels, int64_t channels, int threads, const float* grad, const float* x, const Norm* norm,
                 float* to_x, const Given* given) {
  const int64_t parts = (pixels + PART - 1) / PART;
  const Affine affine(*norm, channels);
  Sums sums(parts, channels);
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int64_t part = 0; part < parts; ++part) {
    const int64_t at = part * PART * channels;
    sums.take(affine, part, std::min(PART, pixels - part * PART), grad + at, x + at, to_x + at);
  }
  given->take(sums, *norm, channels);
}

}  // extern "C"
