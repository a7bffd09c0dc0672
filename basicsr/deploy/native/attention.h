// Attention of one head within a window of 64 tokens, on codes.
#pragma once

#include "products.h"

namespace basicsr {

constexpr int kMaxHeadDim = 31;
constexpr int kGroupsOfTokens = kBlock / 4;

// What turns codes of q, k, the map and v into values. Terms that are the same for all of a row leave a softmax as it is.
struct AttentionScales {
    float logit;         // of sum(q k), with log2(e), as all that belongs to logits
    float key;           // of sum(k)
    float map_gain;      // from a probability, or from what it is before its division, to its code
    float map_offset;
    float map_top;
    float value;         // of sum(map v)
    float map_sum;       // of sum(map)
    float value_sum;     // of sum(v)
    float constant;
    float masked;        // added to the logit of tokens that are no neighbours
    float divides_late;  // not 0 where the map is quantized before its division by the sum of the row
    float divisor;       // of sum(map): what the output is divided by, with the next one
    float divisor_rest;
    uint32_t flip_key;   // 0x80808080 where codes reach 255: they are multiplied as code - 128
    uint32_t flip_value;
};

// The codes of q, k and v of a window, token by token, `stride` bytes apart; their regions where it is cut by the border.
struct Window {
    const uint8_t* q;
    const uint8_t* k;
    const uint8_t* v;
    int stride;
    const int32_t* regions;  // of the 64 tokens, or null
};

// Keys of a head: groups of 4 channels, tokens, channels of the group.
struct PackedKeys {
    alignas(64) int8_t codes[(kMaxHeadDim + 3) / 4][kBlock][4];
    Floats terms[4];  // what the tokens add to a logit

    void pack(const uint8_t* k, int stride, int head_dim, const AttentionScales& scales) {
        const int groups = (head_dim + 3) / 4;
        const int rest = head_dim % 4;
        for (int group = 0; group < groups; ++group) {
            const bool cut = group == groups - 1 && rest != 0;
            const uint32_t kept = cut ? (1u << (8 * rest)) - 1 : ~0u;
            for (int token = 0; token < kBlock; ++token) {
                uint32_t four;
                std::memcpy(&four, k + token * stride + 4 * group, 4);
                four = (four ^ scales.flip_key) & kept;
                std::memcpy(codes[group][token], &four, 4);
            }
        }
        BASICSR_UNROLLED
        for (int part = 0; part < 4; ++part) {
            Ints sum = _mm512_setzero_si512();
            for (int group = 0; group < groups; ++group) {
                sum = _mm512_dpbusd_epi32(sum, _mm512_set1_epi8(1), load(codes[group][part * kLanes]));
            }
            terms[part] = _mm512_mul_ps(_mm512_cvtepi32_ps(sum), _mm512_set1_ps(scales.key));
        }
    }
};

// Values of a head: groups of 4 tokens, channels, tokens of the group. The last channel is 1, and so gives the sum of a row.
template <int Vectors>
struct PackedValues {
    alignas(64) int8_t codes[kGroupsOfTokens][Vectors][kLanes][4];
    Floats terms[Vectors];  // what the channels add to an output

    void pack(const uint8_t* v, int stride, const AttentionScales& scales) {
        const __m128i flip = _mm_set1_epi32(static_cast<int>(scales.flip_value));
        Ints sums[Vectors];
        BASICSR_UNROLLED
        for (auto& sum : sums) sum = _mm512_setzero_si512();
        for (int group = 0; group < kGroupsOfTokens; ++group) {
            BASICSR_UNROLLED
            for (int part = 0; part < Vectors; ++part) {
                __m128i rows[4];
                BASICSR_UNROLLED
                for (int i = 0; i < 4; ++i) {
                    const uint8_t* row = v + (4 * group + i) * stride + part * kLanes;
                    rows[i] = _mm_xor_si128(_mm_loadu_si128(reinterpret_cast<const __m128i*>(row)), flip);
                }
                store_transposed(rows, codes[group][part]);
            }
            std::memset(codes[group][Vectors - 1][kLanes - 1], 1, 4);
            BASICSR_UNROLLED
            for (int part = 0; part < Vectors; ++part) {
                sums[part] = _mm512_dpbusd_epi32(sums[part], _mm512_set1_epi8(1), load(codes[group][part]));
            }
        }
        BASICSR_UNROLLED
        for (int part = 0; part < Vectors; ++part) {
            terms[part] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sums[part]), _mm512_set1_ps(scales.value_sum),
                                          _mm512_set1_ps(scales.constant));
        }
    }

    static void store_transposed(const __m128i (&rows)[4], int8_t (&to)[kLanes][4]) {
        const __m128i low01 = _mm_unpacklo_epi8(rows[0], rows[1]), high01 = _mm_unpackhi_epi8(rows[0], rows[1]);
        const __m128i low23 = _mm_unpacklo_epi8(rows[2], rows[3]), high23 = _mm_unpackhi_epi8(rows[2], rows[3]);
        __m128i* place = reinterpret_cast<__m128i*>(to);
        _mm_store_si128(place, _mm_unpacklo_epi16(low01, low23));
        _mm_store_si128(place + 1, _mm_unpackhi_epi16(low01, low23));
        _mm_store_si128(place + 2, _mm_unpacklo_epi16(high01, high23));
        _mm_store_si128(place + 3, _mm_unpackhi_epi16(high01, high23));
    }
};

// Write the codes of the softmax map (64, 64) of a head.
template <bool Masked>
__attribute__((noinline)) void attention_map(const Window& window, int channel, int head_dim, const PackedKeys& keys, const float* bias,
                          const AttentionScales& scales, uint8_t* map) {
    const int groups = (head_dim + 3) / 4;
    const Floats scale = _mm512_set1_ps(scales.logit), offset = _mm512_set1_ps(scales.map_offset);
    const Floats top = _mm512_set1_ps(scales.map_top), masked = _mm512_set1_ps(scales.masked);
    for (int token = 0; token < kBlock; ++token) {
        Ints sums[4];
        BASICSR_UNROLLED
        for (auto& sum : sums) sum = _mm512_setzero_si512();
        for (int group = 0; group < groups; ++group) {
            const Ints q = repeated(window.q + token * window.stride + channel + 4 * group);
            BASICSR_UNROLLED
            for (int p = 0; p < 4; ++p) sums[p] = _mm512_dpbusd_epi32(sums[p], q, load(keys.codes[group][p * kLanes]));
        }
        Floats logits[4];
        BASICSR_UNROLLED
        for (int p = 0; p < 4; ++p) {
            const Floats rest = _mm512_add_ps(_mm512_loadu_ps(bias + token * kBlock + p * kLanes), keys.terms[p]);
            logits[p] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sums[p]), scale, rest);
            if (Masked) {
                const __mmask16 apart = _mm512_cmpneq_epi32_mask(load(window.regions + p * kLanes),
                                                                 _mm512_set1_epi32(window.regions[token]));
                logits[p] = _mm512_mask_add_ps(logits[p], apart, logits[p], masked);
            }
        }
        const Floats largest = _mm512_set1_ps(_mm512_reduce_max_ps(
            _mm512_max_ps(_mm512_max_ps(logits[0], logits[1]), _mm512_max_ps(logits[2], logits[3]))));
        BASICSR_UNROLLED
        for (auto& logit : logits) logit = power_of_two(_mm512_sub_ps(logit, largest));
        const float sum = scales.divides_late != 0
                              ? 1.0f
                              : _mm512_reduce_add_ps(_mm512_add_ps(_mm512_add_ps(logits[0], logits[1]),
                                                                   _mm512_add_ps(logits[2], logits[3])));
        const Floats gain = _mm512_set1_ps(scales.map_gain / sum);
        BASICSR_UNROLLED
        for (int p = 0; p < 4; ++p) {
            store_codes(map + token * kBlock + p * kLanes, _mm512_fmadd_ps(logits[p], gain, offset), top);
        }
    }
}

// One through the sum of a row; 1 where all of the row was rounded to 0.
inline Floats share_of(Floats sum) {
    const Floats one = _mm512_set1_ps(1.0f);
    return _mm512_div_ps(one, _mm512_mask_blend_ps(_mm512_cmp_ps_mask(sum, _mm512_setzero_ps(), _CMP_GT_OQ), one, sum));
}

// Multiply a map by the values of its head; writes 16 * Vectors floats a token, of which the next head overwrites the last.
template <int Vectors>
__attribute__((noinline)) void map_times_values(const uint8_t* map, const PackedValues<Vectors>& values, const AttentionScales& scales,
                             float* attended, int stride) {
    constexpr int kRows = 8;
    const Floats scale = _mm512_set1_ps(scales.value), map_sum = _mm512_set1_ps(scales.map_sum);
    const Floats divisor = _mm512_set1_ps(scales.divisor), divisor_rest = _mm512_set1_ps(scales.divisor_rest);
    const Ints last = _mm512_set1_epi32(kLanes - 1);
    for (int token = 0; token < kBlock; token += kRows) {
        Ints sums[kRows][Vectors];
        BASICSR_UNROLLED
        for (auto& row : sums) {
            BASICSR_UNROLLED
            for (auto& sum : row) sum = _mm512_setzero_si512();
        }
        for (int group = 0; group < kGroupsOfTokens; ++group) {
            BASICSR_UNROLLED
            for (int r = 0; r < kRows; ++r) {
                const Ints p = repeated(map + (token + r) * kBlock + 4 * group);
                BASICSR_UNROLLED
                for (int v = 0; v < Vectors; ++v) {
                    sums[r][v] = _mm512_dpbusd_epi32(sums[r][v], p, load(values.codes[group][v]));
                }
            }
        }
        BASICSR_UNROLLED
        for (int r = 0; r < kRows; ++r) {
            const Floats row = _mm512_cvtepi32_ps(_mm512_permutexvar_epi32(last, sums[r][Vectors - 1]));
            const Floats share = share_of(_mm512_fmadd_ps(row, divisor, divisor_rest));
            BASICSR_UNROLLED
            for (int v = 0; v < Vectors; ++v) {
                const Floats rest = _mm512_fmadd_ps(row, map_sum, values.terms[v]);
                const Floats sum = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sums[r][v]), scale, rest);
                _mm512_storeu_ps(attended + (token + r) * stride + v * kLanes, _mm512_mul_ps(sum, share));
            }
        }
    }
}

template <int Vectors>
inline void attend(const Window& window, int heads, int head_dim, const float* bias, const AttentionScales& scales,
                   float* attended, int stride) {
    PackedKeys keys;
    PackedValues<Vectors> values;
    alignas(64) uint8_t map[kBlock * kBlock];
    for (int head = 0; head < heads; ++head) {
        const int channel = head * head_dim;
        keys.pack(window.k + channel, window.stride, head_dim, scales);
        values.pack(window.v + channel, window.stride, scales);
        const float* own_bias = bias + head * kBlock * kBlock;
        if (window.regions != nullptr) {
            attention_map<true>(window, channel, head_dim, keys, own_bias, scales, map);
        } else {
            attention_map<false>(window, channel, head_dim, keys, own_bias, scales, map);
        }
        map_times_values<Vectors>(map, values, scales, attended + channel, stride);
    }
}

}  // namespace basicsr
