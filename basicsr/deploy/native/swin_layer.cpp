// A quantized Swin layer on codes, one window after another, so that all between its input and its output stays in the cache.
// The parameters are laid out by `basicsr/deploy/swin_parameters.py`, in the order in which `Layer` reads them.

#include <cmath>
#include <cstdint>
#include <thread>
#include <vector>

#include "attention.h"

namespace basicsr {
namespace {

constexpr int kSide = 8;  // of a window
constexpr int kSpare = 2 * kLanes;  // the last head of a token is written in whole vectors

struct Norm {
    float epsilon;
    std::vector<Quantizer> outputs;
};

class Layer {
public:
    Layer(const int64_t* sizes, const float* numbers, const int8_t* codes)
        : dim(static_cast<int>(sizes[0])),
          hidden(static_cast<int>(sizes[1])),
          heads(static_cast<int>(sizes[2])),
          shifted(sizes[3] != 0),
          stride(rounded_up(dim, kBlock)),
          hidden_stride(rounded_up(hidden, kBlock)),
          numbers_(numbers),
          codes_(codes) {
        norm1.epsilon = *take(1);
        for (int i = 0; i < 3; ++i) norm1.outputs.push_back(quantizer(stride));
        for (int i = 0; i < 3; ++i) {
            projections[i] = linear(dim, stride);
            tops[i] = *take(1);
        }
        read_scales();
        bias = take(heads * kBlock * kBlock);
        attended = quantizer(stride);
        proj = linear(dim, stride);
        norm2.epsilon = *take(1);
        norm2.outputs.push_back(quantizer(stride));
        fc1 = linear(dim, hidden_stride);
        activation = quantizer(hidden_stride);
        fc2 = linear(hidden, stride);
    }

    const int dim, hidden, heads;
    const bool shifted;
    const int stride, hidden_stride;  // of tokens and of hidden tokens
    Norm norm1, norm2;
    Linear projections[3], proj, fc1, fc2;
    float tops[3];  // of the codes of q, k and v
    AttentionScales scales;
    const float* bias;
    Quantizer attended, activation;

private:
    const float* take(int number) {
        const float* taken = numbers_;
        numbers_ += number;
        return taken;
    }

    Quantizer quantizer(int channels) {
        const float *gain = take(channels), *offset = take(channels);
        return {gain, offset, *take(1)};
    }

    Linear linear(int inputs, int outputs) {
        inputs = rounded_up(inputs, 4);
        const int8_t* weight = codes_;
        codes_ += static_cast<int64_t>(inputs) * outputs;
        const float *product = take(outputs), *row = take(outputs), *constant = take(outputs);
        return {weight, product, row, constant, inputs, outputs};
    }

    void read_scales() {
        for (float* number : {&scales.logit, &scales.key, &scales.map_gain, &scales.map_offset, &scales.map_top,
                              &scales.value, &scales.map_sum, &scales.value_sum, &scales.constant, &scales.masked,
                              &scales.divides_late, &scales.divisor, &scales.divisor_rest}) {
            *number = *take(1);
        }
        scales.flip_key = *take(1) != 0 ? 0x80808080u : 0u;
        scales.flip_value = *take(1) != 0 ? 0x80808080u : 0u;
    }

    const float* numbers_;
    const int8_t* codes_;
};

// The memory that one thread needs for a window.
class Workspace {
public:
    explicit Workspace(const Layer& layer)
        : tokens(kBlock * layer.stride),
          attended(kBlock * (layer.stride + kSpare)),
          hidden(kBlock * layer.hidden_stride) {
        for (auto& part : inputs) part.resize(kBlock * layer.stride);
        for (auto& part : qkv) part.resize(kBlock * layer.stride + kBlock);  // heads are read in whole vectors
    }

    std::vector<float> tokens, attended;
    std::vector<uint8_t> inputs[3], qkv[3], hidden;
    float row_sums[3][kBlock];
};

// Normalise the tokens of a window, and write the codes of each quantizer of the result with their sums.
void normalise(const Norm& norm, const Layer& layer, Workspace& work) {
    const int stride = layer.stride, vectors = (layer.dim + kLanes - 1) / kLanes;
    const int rest = layer.dim - (vectors - 1) * kLanes;
    const __mmask16 last = static_cast<__mmask16>((1u << rest) - 1);
    const float share = 1.0f / static_cast<float>(layer.dim);
    for (int token = 0; token < kBlock; ++token) {
        const float* x = work.tokens.data() + token * stride;
        Floats sum = _mm512_setzero_ps(), squares = _mm512_setzero_ps();
        for (int v = 0; v < vectors; ++v) sum = _mm512_add_ps(sum, _mm512_loadu_ps(x + v * kLanes));
        const Floats mean = _mm512_set1_ps(_mm512_reduce_add_ps(sum) * share);
        for (int v = 0; v < vectors; ++v) {
            const __mmask16 valid = v == vectors - 1 ? last : static_cast<__mmask16>(0xFFFF);
            const Floats apart = _mm512_maskz_sub_ps(valid, _mm512_loadu_ps(x + v * kLanes), mean);
            squares = _mm512_fmadd_ps(apart, apart, squares);
        }
        const float variance = _mm512_reduce_add_ps(squares) * share;
        const Floats factor = _mm512_set1_ps(1.0f / std::sqrt(variance + norm.epsilon));
        for (int v = 0; v < stride / kLanes; ++v) {
            const Floats apart = _mm512_sub_ps(_mm512_loadu_ps(x + v * kLanes), mean);
            const Floats normal = _mm512_mul_ps(apart, factor);
            for (size_t i = 0; i < norm.outputs.size(); ++i) {
                const Quantizer& q = norm.outputs[i];
                store_codes(work.inputs[i].data() + token * stride + v * kLanes, q.scaled(normal, v * kLanes),
                            _mm512_set1_ps(q.top));
            }
        }
        for (size_t i = 0; i < norm.outputs.size(); ++i) {
            work.row_sums[i][token] = sum_of_codes(work.inputs[i].data() + token * stride, stride);
        }
    }
}

void attention(const Layer& layer, Workspace& work, const int32_t* regions) {
    const int stride = layer.stride;
    normalise(layer.norm1, layer, work);
    for (int i = 0; i < 3; ++i) {
        uint8_t* to = work.qkv[i].data();
        const Floats top = _mm512_set1_ps(layer.tops[i]);
        multiply(layer.projections[i], work.inputs[i].data(), stride, work.row_sums[i],
                 [=](int token, int output, Floats value) { store_codes(to + token * stride + output, value, top); });
    }
    const Window window{work.qkv[0].data(), work.qkv[1].data(), work.qkv[2].data(), stride, regions};
    const int head_dim = layer.dim / layer.heads;
    const auto run = head_dim < kLanes ? attend<1> : attend<2>;
    run(window, layer.heads, head_dim, layer.bias, layer.scales, work.attended.data(), stride + kSpare);
    uint8_t* codes = work.inputs[0].data();
    for (int token = 0; token < kBlock; ++token) {
        for (int channel = 0; channel < stride; channel += kLanes) {
            const Floats value = _mm512_loadu_ps(work.attended.data() + token * (stride + kSpare) + channel);
            store_codes(codes + token * stride + channel, layer.attended.scaled(value, channel),
                        _mm512_set1_ps(layer.attended.top));
        }
        work.row_sums[0][token] = sum_of_codes(codes + token * stride, stride);
    }
    float* tokens = work.tokens.data();
    multiply(layer.proj, codes, stride, work.row_sums[0], [=](int token, int output, Floats value) {
        float* place = tokens + token * stride + output;
        _mm512_storeu_ps(place, _mm512_add_ps(value, _mm512_loadu_ps(place)));
    });
}

void mlp(const Layer& layer, Workspace& work) {
    const int stride = layer.stride, hidden_stride = layer.hidden_stride;
    normalise(layer.norm2, layer, work);
    uint8_t* hidden = work.hidden.data();
    const Quantizer activation = layer.activation;
    multiply(layer.fc1, work.inputs[0].data(), stride, work.row_sums[0], [=](int token, int output, Floats value) {
        store_codes(hidden + token * hidden_stride + output, activation.scaled(gelu(value), output),
                    _mm512_set1_ps(activation.top));
    });
    for (int token = 0; token < kBlock; ++token) {
        work.row_sums[0][token] = sum_of_codes(hidden + token * hidden_stride, hidden_stride);
    }
    float* tokens = work.tokens.data();
    multiply(layer.fc2, hidden, hidden_stride, work.row_sums[0], [=](int token, int output, Floats value) {
        float* place = tokens + token * stride + output;
        _mm512_storeu_ps(place, _mm512_add_ps(value, _mm512_loadu_ps(place)));
    });
}

// The windows of a map (height, width, dim), aligned or shifted by half a window around the border.
class Windows {
public:
    Windows(const Layer& layer, int64_t height, int64_t width)
        : dim_(layer.dim),
          stride_(layer.stride),
          shifted_(layer.shifted),
          height_(height),
          width_(width),
          columns_(width / kSide) {}

    int64_t number() const { return height_ / kSide * columns_; }

    void read(const float* map, int64_t window, float* tokens) const {
        for (int token = 0; token < kBlock; ++token) {
            std::memcpy(tokens + token * stride_, map + place(window, token) * dim_, dim_ * sizeof(float));
        }
    }

    void write(const float* tokens, int64_t window, float* map) const {
        for (int token = 0; token < kBlock; ++token) {
            std::memcpy(map + place(window, token) * dim_, tokens + token * stride_, dim_ * sizeof(float));
        }
    }

    // Fill in the regions of the tokens of a window that holds several; returns whether it does.
    bool regions(int64_t window, int32_t* regions) const {
        const bool bottom = window / columns_ == height_ / kSide - 1, right = window % columns_ == columns_ - 1;
        if (!shifted_ || !(bottom || right)) return false;
        for (int token = 0; token < kBlock; ++token) {
            const bool below = bottom && token / kSide >= kSide / 2, beside = right && token % kSide >= kSide / 2;
            regions[token] = 2 * below + beside;
        }
        return true;
    }

private:
    int64_t place(int64_t window, int token) const {
        const int64_t shift = shifted_ ? kSide / 2 : 0;
        const int64_t y = (window / columns_ * kSide + token / kSide + shift) % height_;
        const int64_t x = (window % columns_ * kSide + token % kSide + shift) % width_;
        return y * width_ + x;
    }

    const int dim_, stride_;
    const bool shifted_;
    const int64_t height_, width_, columns_;
};

void run(const Layer& layer, const Windows& windows, const float* x, float* y, int64_t first, int64_t end) {
    Workspace work(layer);
    alignas(64) int32_t regions[kBlock];
    for (int64_t window = first; window < end; ++window) {
        windows.read(x, window, work.tokens.data());
        attention(layer, work, windows.regions(window, regions) ? regions : nullptr);
        mlp(layer, work);
        windows.write(work.tokens.data(), window, y);
    }
}

}  // namespace
}  // namespace basicsr

// Compute a layer on x (height, width, dim) into y of the same shape; height and width are multiples of 8.
// sizes: dim, hidden channels, heads, whether the windows are shifted.
extern "C" void basicsr_swin_layer(const float* x, float* y, int64_t height, int64_t width, const int64_t* sizes,
                                   const float* numbers, const int8_t* codes, int32_t threads) {
    const basicsr::Layer layer(sizes, numbers, codes);
    const basicsr::Windows windows(layer, height, width);
    const int64_t number = windows.number();
    std::vector<std::thread> others;
    for (int32_t i = 1; i < threads; ++i) {
        others.emplace_back([&, i] {
            basicsr::run(layer, windows, x, y, number * i / threads, number * (i + 1) / threads);
        });
    }
    basicsr::run(layer, windows, x, y, 0, number / threads);
    for (auto& other : others) other.join();
}

// Whether this processor has the instructions that the library was built for.
extern "C" int32_t basicsr_supported() {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512vnni");
}
