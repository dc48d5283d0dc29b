// 3x3 convolutions of a chain, without stride, in fewer products: Winograd's F(2x2, 3x3).
//
// A tile of 2x2 results is read from 4x4 pixels. Both and the filter have 16 frequencies; those of the results are the
// products, summed over channels, of those of the pixels and the filter: 16 products instead of 36, each frequency a
// matrix product over tiles. All steps are linear, so going backward is their transposes in turn.

#include "winograd.h"

namespace {

constexpr int64_t TILES = 128;  // that are worked on at a time

// The tiles of some images, and how their pixels lie in maps.
class Tiles {
 public:
  Tiles(const Layer& layer, int64_t first, int64_t last)
      : count((last - first) * ((layer.height + 1) / 2) * ((layer.width + 1) / 2)), layer_(layer), first_(first),
        down_((layer.height + 1) / 2), right_((layer.width + 1) / 2) {}

  const int64_t count;

  // Of a tile, the pixel `down` and `right` from its first result; -1 outside the map.
  int64_t pixel(int64_t tile, int down, int right) const {
    const int64_t y = tile / right_ % down_ * 2 + down, x = tile % right_ * 2 + right;
    if (y < 0 || y >= layer_.height || x < 0 || x >= layer_.width) return -1;
    return ((first_ + tile / right_ / down_) * layer_.height + y) * layer_.width + x;
  }

 private:
  const Layer& layer_;
  const int64_t first_, down_, right_;
};

// From weights, rows apart by `row` and taps by `tap`.
void filter(int64_t rows, int64_t columns, const float* from, int64_t row, int64_t tap, const Frequencies& to) {
  for (int64_t i = 0; i < rows; ++i)
    for (int64_t c = 0; c < columns; c += 8)
      transform<Filter>([&](int r, int k) { return load(from + i * row + (3 * r + k) * tap + c); },
                        [&](int r, int k, Eight value) { store(to.at(r, k, i * to.row + c), value); });
}

// From those of the gradient to weights (rows, 9, columns).
void filter_back(int64_t rows, int64_t columns, const Frequencies& from, float* to) {
  for (int64_t i = 0; i < rows; ++i)
    for (int64_t c = 0; c < columns; c += 8)
      transform<ToFilter>([&](int r, int k) { return load(from.at(r, k, i * from.row + c)); },
                          [&](int r, int k, Eight value) { store(to + (i * 9 + 3 * r + k) * columns + c, value); });
}

// Tiles begin, ..., end - 1 of the maps, which are normalised unless `affine` is null.
void read(const Tiles& tiles, int64_t begin, int64_t end, int64_t channels, const float* x, const Affine* affine,
          const Frequencies& to) {
  for (int64_t tile = begin; tile < end; ++tile) {
    int64_t pixels[4][4];
    for (int r = 0; r < 4; ++r)
      for (int k = 0; k < 4; ++k) pixels[r][k] = tiles.pixel(tile, r - 1, k - 1);
    for (int64_t c = 0; c < channels; c += 8)
      transform<Pixels>(
          [&](int r, int k) {
            if (pixels[r][k] < 0) return Eight{};
            const Eight value = load(x + pixels[r][k] * channels + c);
            return affine ? affine->clamped(value, c) : value;
          },
          [&](int r, int k, Eight value) { store(to.at(r, k, (tile - begin) * to.row + c), value); });
  }
}

void write(const Tiles& tiles, int64_t begin, int64_t end, int64_t channels, const Frequencies& from, float* y) {
  for (int64_t tile = begin; tile < end; ++tile)
    for (int64_t c = 0; c < channels; c += 8)
      transform<Results>([&](int r, int k) { return load(from.at(r, k, (tile - begin) * from.row + c)); },
                         [&](int r, int k, Eight value) {
                           const int64_t pixel = tiles.pixel(tile, r, k);
                           if (pixel >= 0) store(y + pixel * channels + c, value);
                         });
}

void read_back(const Tiles& tiles, int64_t begin, int64_t end, int64_t channels, const Whole& grad,
               const Frequencies& to) {
  for (int64_t tile = begin; tile < end; ++tile)
    for (int64_t c = 0; c < channels; c += 8)
      transform<ToResults>(
          [&](int r, int k) {
            const int64_t pixel = tiles.pixel(tile, r, k);
            return pixel < 0 ? Eight{} : grad.value(pixel * channels + c, c);
          },
          [&](int r, int k, Eight value) { store(to.at(r, k, (tile - begin) * to.row + c), value); });
}

void add_back(const Tiles& tiles, int64_t begin, int64_t end, int64_t channels, const Frequencies& from, float* to_x) {
  for (int64_t tile = begin; tile < end; ++tile) {
    int64_t pixels[4][4];
    for (int r = 0; r < 4; ++r)
      for (int k = 0; k < 4; ++k) pixels[r][k] = tiles.pixel(tile, r - 1, k - 1);
    for (int64_t c = 0; c < channels; c += 8)
      transform<ToPixels>([&](int r, int k) { return load(from.at(r, k, (tile - begin) * from.row + c)); },
                          [&](int r, int k, Eight value) {
                            float* to = to_x + pixels[r][k] * channels + c;
                            if (pixels[r][k] >= 0) store(to, load(to) + value);
                          });
  }
}

// Calls work(first image, image after the last) for images begin, ..., end - 1, as many at a time as have enough tiles.
template <class Work>
void by_images(const Layer& layer, int64_t begin, int64_t end, Work work) {
  const int64_t some = std::max<int64_t>(1, 4 * TILES / (layer.height * layer.width));
  for (int64_t n = begin; n < end; n += some) work(n, std::min(end, n + some));
}

// Parts of the pixels, each within an image.
struct Parts {
  const int64_t size, each;  // pixels and parts of an image
  explicit Parts(const Layer& layer) : size(layer.height * layer.width), each((size + PART - 1) / PART) {}

  // Calls work(part, first pixel, how many) for some images.
  template <class Work>
  void of(int64_t first, int64_t last, Work work) const {
    for (int64_t part = first * each; part < last * each; ++part) {
      const int64_t at = part % each * PART;
      work(part, part / each * size + at, std::min(PART, size - at));
    }
  }
};

// The weights as (9, in, out).
Scratch transposed(const Layer& layer, const float* weight) {
  const int64_t in = layer.in, out = layer.out;
  Scratch result(9 * in * out);
  for (int64_t tap = 0; tap < 9; ++tap)
    for (int64_t o = 0; o < out; o += 8)
      for (int64_t i = 0; i < in; ++i)
        for (int64_t k = o; k < o + 8; ++k) result.data()[(tap * in + i) * out + k] = weight[(k * 9 + tap) * in + i];
  return result;
}

// A thread's part of the backward pass; `mine`, its frequencies of the gradient to the weight.
class Back {
 public:
  Back(const Layer& layer, const float* x, const Affine* affine, const Frequencies& weights, const Whole& whole,
       float* to_x, float* mine)
      : layer_(layer), x_(x), affine_(affine), weights_(weights), whole_(whole), to_x_(to_x), mine_(mine),
        pixels_(TILES, layer.in), results_(TILES, layer.out) {}

  void images(int64_t first, int64_t last) {
    const Tiles tiles(layer_, first, last);
    const int64_t image = layer_.height * layer_.width * layer_.in;
    if (to_x_) std::fill(to_x_ + first * image, to_x_ + last * image, 0.0f);
    for (int64_t begin = 0; begin < tiles.count; begin += TILES) {
      const int64_t end = std::min(tiles.count, begin + TILES);
      read(tiles, begin, end, layer_.in, x_, affine_, pixels_);
      read_back(tiles, begin, end, layer_.out, whole_, results_);
      for (int f = 0; f < 16; ++f) products(f, end - begin);
      if (to_x_) add_back(tiles, begin, end, layer_.in, pixels_, to_x_);
      begun_ = true;
    }
  }

 private:
  void products(int f, int64_t count) {
    const float* results = results_.of(f);
    float* pixels = pixels_.of(f);
    product(layer_.out, count, layer_.in, results, 1, results_.row, pixels, pixels_.row,
            mine_ + f * layer_.out * pixels_.row, pixels_.row, begun_);
    if (to_x_)  // in place of the pixels
      product(count, layer_.out, layer_.in, results, results_.row, 1, weights_.of(f), weights_.row, pixels,
              pixels_.row, false);
  }

  const Layer& layer_;
  const float* x_;
  const Affine* affine_;
  const Frequencies& weights_;
  const Whole& whole_;
  float *to_x_, *mine_;
  const Frequencies pixels_, results_;
  bool begun_ = false;
};

}  // namespace

void dense(const Layer& layer, int threads, const float* x, const Norm* norm, const float* weight, float* y,
           const Statistics& statistics) {
  const int64_t in = layer.in, out = layer.out;
  const Frequencies weights(in, out);
  filter(in, out, transposed(layer, weight).data(), out, in * out, weights);
  const Affine affine = norm ? Affine(*norm, in) : Affine({}, 0);
  const Parts parts(layer);
  Moments moments(layer.images * parts.each, out);
  in_threads(threads, layer.images, [&](int64_t from, int64_t to, int) {
    const Frequencies pixels(TILES, in), results(TILES, out);
    by_images(layer, from, to, [&](int64_t first, int64_t last) {
      const Tiles tiles(layer, first, last);
      for (int64_t begin = 0; begin < tiles.count; begin += TILES) {
        const int64_t end = std::min(tiles.count, begin + TILES);
        read(tiles, begin, end, in, x, norm ? &affine : nullptr, pixels);
        for (int f = 0; f < 16; ++f)
          product(end - begin, in, out, pixels.of(f), pixels.row, 1, weights.of(f), weights.row, results.of(f),
                  results.row, false);
        write(tiles, begin, end, out, results, y);
      }
      parts.of(first, last, [&](int64_t part, int64_t at, int64_t count) { moments.take(part, count, y + at * out); });
    });
  });
  statistics.take(moments, layer.pixels(), out);
}

void dense_back(const Layer& layer, int threads, const Returned& grad, const float* x, const Norm* norm,
                const float* weight, float* to_x, float* to_weight, const Given* given) {
  const int64_t in = layer.in, out = layer.out;
  const Frequencies weights(to_x ? out : 0, in), to_weights(out, in);
  if (to_x) filter(out, in, weight, 9 * in, in, weights);
  const Whole whole(grad, layer.pixels(), out);
  const Affine affine = norm ? Affine(*norm, in) : Affine({}, 0);
  const Gathered gathered(busy(threads, layer.images), 16 * out * to_weights.row, to_weights.of(0));
  const Parts parts(layer);
  Sums sums(norm ? layer.images * parts.each : 0, in);
  in_threads(threads, layer.images, [&](int64_t begin, int64_t end, int thread) {
    Back back(layer, x, norm ? &affine : nullptr, weights, whole, to_x, gathered.of(thread));
    by_images(layer, begin, end, [&](int64_t first, int64_t last) {
      back.images(first, last);
      if (norm)
        parts.of(first, last, [&](int64_t part, int64_t at, int64_t count) {
          sums.take(affine, part, count, to_x + at * in, x + at * in, to_x + at * in);
        });
    });
  });
  gathered.total();
  filter_back(out, in, to_weights, to_weight);
  if (norm) given->take(sums, *norm, in);
}
