// Chains conv, norm, activation, conv, norm, activation ... in training (see chain.py), forward and backward.

#include "links.h"

extern "C" {

// A convolution, the norm and activation after it, and what is kept of its forward pass.
struct Link {
  int64_t kind, in, out, stride, dilation;
  const float* weight;
  Norm norm;
  Statistics statistics;
  int64_t* batches;  // counted by the norm; or null
  float* maps;       // as the convolution gives them
};

// Where the gradients to the parameters of a link are put.
struct Gradients {
  float *weight, *norm_weight, *norm_bias;
};

// Maps that a chain reads: (images, height, width, channels of the first link).
struct Shape {
  int64_t images, height, width;
};

}  // extern "C"

namespace {

struct Convolution {
  decltype(&pointwise) forward;
  decltype(&pointwise_back) back;
};
constexpr Convolution CONVOLUTIONS[] = {{pointwise, pointwise_back}, {depthwise, depthwise_back}, {dense, dense_back}};

std::vector<Layer> layers(const Link* links, int64_t count, Shape shape) {
  std::vector<Layer> result;
  for (int64_t i = 0; i < count; ++i) {
    const Link& link = links[i];
    result.push_back({shape.images, shape.height, shape.width, link.in, link.out, link.stride, link.dilation});
    shape = {shape.images, result[i].rows(), result[i].columns()};
  }
  return result;
}

// The gradient to maps from that to their norm and activation, as if the maps' statistics were constants.
void finish_back(int64_t pixels, int64_t channels, int threads, const float* grad, const float* x, const Norm& norm,
                 float* to_x, const Given& given) {
  const int64_t parts = (pixels + PART - 1) / PART;
  const Affine affine(norm, channels);
  Sums sums(parts, channels);
  in_threads(threads, parts, [&](int64_t first, int64_t end, int) {
    for (int64_t part = first; part < end; ++part) {
      const int64_t at = part * PART * channels;
      sums.take(affine, part, std::min(PART, pixels - part * PART), grad + at, x + at, to_x + at);
    }
  });
  given.take(sums, norm, channels);
}

// Gradients to the statistics of a link's maps.
struct ToStatistics {
  std::vector<float> mean, inverse;
  ToStatistics(const Link& link) : mean(link.out), inverse(link.out) {}
  Given given(const Gradients& to) { return {mean.data(), inverse.data(), to.norm_weight, to.norm_bias}; }
};

}  // namespace

extern "C" {

// y from x, `added` added unless it is null.
int chain(const Link* links, int64_t count, const Shape* shape, int threads, const float* x, const float* added,
          float* y) {
  return status([&] {
    const std::vector<Layer> all = layers(links, count, *shape);
    const Norm* norm = nullptr;
    for (int64_t i = 0; i < count; ++i) {
      const Link& link = links[i];
      CONVOLUTIONS[link.kind].forward(all[i], threads, x, norm, link.weight, link.maps, link.statistics);
      if (link.batches) ++*link.batches;
      x = link.maps;
      norm = &link.norm;
    }
    normalized(all.back().pixels(), all.back().out, threads, x, *norm, added, y);
  });
}

// to_x null: not wanted.
int chain_back(const Link* links, int64_t count, const Shape* shape, int threads, const float* x, const float* grad,
               const Gradients* gradients, float* to_x) {
  return status([&] {
    const std::vector<Layer> all = layers(links, count, *shape);
    ToStatistics to(links[count - 1]);
    const int64_t pixels = all.back().pixels(), out = all.back().out;
    Scratch to_maps(pixels * out);
    finish_back(pixels, out, threads, grad, links[count - 1].maps, links[count - 1].norm, to_maps.data(),
                to.given(gradients[count - 1]));
    for (int64_t i = count - 1; i >= 0; --i) {
      const Link &link = links[i], *before = i > 0 ? &links[i - 1] : nullptr;
      const bool kept = before || (to_x == nullptr && link.kind == DEPTHWISE);
      Scratch inner(kept ? all[i].images * all[i].height * all[i].width * all[i].in : 0);
      ToStatistics to_before(before ? *before : link);
      const Given given = to_before.given(gradients[before ? i - 1 : i]);
      const Returned returned{to_maps.data(),  link.maps,        link.norm.mean, link.norm.inverse,
                              to.mean.data(), to.inverse.data()};
      CONVOLUTIONS[link.kind].back(all[i], threads, returned, before ? before->maps : x,
                                   before ? &before->norm : nullptr, link.weight, kept ? inner.data() : to_x,
                                   gradients[i].weight, &given);
      std::swap(to_maps, inner);
      std::swap(to, to_before);
    }
  });
}

}  // extern "C"
