// Products of codes in integers, and what they stand for.
#pragma once

#include "vectors.h"

namespace basicsr {

constexpr int kRowsAtOnce = 4;

// Turns values into codes: round(value * gain + offset) in 0..top, with a gain and an offset for each channel.
// Channels that only fill a block have gain and offset 0, so that their code is 0.
struct Quantizer {
    const float* gain;
    const float* offset;
    float top;

    Floats scaled(Floats value, int channel) const {
        return _mm512_fmadd_ps(value, _mm512_loadu_ps(gain + channel), _mm512_loadu_ps(offset + channel));
    }
};

// A linear layer: the value of an output is product * sum(x w) + row * sum(x) + constant for codes x and w.
struct Linear {
    const int8_t* weight;  // blocks of 64 outputs, groups of 4 inputs, outputs, inputs of the group
    const float* product;
    const float* row;
    const float* constant;
    int inputs;   // a multiple of 4
    int outputs;  // a multiple of 64

    Floats value(Ints sum, Floats row_sum, int output) const {
        const Floats rest =
            _mm512_fmadd_ps(_mm512_loadu_ps(row + output), row_sum, _mm512_loadu_ps(constant + output));
        return _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum), _mm512_loadu_ps(product + output), rest);
    }
};

constexpr int kVectors = kBlock / kLanes;

// Sums of products of the codes of four tokens with a block of a weight. A function of its own keeps its sums in registers.
__attribute__((noinline)) inline void integer_products(const uint8_t* codes, int stride, const int8_t* weight,
                                                       int inputs, Ints (&result)[kRowsAtOnce][kVectors]) {
    Ints sums[kRowsAtOnce][kVectors];
    BASICSR_UNROLLED
    for (auto& row : sums) {
        BASICSR_UNROLLED
        for (auto& sum : row) sum = _mm512_setzero_si512();
    }
    for (int input = 0; input < inputs; input += 4) {
        BASICSR_UNROLLED
        for (int r = 0; r < kRowsAtOnce; ++r) {
            const Ints x = repeated(codes + r * stride + input);
            BASICSR_UNROLLED
            for (int v = 0; v < kVectors; ++v) {
                sums[r][v] = _mm512_dpbusd_epi32(sums[r][v], x, load(weight + (input + v) * kBlock));
            }
        }
    }
    BASICSR_UNROLLED
    for (int r = 0; r < kRowsAtOnce; ++r) {
        BASICSR_UNROLLED
        for (int v = 0; v < kVectors; ++v) result[r][v] = sums[r][v];
    }
}

// Multiply the codes of the tokens of a window by a weight; `use(token, output, values)` gets 16 values at a time.
template <class Use>
inline void multiply(const Linear& layer, const uint8_t* codes, int stride, const float* row_sums, Use use) {
    Ints sums[kRowsAtOnce][kVectors];
    for (int block = 0; block < layer.outputs; block += kBlock) {
        const int8_t* weight = layer.weight + static_cast<int64_t>(block) * layer.inputs;
        for (int token = 0; token < kBlock; token += kRowsAtOnce) {
            integer_products(codes + token * stride, stride, weight, layer.inputs, sums);
            for (int r = 0; r < kRowsAtOnce; ++r) {
                const Floats row_sum = _mm512_set1_ps(row_sums[token + r]);
                BASICSR_UNROLLED
                for (int v = 0; v < kVectors; ++v) {
                    const int output = block + v * kLanes;
                    use(token + r, output, layer.value(sums[r][v], row_sum, output));
                }
            }
        }
    }
}

}  // namespace basicsr
