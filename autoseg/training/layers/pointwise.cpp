// 1x1 convolutions of a chain: products of the maps, a block of pixels at a time.

#include "links.h"

namespace {

int64_t block_rows(const Layer& layer) {
  return std::clamp<int64_t>(BLOCK / std::max(layer.in, layer.out) / 12 * 12, 24, 192);
}

}  // namespace

void pointwise(const Layer& layer, int threads, const float* x, const Norm* norm, const float* weight, float* y,
               const Statistics& statistics) {
  const int64_t in = layer.in, out = layer.out, pixels = layer.pixels();
  const int64_t rows = block_rows(layer), parts = (pixels + rows - 1) / rows;
  const Packed packed(in, out, weight, 1, in);
  Moments moments(parts, out);
  in_threads(threads, parts, [&](int64_t begin, int64_t end, int) {
    const Scratch read(norm ? rows * (in + PAD) : 0);
    const Affine affine = norm ? Affine(*norm, in) : Affine({}, 0);
    for (int64_t part = begin; part < end; ++part) {
      const int64_t start = part * rows, count = std::min(rows, pixels - start);
      if (norm) affine.fill(count, in, x + start * in, read.data(), in + PAD, nullptr);
      packed.multiply(count, norm ? read.data() : x + start * in, norm ? in + PAD : in, y + start * out);
      moments.take(part, count, y + start * out);
    }
  });
  statistics.take(moments, pixels, out);
}

void pointwise_back(const Layer& layer, int threads, const Returned& grad, const float* x, const Norm* norm,
                    const float* weight, float* to_x, float* to_weight, const Given* given) {
  const int64_t in = layer.in, out = layer.out, pixels = layer.pixels();
  const int64_t rows = block_rows(layer), parts = (pixels + rows - 1) / rows;
  const Packed packed(out, in, weight, in, 1);
  const Whole whole(grad, pixels, out);
  const Gathered weights(busy(threads, parts), in * out, to_weight);
  Sums sums(norm ? parts : 0, in);
  in_threads(threads, parts, [&](int64_t begin, int64_t end, int thread) {
    const Scratch gradient(rows * (out + PAD)), read(norm ? rows * (in + PAD) : 0);
    const Affine affine = norm ? Affine(*norm, in) : Affine({}, 0);
    for (int64_t part = begin; part < end; ++part) {
      const int64_t start = part * rows, count = std::min(rows, pixels - start);
      const float* maps = x + start * in;
      whole.fill(start, count, out, gradient.data(), out + PAD);
      if (to_x) packed.multiply(count, gradient.data(), out + PAD, to_x + start * in);
      if (norm) {
        if (to_x) sums.take(affine, part, count, to_x + start * in, maps, to_x + start * in);
        affine.fill(count, in, maps, read.data(), in + PAD, nullptr);
      }
      product(out, count, in, gradient.data(), 1, out + PAD, norm ? read.data() : maps, norm ? in + PAD : in,
              weights.of(thread), in, part > begin);
    }
  });
  weights.total();
  if (norm) given->take(sums, *norm, in);
}
