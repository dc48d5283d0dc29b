// Totals of formulas that erode or dilate the prediction, and their gradient, one channel of one image after the other:
// what `by_channel.py` computes, written for a compiler. `native.py` builds it, `native_channels.py` writes the program.
//
// A channel is one thread's, and sums are in a fixed order: the result does not depend on the number of threads.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "curve.h"
#include "windows.h"

namespace {

enum Op : int64_t { PRED, LABEL, WIDENED, ERODE, DILATE, EDGE, AND, OR };

struct Rule {  // a curve; none of no pieces: g(x) = x
  const Piece* pieces;
  int64_t count;
};

struct Node {  // a plane, made of those before it
  int64_t op, soft, a, b;
  int64_t px;            // ERODE, DILATE
  double outside;        // ERODE
  const int64_t* map;    // LABEL: classes (N, P). WIDENED: bits of BITS classes each (words, N, P)
  Rule rules[4];         // EDGE: AND of a, AND of b, OR of a, OR of b. AND, OR: of a, of b
};

struct Total {
  int64_t a, b;         // planes; b -1: only a
  const uint8_t* mask;  // (N, P), null for all pixels
};

struct Program {
  const Node* nodes;
  int64_t count;
  const Total* totals;
  int64_t asked, images, classes, height, width, bits;
  int64_t pixels() const { return height * width; }
};

constexpr int64_t CHUNK = 512;  // pixels

// Of at most `left` logits; `norm` is their largest ones, `apart` further on the factors, see pointwise.cpp.
Float softmax(const float* x, const float* norm, int64_t apart, int64_t left) {
  return exponential(load_some(x, left) - load_some(norm, left)) * load_some(norm + apart, left);
}

template <int K>
void evaluate(const float* x, float* values, float* slopes, const Piece* pieces) {
  const Curve<K> curve(pieces);
  for (int64_t i = 0; i < CHUNK; i += WIDTH) {
    store(values + i, curve.value(load(x + i)));
    if (slopes != nullptr) store(slopes + i, curve.slope(load(x + i)));
  }
}

// A chunk of g(x), and of g'(x) unless `slopes` is null.
void apply(const Rule& rule, const float* x, float* values, float* slopes) {
  constexpr decltype(&evaluate<1>) of[] = {evaluate<1>, evaluate<2>, evaluate<3>, evaluate<4>,
                                           evaluate<5>, evaluate<6>, evaluate<7>, evaluate<8>};
  if (rule.count > 0) return of[rule.count - 1](x, values, slopes, rule.pieces);
  std::copy_n(x, CHUNK, values);
  if (slopes != nullptr) std::fill_n(slopes, CHUNK, 1.0f);
}

class Channel {  // the planes of one channel; buffers are kept from one to the next
 public:
  explicit Channel(const Program& program)
      : program_(program), size_((program.pixels() + CHUNK - 1) / CHUNK * CHUNK), windows_(program.height, program.width),
        values_(program.count), grads_(program.count), places_(program.count) {
    for (auto& each : values_) each.resize(size_);
  }

  void forward(int64_t image, int64_t channel, const float* logits, const float* normalizer, double* sums) {
    make_all(image, channel, logits, normalizer, false);
    const int64_t row = image * program_.classes + channel, rows = program_.images * program_.classes;
    for (int64_t k = 0; k < program_.asked; ++k) sums[k * rows + row] = total(program_.totals[k], image);
  }

  // Writes p dL/dp; `weights` (asked, N, C) are the gradients of the totals.
  void backward(int64_t image, int64_t channel, const float* logits, const float* normalizer, const float* weights,
                float* out) {
    make_all(image, channel, logits, normalizer, true);
    for (int64_t k = 0; k < program_.count; ++k)
      if (program_.nodes[k].soft) grads_[k].assign(size_, 0.0f);
    const int64_t row = image * program_.classes + channel, rows = program_.images * program_.classes;
    for (int64_t k = 0; k < program_.asked; ++k) pull(program_.totals[k], image, weights[k * rows + row]);
    for (int64_t k = program_.count - 1; k >= 0; --k)
      if (program_.nodes[k].soft) push(k);
    out += row * program_.pixels();
    for (int64_t k = 0; k < program_.count; ++k)
      if (program_.nodes[k].op == PRED)
        for (int64_t i = 0; i < program_.pixels(); ++i) out[i] = values_[k][i] * grads_[k][i];
  }

 private:
  void make_all(int64_t image, int64_t channel, const float* logits, const float* normalizer, bool places) {
    const int64_t pixels = program_.pixels();
    for (int64_t k = 0; k < program_.count; ++k) {
      const Node& node = program_.nodes[k];
      float* out = values_[k].data();
      const float* a = values_[node.a].data();
      if (node.op == PRED) {
        const float *x = logits + (image * program_.classes + channel) * pixels, *norm = normalizer + image * pixels;
        for (int64_t i = 0; i < pixels; i += WIDTH)
          store(out + i, softmax(x + i, norm + i, program_.images * pixels, pixels - i));
      } else if (node.op == LABEL) {
        const int64_t* map = node.map + image * pixels;
        for (int64_t i = 0; i < pixels; ++i) out[i] = map[i] == channel;
      } else if (node.op == WIDENED) {
        const int64_t word = channel / program_.bits, bit = channel % program_.bits;
        const int64_t* map = node.map + (word * program_.images + image) * pixels;
        for (int64_t i = 0; i < pixels; ++i) out[i] = static_cast<float>(map[i] >> bit & 1);
      } else if (node.op == ERODE || node.op == DILATE) {
        if (places) places_[k].resize(pixels);
        const float outside = node.op == DILATE ? -INFINITY : static_cast<float>(node.outside);
        windows_.extremes(a, node.px, node.op == DILATE, outside, out, places ? places_[k].data() : nullptr);
      } else {
        for (int64_t i = 0; i < size_; i += CHUNK) combine(node, a + i, values_[node.b].data() + i, out + i);
      }
    }
  }

  static void combine(const Node& node, const float* a, const float* b, float* out) {
    float v[4][CHUNK];
    for (int k = 0; k < (node.op == EDGE ? 4 : 2); ++k) apply(node.rules[k], k % 2 ? b : a, v[k], nullptr);
    for (int64_t i = 0; i < CHUNK; i += WIDTH) {
      const Float v0 = load(v[0] + i), v1 = load(v[1] + i);
      if (node.op == EDGE) store(out + i, above_zero(edge(v0, v1, load(v[2] + i), load(v[3] + i))));
      if (node.op == AND) store(out + i, v0 * v1);
      if (node.op == OR) store(out + i, v0 + v1 - v0 * v1);
    }
  }

  // OR minus AND: b0 + b1 - b0 b1 - a0 a1.
  static Float edge(Float a0, Float a1, Float b0, Float b1) { return b0 + b1 - b0 * b1 - a0 * a1; }

  static Float above_zero(Float x) { return x < 0.0f ? Float{} : x; }

  // The gradient of plane k goes to those it was made of.
  void push(int64_t k) {
    const Node& node = program_.nodes[k];
    if (node.op == ERODE || node.op == DILATE) {
      float* to = grads_[node.a].data();
      for (int64_t i = 0; i < program_.pixels(); ++i)
        if (places_[k][i] >= 0) to[places_[k][i]] += grads_[k][i];
    }
    if (node.op != EDGE && node.op != AND && node.op != OR) return;
    for (int64_t i = 0; i < size_; i += CHUNK)
      separate(node, values_[node.a].data() + i, values_[node.b].data() + i, grads_[k].data() + i,
               gradient(node.a, i), gradient(node.b, i));
  }

  float* gradient(int64_t k, int64_t i) { return program_.nodes[k].soft ? grads_[k].data() + i : unread_; }

  static void separate(const Node& node, const float* a, const float* b, const float* grad, float* to_a, float* to_b) {
    float v[4][CHUNK], s[4][CHUNK];
    for (int k = 0; k < (node.op == EDGE ? 4 : 2); ++k) apply(node.rules[k], k % 2 ? b : a, v[k], s[k]);
    for (int64_t i = 0; i < CHUNK; i += WIDTH) {
      const Float v0 = load(v[0] + i), v1 = load(v[1] + i), g = load(grad + i);
      Float by_a = load(s[0] + i) * v1, by_b = load(s[1] + i) * v0;
      if (node.op == OR) by_a = load(s[0] + i) - by_a, by_b = load(s[1] + i) - by_b;
      if (node.op == EDGE) {
        const Float v2 = load(v[2] + i), v3 = load(v[3] + i);
        const Int rises = edge(v0, v1, v2, v3) > 0.0f;
        by_a = rises ? load(s[2] + i) * (1.0f - v3) - by_a : Float{};
        by_b = rises ? load(s[3] + i) * (1.0f - v2) - by_b : Float{};
      }
      store(to_a + i, load(to_a + i) + g * by_a);
      store(to_b + i, load(to_b + i) + g * by_b);
    }
  }

  double total(const Total& asked, int64_t image) {
    double whole = 0;
    for (int64_t first = 0; first < program_.pixels(); first += CHUNK) {
      const int64_t size = std::min(CHUNK, program_.pixels() - first);
      const float* factor = other(asked, asked.b, image, first);
      Float sum = {};
      for (int64_t i = 0; i < size; i += WIDTH)
        sum += load_some(values_[asked.a].data() + first + i, size - i) * load(factor + i);
      for (int lane = 0; lane < WIDTH; ++lane) whole += sum[lane];
    }
    return whole;
  }

  // Adds a total's gradient to its planes.
  void pull(const Total& asked, int64_t image, float weight) {
    const int64_t pairs[2][2] = {{asked.a, asked.b}, {asked.b, asked.a}};
    for (const auto& pair : pairs) {
      if (pair[0] < 0 || !program_.nodes[pair[0]].soft) continue;
      for (int64_t first = 0; first < size_; first += CHUNK) {
        const float* factor = other(asked, pair[1], image, first);
        float* to = grads_[pair[0]].data() + first;
        for (int64_t i = 0; i < CHUNK; i += WIDTH) store(to + i, load(to + i) + weight * load(factor + i));
      }
    }
  }

  // A chunk of a plane (of ones for -1), 0 where the total's mask is.
  const float* other(const Total& asked, int64_t plane, int64_t image, int64_t first) {
    if (asked.mask == nullptr && plane >= 0) return values_[plane].data() + first;
    if (plane < 0) {
      std::fill_n(factor_, CHUNK, 1.0f);
    } else {
      std::copy_n(values_[plane].data() + first, CHUNK, factor_);
    }
    const int64_t size = std::min(CHUNK, program_.pixels() - first);
    for (int64_t i = 0; asked.mask != nullptr && i < size; ++i)
      factor_[i] *= asked.mask[image * program_.pixels() + first + i];
    return factor_;
  }

  Program program_;
  int64_t size_;  // of a buffer: whole chunks
  Windows windows_;
  std::vector<std::vector<float>> values_, grads_;
  std::vector<std::vector<int32_t>> places_;
  float factor_[CHUNK], unread_[CHUNK] = {};
};

// From p dL/dp to the logits' gradient, p (dL/dp - sum_c p dL/dp).
void center(const Program& program, int64_t image, int64_t first, const float* logits, const float* normalizer,
            float* out) {
  const int64_t pixels = program.pixels(), size = std::min(CHUNK, pixels - first);
  const float* norm = normalizer + image * pixels + first;
  float whole[CHUNK] = {};
  for (int64_t c = 0; c < program.classes; ++c) {
    const float* from = out + (image * program.classes + c) * pixels + first;
    for (int64_t i = 0; i < size; i += WIDTH) store(whole + i, load(whole + i) + load_some(from + i, size - i));
  }
  for (int64_t c = 0; c < program.classes; ++c) {
    const int64_t at = (image * program.classes + c) * pixels + first;
    for (int64_t i = 0; i < size; i += WIDTH) {
      const Float p = softmax(logits + at + i, norm + i, program.images * pixels, size - i);
      store_some(out + at + i, load_some(out + at + i, size - i) - p * load(whole + i), size - i);
    }
  }
}

}  // namespace

extern "C" {

// sums: (asked, N, C).
int channels_forward(const Program* program, const float* logits, const float* normalizer, double* sums, int threads) {
  return status([&] {
    in_threads(threads, program->images * program->classes, [&](int64_t first, int64_t end, int) {
      Channel channel(*program);
      for (int64_t k = first; k < end; ++k)
        channel.forward(k / program->classes, k % program->classes, logits, normalizer, sums);
    });
  });
}

int channels_backward(const Program* program, const float* logits, const float* normalizer, const float* weights,
                      float* out, int threads) {
  return status([&] {
    in_threads(threads, program->images * program->classes, [&](int64_t first, int64_t end, int) {
      Channel channel(*program);
      for (int64_t k = first; k < end; ++k)
        channel.backward(k / program->classes, k % program->classes, logits, normalizer, weights, out);
    });
    const int64_t chunks = (program->pixels() + CHUNK - 1) / CHUNK;
    in_threads(threads, program->images * chunks, [&](int64_t first, int64_t end, int) {
      for (int64_t k = first; k < end; ++k)
        center(*program, k / chunks, k % chunks * CHUNK, logits, normalizer, out);
    });
  });
}

}  // extern "C"
