// Arithmetic on 16 numbers at once, for processors with AVX-512 and VNNI.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

namespace basicsr {

constexpr int kLanes = 16;
constexpr int kBlock = 64;  // columns of a product that are computed together; also the tokens of a window

// Before a loop whose few rounds work on registers: an array of these stays in memory where a loop around it is left.
#define BASICSR_UNROLLED _Pragma("GCC unroll 16")

using Floats = __m512;
using Ints = __m512i;

inline int rounded_up(int number, int multiple) { return (number + multiple - 1) / multiple * multiple; }

inline Ints load(const void* from) { return _mm512_loadu_si512(from); }

// Four bytes, again and again.
inline Ints repeated(const uint8_t* from) {
    int32_t four;
    std::memcpy(&four, from, 4);
    return _mm512_set1_epi32(four);
}

// 2 to the power of x, to rounding; 0 where x is far below.
inline Floats power_of_two(Floats x) {
    const Floats whole = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    const Floats rest = _mm512_sub_ps(x, whole);  // -0.5 to 0.5
    Floats y = _mm512_set1_ps(1.3264735218e-3f);  // a minimax polynomial, relative error 1e-7
    y = _mm512_fmadd_ps(y, rest, _mm512_set1_ps(9.6715175381e-3f));
    y = _mm512_fmadd_ps(y, rest, _mm512_set1_ps(5.5507337692e-2f));
    y = _mm512_fmadd_ps(y, rest, _mm512_set1_ps(2.4022242011e-1f));
    y = _mm512_fmadd_ps(y, rest, _mm512_set1_ps(6.9314697756e-1f));
    y = _mm512_fmadd_ps(y, rest, _mm512_set1_ps(1.0f));
    return _mm512_scalef_ps(y, whole);
}

// GELU with the exact distribution of Gauss: x where x > 0, minus |x| times the tail beyond |x|.
// The tail is formula 7.1.26 of Abramowitz and Stegun, error 1.5e-7.
inline Floats gelu(Floats x) {
    const Floats distance = _mm512_abs_ps(x);
    const Floats t = _mm512_div_ps(_mm512_set1_ps(1.0f),
                                   _mm512_fmadd_ps(distance, _mm512_set1_ps(0.23164189f), _mm512_set1_ps(1.0f)));
    Floats y = _mm512_set1_ps(0.5f * 1.061405429f);
    y = _mm512_fmadd_ps(y, t, _mm512_set1_ps(0.5f * -1.453152027f));
    y = _mm512_fmadd_ps(y, t, _mm512_set1_ps(0.5f * 1.421413741f));
    y = _mm512_fmadd_ps(y, t, _mm512_set1_ps(0.5f * -0.284496736f));
    y = _mm512_fmadd_ps(y, t, _mm512_set1_ps(0.5f * 0.254829592f));
    const Floats half_of_square = _mm512_mul_ps(_mm512_mul_ps(x, x), _mm512_set1_ps(-0.72134752f));  // times log2(e)
    const Floats tail = _mm512_mul_ps(_mm512_mul_ps(y, t), power_of_two(half_of_square));
    return _mm512_fnmadd_ps(distance, tail, _mm512_max_ps(x, _mm512_setzero_ps()));
}

// Codes 0 to top, rounded half to even; 16 bytes.
inline __m128i to_codes(Floats scaled, Floats top) {
    const Floats clamped = _mm512_min_ps(_mm512_max_ps(scaled, _mm512_setzero_ps()), top);
    return _mm512_cvtusepi32_epi8(_mm512_cvtps_epi32(clamped));
}

inline void store_codes(uint8_t* to, Floats scaled, Floats top) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to), to_codes(scaled, top));
}

// The sum of bytes; their number is a multiple of 64.
inline float sum_of_codes(const uint8_t* codes, int number) {
    Ints sum = _mm512_setzero_si512();
    for (int i = 0; i < number; i += kBlock) {
        sum = _mm512_add_epi64(sum, _mm512_sad_epu8(load(codes + i), _mm512_setzero_si512()));
    }
    return static_cast<float>(_mm512_reduce_add_epi64(sum));
}

}  // namespace basicsr
