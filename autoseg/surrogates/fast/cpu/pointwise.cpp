// Totals of pointwise functions of softmax, and their gradient, in one pass over the logits each: what `fused.py`
// computes, written for a compiler. `native.py` builds and calls it.
//
// A block of pixels stays, with all its classes, in a core's cache. Sums are float within a block and double across
// blocks; blocks are always cut alike and added in order, so that the result does not depend on the number of threads.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#include "curve.h"

namespace {

constexpr int64_t ELEMENTS = 1 << 14;  // of a block: its classes times its pixels

struct Term {  // one total
  const Piece* pieces;
  int64_t count;           // of pieces, 1 to MAX_PIECES
  const uint8_t* mask;     // of a total everywhere: (N, P), null for all pixels
  const int64_t* classes;  // of an own total: (N, P), negative where a pixel has none; else null
};

struct Shape {
  int64_t images, classes, pixels;
  int64_t step() const { return std::max<int64_t>(64, ELEMENTS / classes / 64 * 64); }  // pixels of a block
  int64_t blocks() const { return (pixels + step() - 1) / step(); }                      // of an image
};

struct Block {
  int64_t image, first, size;  // pixels [first, first + size)
  Block(const Shape& shape, int64_t number)
      : image(number / shape.blocks()),
        first(number % shape.blocks() * shape.step()),
        size(std::min(shape.step(), shape.pixels - first)) {}
};

// ------------------------------------------------------------------------------- loops over the pixels of a row
// Rows are padded to whole vectors; the padding's mask is 0.

template <int K>
struct Loops {
  static void values(const float* x, float* out, int64_t size, const Piece* pieces) {
    const Curve<K> curve(pieces);
    for (int64_t i = 0; i < size; i += WIDTH) store(out + i, curve.value(load(x + i)));
  }

  static void slopes(const float* x, float* out, int64_t size, const Piece* pieces) {
    const Curve<K> curve(pieces);
    for (int64_t i = 0; i < size; i += WIDTH) store(out + i, curve.slope(load(x + i)));
  }

  // Sum of mask g(x scale).
  static double total(const float* x, const float* scale, const float* mask, int64_t size, const Piece* pieces) {
    const Curve<K> curve(pieces);
    Float sum = {};
    for (int64_t i = 0; i < size; i += WIDTH) sum += curve.value(load(x + i) * load(scale + i)) * load(mask + i);
    double whole = 0;
    for (int lane = 0; lane < WIDTH; ++lane) whole += sum[lane];
    return whole;
  }

  // out += weight mask g'(x)
  static void pull(const float* x, const float* mask, float weight, float* out, int64_t size, const Piece* pieces) {
    const Curve<K> curve(pieces);
    for (int64_t i = 0; i < size; i += WIDTH)
      store(out + i, load(out + i) + curve.slope(load(x + i)) * (load(mask + i) * weight));
  }
};

#define BY_COUNT(loop) {loop(1), loop(2), loop(3), loop(4), loop(5), loop(6), loop(7), loop(8)}
#define VALUES(k) Loops<k>::values
#define SLOPES(k) Loops<k>::slopes
#define TOTAL(k) Loops<k>::total
#define PULL(k) Loops<k>::pull
constexpr decltype(&Loops<1>::values) VALUES_OF[] = BY_COUNT(VALUES);
constexpr decltype(&Loops<1>::slopes) SLOPES_OF[] = BY_COUNT(SLOPES);
constexpr decltype(&Loops<1>::total) TOTAL_OF[] = BY_COUNT(TOTAL);
constexpr decltype(&Loops<1>::pull) PULL_OF[] = BY_COUNT(PULL);

// ------------------------------------------------------------------------------- a block

class Worker {  // what a thread needs for one block after the other
 public:
  Worker(const Shape& shape, const Term* terms, int64_t count)
      : shape_(shape), terms_(terms), count_(count), step_(shape.step()), probs_(shape.classes * step_),
        pulls_(shape.classes * step_), masks_(count * step_), own_(step_), found_(step_), row_(step_) {}

  // The block's part of every total, (count, C); `normalizer` (2, N, P) is written: each pixel's largest logit, and the
  // factor of e^(logit - largest) that makes it softmax. A logsumexp would be rounded where the curves are steep.
  void forward(const Block& at, const float* logits, float* normalizer, double* sums) {
    const float* scale = softmax(at, logits, normalizer + at.image * shape_.pixels + at.first);
    for (int64_t k = 0; k < count_; ++k, sums += shape_.classes) {
      const Term& term = terms_[k];
      if (term.classes == nullptr) {
        const float* mask = mask_of(k, at);
        for (int64_t c = 0; c < shape_.classes; ++c)
          sums[c] = TOTAL_OF[term.count - 1](probs(c), scale, mask, at.size, term.pieces);
        continue;
      }
      const int64_t* ids = gather(term, at);
      for (int64_t i = 0; i < at.size; ++i) own_[i] *= scale[i];
      VALUES_OF[term.count - 1](own_.data(), row_.data(), at.size, term.pieces);
      for (int64_t i = 0; i < at.size; ++i)
        if (known(ids[i])) sums[ids[i]] += row_[i];
    }
  }

  // Gradient p (d - sum_c p d), d = dL/dp; `weights` (count, N, C) are the gradients of the totals.
  void backward(const Block& at, const float* logits, const float* normalizer, const float* weights, float* grad) {
    const int64_t size = at.size, rows = shape_.images * shape_.classes;
    for (int64_t k = 0; k < count_; ++k)
      if (terms_[k].classes == nullptr) mask_of(k, at);
    float *highest = found_.data(), *scale = own_.data(), *dot = row_.data();
    normalizer += at.image * shape_.pixels + at.first;
    std::fill(found_.begin(), found_.end(), 0.0f);
    std::fill(own_.begin(), own_.end(), 0.0f);
    std::copy_n(normalizer, size, highest);
    std::copy_n(normalizer + shape_.images * shape_.pixels, size, scale);
    std::fill(row_.begin(), row_.end(), 0.0f);
    std::fill(pulls_.begin(), pulls_.end(), 0.0f);
    for (int64_t c = 0; c < shape_.classes; ++c) {
      const float* x = logits + offset(at, c);
      float *p = probs(c), *d = pulls_.data() + c * step_;
      for (int64_t i = 0; i < size; i += WIDTH) {
        store(p + i, exponential(load_some(x + i, size - i) - load(highest + i)) * load(scale + i));
      }
      for (int64_t k = 0; k < count_; ++k) {
        const Term& term = terms_[k];
        if (term.classes != nullptr) continue;
        const float weight = weights[k * rows + at.image * shape_.classes + c];
        PULL_OF[term.count - 1](p, masks_.data() + k * step_, weight, d, size, term.pieces);
      }
      for (int64_t i = 0; i < size; i += WIDTH) store(dot + i, load(dot + i) + load(p + i) * load(d + i));
    }
    for (int64_t k = 0; k < count_; ++k)
      if (terms_[k].classes != nullptr) add_own(terms_[k], at, weights + k * rows + at.image * shape_.classes);
    for (int64_t c = 0; c < shape_.classes; ++c) {
      const float *p = probs(c), *d = pulls_.data() + c * step_;
      float* out = grad + offset(at, c);
      for (int64_t i = 0; i < size; i += WIDTH)
        store_some(out + i, load(p + i) * (load(d + i) - load(dot + i)), size - i);
    }
  }

 private:
  // Labels that change between forward and backward may be no class.
  bool known(int64_t id) const { return id >= 0 && id < shape_.classes; }

  float* probs(int64_t c) { return probs_.data() + c * step_; }

  int64_t offset(const Block& at, int64_t c) const {
    return (at.image * shape_.classes + c) * shape_.pixels + at.first;
  }

  // Leaves softmax in `probs_`, but for the factors that it returns.
  const float* softmax(const Block& at, const float* logits, float* norm) {
    const int64_t size = at.size;
    float *highest = own_.data(), *whole = found_.data();
    std::fill(own_.begin(), own_.end(), -INFINITY);
    std::fill(found_.begin(), found_.end(), 0.0f);
    for (int64_t c = 0; c < shape_.classes; ++c) {
      const float* x = logits + offset(at, c);
      for (int64_t i = 0; i < size; i += WIDTH) {
        const Float z = load_some(x + i, size - i), most = load(highest + i);
        store(probs(c) + i, z);
        store(highest + i, z > most ? z : most);
      }
    }
    for (int64_t c = 0; c < shape_.classes; ++c) {
      float* p = probs(c);
      for (int64_t i = 0; i < size; i += WIDTH) {
        const Float e = exponential(load(p + i) - load(highest + i));
        store(p + i, e);
        store(whole + i, load(whole + i) + e);
      }
    }
    for (int64_t i = 0; i < size; ++i) {
      norm[i] = highest[i];
      norm[i + shape_.images * shape_.pixels] = whole[i] = 1.0f / whole[i];
    }
    return whole;
  }

  const float* mask_of(int64_t k, const Block& at) {
    float* out = masks_.data() + k * step_;
    const uint8_t* mask = terms_[k].mask;
    std::fill(out, out + step_, 0.0f);
    if (mask == nullptr) {
      std::fill(out, out + at.size, 1.0f);
    } else {
      mask += at.image * shape_.pixels + at.first;
      std::copy(mask, mask + at.size, out);
    }
    return out;
  }

  // Leaves in `own_` the probability of each pixel's class; returns the classes.
  const int64_t* gather(const Term& term, const Block& at) {
    const int64_t* ids = term.classes + at.image * shape_.pixels + at.first;
    for (int64_t i = 0; i < at.size; ++i) own_[i] = probs_[(known(ids[i]) ? ids[i] : 0) * step_ + i];
    return ids;
  }

  // Adds an own total's gradient to the pull on its class, and p times it to the row sums.
  void add_own(const Term& term, const Block& at, const float* weight) {
    const int64_t* ids = gather(term, at);
    SLOPES_OF[term.count - 1](own_.data(), found_.data(), at.size, term.pieces);
    for (int64_t i = 0; i < at.size; ++i) {
      if (!known(ids[i])) continue;
      const float more = found_[i] * weight[ids[i]];
      pulls_[ids[i] * step_ + i] += more;
      row_[i] += own_[i] * more;
    }
  }

  Shape shape_;
  const Term* terms_;
  int64_t count_, step_;
  std::vector<float> probs_, pulls_, masks_, own_, found_, row_;
};

}  // namespace

extern "C" {

// sums: (count, N, C).
int pointwise_forward(const float* logits, int64_t images, int64_t classes, int64_t pixels, const Term* terms,
                      int64_t count, float* normalizer, double* sums, int threads) {
  return status([&] {
    const Shape shape{images, classes, pixels};
    const int64_t blocks = images * shape.blocks(), size = count * classes;
    std::vector<double> parts(blocks * size);
    in_threads(threads, blocks, [&](int64_t first, int64_t end, int) {
      Worker worker(shape, terms, count);
      for (int64_t b = first; b < end; ++b)
        worker.forward(Block(shape, b), logits, normalizer, parts.data() + b * size);
    });
    std::fill(sums, sums + images * size, 0.0);
    for (int64_t b = 0; b < blocks; ++b)
      for (int64_t k = 0; k < count; ++k)
        for (int64_t c = 0; c < classes; ++c)
          sums[(k * images + b / shape.blocks()) * classes + c] += parts[b * size + k * classes + c];
  });
}

int pointwise_backward(const float* logits, int64_t images, int64_t classes, int64_t pixels, const Term* terms,
                       int64_t count, const float* normalizer, const float* weights, float* grad, int threads) {
  return status([&] {
    const Shape shape{images, classes, pixels};
    in_threads(threads, images * shape.blocks(), [&](int64_t first, int64_t end, int) {
      Worker worker(shape, terms, count);
      for (int64_t b = first; b < end; ++b) worker.backward(Block(shape, b), logits, normalizer, weights, grad);
    });
  });
}

}  // extern "C"
