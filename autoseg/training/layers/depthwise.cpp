// 3x3 depthwise convolutions of a chain, with padding as their dilation: row after row of a window over the maps.

#include "links.h"

namespace {

// Rows of a map that are in use at a time, with zeros left and right of each.
class Window {
 public:
  Window(const Layer& layer, int64_t height)
      : side(std::min(layer.dilation, layer.width)), slots_(std::min(height, 2 * layer.dilation + 1)),
        length_((layer.width + 2 * side) * layer.in), offset_(side * layer.in), numbers_(slots_ * length_) {}

  const int64_t side;  // columns of zeros; a tap further away than the map is wide reads nothing but them

  float* row(int64_t row) { return &numbers_[row % slots_ * length_ + offset_]; }

 private:
  int64_t slots_, length_, offset_;
  std::vector<float> numbers_;
};

// The rows of a window that a row of maps meets, 1 to 3 of them, with the taps in between.
struct Met {
  int count = 0;
  const float *from[3], *taps[3];
  float* to_taps[3];

  void add(const float* row, const float* its_taps, float* its_to_taps) {
    from[count] = row;
    taps[count] = its_taps;
    to_taps[count++] = its_to_taps;
  }
};

std::vector<float> by_tap(const float* weight, int64_t channels) {  // (9, channels)
  std::vector<float> result(9 * channels);
  for (int64_t c = 0; c < channels; ++c)
    for (int tap = 0; tap < 9; ++tap) result[tap * channels + c] = weight[c * 9 + tap];
  return result;
}

// One row of results, LANES of their channels, from ROWS rows that it meets.
template <int LANES, int ROWS>
void correlate(const Layer& layer, const Met& met, int64_t reach, int64_t c, float* y) {
  typedef typename Numbers<LANES>::type Vector;
  const int64_t step = layer.stride * layer.in;
  Vector tap[ROWS][3];
  for (int r = 0; r < ROWS; ++r)
    for (int k = 0; k < 3; ++k) tap[r][k] = load_some<LANES>(met.taps[r] + k * layer.in + c);
  for (int64_t i = 0; i < layer.columns(); ++i) {
    Vector sum = {};
    for (int r = 0; r < ROWS; ++r)
      for (int k = 0; k < 3; ++k) sum += tap[r][k] * load_some<LANES>(met.from[r] + i * step + c + (k - 1) * reach);
    store_some<LANES>(y + i * layer.in + c, sum);
  }
}

// One row of the gradient to the maps, and its part of that to the weights, from ROWS rows of gradients that it meets.
template <int LANES, int ROWS>
void scatter(const Layer& layer, const Met& met, int64_t reach, int64_t c, const float* read, float* to_x) {
  typedef typename Numbers<LANES>::type Vector;
  Vector tap[ROWS][3], total[ROWS][3];
  for (int r = 0; r < ROWS; ++r)
    for (int k = 0; k < 3; ++k) {
      tap[r][k] = load_some<LANES>(met.taps[r] + k * layer.in + c);
      total[r][k] = load_some<LANES>(met.to_taps[r] + k * layer.in + c);
    }
  for (int64_t i = 0; i < layer.width; ++i) {
    const int64_t at = i * layer.in + c;
    const Vector value = load_some<LANES>(read + at);
    Vector sum = {};
    for (int r = 0; r < ROWS; ++r)
      for (int k = 0; k < 3; ++k) {
        const Vector grad = load_some<LANES>(met.from[r] + at - (k - 1) * reach);
        sum += tap[r][k] * grad;
        total[r][k] += value * grad;
      }
    store_some<LANES>(to_x + at, sum);
  }
  for (int r = 0; r < ROWS; ++r)
    for (int k = 0; k < 3; ++k) store_some<LANES>(met.to_taps[r] + k * layer.in + c, total[r][k]);
}

// Calls work(first channel, how many at a time, how many rows).
template <class Work>
void by_channels(int64_t channels, int rows, Work work) {
  const auto some = [&](int64_t c, auto lanes) {
    if (rows == 1) work(c, lanes, Width<1>());
    else if (rows == 2) work(c, lanes, Width<2>());
    else work(c, lanes, Width<3>());
  };
  int64_t c = 0;
  for (; c + WIDEST <= channels; c += WIDEST) some(c, Width<WIDEST>());
  for (; c < channels; c += 8) some(c, Width<8>());
}

class Forward {  // a thread's
 public:
  Forward(const Layer& layer, const float* x, const Affine* affine, const float* taps, float* y)
      : layer_(layer), x_(x), affine_(affine), taps_(taps), y_(y), window_(layer, layer.height) {}

  // Rows first, ..., last - 1 of an image's results; those before have been taken.
  void rows(int64_t image, int64_t first, int64_t last) {
    const int64_t channels = layer_.in, reach = window_.side * channels;
    for (int64_t o = first; o < last; ++o) {
      if (o == 0) there_ = 0;
      for (; there_ < std::min(layer_.height, o * layer_.stride + layer_.dilation + 1); ++there_)
        read(image * layer_.height + there_, window_.row(there_));
      Met met;
      for (int r = 0; r < 3; ++r) {
        const int64_t at = o * layer_.stride + (r - 1) * layer_.dilation;
        if (at >= 0 && at < layer_.height) met.add(window_.row(at), taps_ + r * 3 * channels, nullptr);
      }
      float* to = y_ + (image * layer_.rows() + o) * layer_.columns() * channels;
      by_channels(channels, met.count, [&](int64_t c, auto lanes, auto rows) {
        correlate<decltype(lanes)::value, decltype(rows)::value>(layer_, met, reach, c, to);
      });
    }
  }

 private:
  void read(int64_t row, float* to) const {
    const float* from = x_ + row * layer_.width * layer_.in;
    if (affine_) affine_->fill(layer_.width, layer_.in, from, to, layer_.in, nullptr);
    else std::copy_n(from, layer_.width * layer_.in, to);
  }

  const Layer& layer_;
  const float* x_;
  const Affine* affine_;
  const float* taps_;
  float* y_;
  Window window_;
  int64_t there_ = 0;  // rows of the image that have been read
};

class Backward {  // a thread's
 public:
  Backward(const Layer& layer, const Whole& whole, const float* x, const Affine* affine, const float* taps)
      : layer_(layer), whole_(whole), x_(x), affine_(affine), taps_(taps), window_(layer, layer.rows()),
        read_(layer.width * layer.in) {}

  // The gradient to an image, and to the taps from it; `sums`, part by part an image, where there is a norm.
  void image(int64_t image, float* to_x, float* to_taps, Sums& sums) {
    const int64_t channels = layer_.in, row = layer_.width * channels, stride = layer_.stride;
    int64_t there = 0;
    for (int64_t i = 0; i < layer_.height; ++i) {
      for (; there < layer_.rows() && there * stride <= i + layer_.dilation; ++there) {
        const int64_t first = (image * layer_.rows() + there) * layer_.columns();  // columns between those stay 0
        whole_.fill(first, layer_.columns(), channels, window_.row(there), stride * channels);
      }
      const int64_t at = (image * layer_.height + i) * row;
      if (affine_) affine_->fill(layer_.width, channels, x_ + at, read_.data(), channels, nullptr);
      this->row(i, affine_ ? read_.data() : x_ + at, to_x + at, to_taps);
      if (affine_) sums.take(*affine_, image, layer_.width, to_x + at, x_ + at, to_x + at);
    }
  }

 private:
  void row(int64_t i, const float* read, float* to, float* to_taps) {
    const int64_t channels = layer_.in, reach = window_.side * channels;
    Met met;
    for (int r = 0; r < 3; ++r) {
      const int64_t at = i - (r - 1) * layer_.dilation;
      if (at < 0 || at % layer_.stride != 0 || at / layer_.stride >= layer_.rows()) continue;
      met.add(window_.row(at / layer_.stride), taps_ + r * 3 * channels, to_taps + r * 3 * channels);
    }
    if (met.count == 0) std::fill_n(to, layer_.width * channels, 0.0f);
    else
      by_channels(channels, met.count, [&](int64_t c, auto lanes, auto rows) {
        scatter<decltype(lanes)::value, decltype(rows)::value>(layer_, met, reach, c, read, to);
      });
  }

  const Layer& layer_;
  const Whole& whole_;
  const float* x_;
  const Affine* affine_;
  const float* taps_;
  Window window_;
  const Scratch read_;
};

}  // namespace

void depthwise(const Layer& layer, int threads, const float* x, const Norm* norm, const float* weight, float* y,
               const Statistics& statistics) {
  const int64_t out_row = layer.columns() * layer.in;
  const int64_t group = std::min(layer.rows(), std::max<int64_t>(1, 64 / layer.columns()));  // rows of a part
  const int64_t parts = (layer.rows() + group - 1) / group;
  const std::vector<float> taps = by_tap(weight, layer.in);
  const Affine affine = norm ? Affine(*norm, layer.in) : Affine({}, 0);
  Moments moments(layer.images * parts, layer.in);
  in_threads(threads, layer.images, [&](int64_t begin, int64_t end, int) {
    Forward forward(layer, x, norm ? &affine : nullptr, taps.data(), y);
    for (int64_t n = begin; n < end; ++n)
      for (int64_t part = 0; part < parts; ++part) {
        const int64_t first = part * group, last = std::min(layer.rows(), first + group);
        forward.rows(n, first, last);
        moments.take(n * parts + part, (last - first) * layer.columns(), y + (n * layer.rows() + first) * out_row);
      }
  });
  statistics.take(moments, layer.pixels(), layer.in);
}

void depthwise_back(const Layer& layer, int threads, const Returned& grad, const float* x, const Norm* norm,
                    const float* weight, float* to_x, float* to_weight, const Given* given) {
  const int64_t channels = layer.in;
  const std::vector<float> taps = by_tap(weight, channels);
  const Whole whole(grad, layer.pixels(), channels);
  const Affine affine = norm ? Affine(*norm, channels) : Affine({}, 0);
  Sums sums(norm ? layer.images : 0, channels);
  std::vector<float> to_taps(layer.images * 9 * channels);
  in_threads(threads, layer.images, [&](int64_t begin, int64_t end, int) {
    Backward backward(layer, whole, x, norm ? &affine : nullptr, taps.data());
    for (int64_t n = begin; n < end; ++n) backward.image(n, to_x, &to_taps[n * 9 * channels], sums);
  });
  for (int64_t c = 0; c < channels; ++c)
    for (int64_t tap = 0; tap < 9; ++tap) {
      double total = 0;
      for (int64_t n = 0; n < layer.images; ++n) total += to_taps[(n * 9 + tap) * channels + c];
      to_weight[c * 9 + tap] = total;
    }
  if (norm) given->take(sums, *norm, channels);
}
