// Counts and sums of values in bins, in one pass; see histogram.py and normalized_histogram.py in quant/search for what they are for.
//
// Values of a bin are added up in their order, in float64, so that counts and sums are the same bits as those of torch's scatter_add_.
// A block of positions is computed in lanes, then its bins are counted one by one.

#include <math.h>
#include <stdint.h>
#include <stdlib.h>

#define BLOCK 4096

// Both numbers of a bin in one cache line: bins are a megabyte, and each value goes to another one.
typedef struct {
    int64_t count;
    double sum;
} Bin;

enum { DONE, NO_BIN, NO_MEMORY };

static int count_fractions(const float *x, int64_t number, double inverse_width, int32_t first_bin, int64_t num_bins, Bin *of_bin,
                           double *squares) {
    int32_t bins[BLOCK];
    double fractions[BLOCK];
    for (int64_t start = 0; start < number; start += BLOCK) {
        int count = number - start < BLOCK ? number - start : BLOCK;
        int32_t lowest = 0, highest = 0;
        double square = 0;
#pragma omp simd reduction(+ : square) reduction(min : lowest) reduction(max : highest)
        for (int i = 0; i < count; i++) {
            double position = x[start + i] * inverse_width, edge = floor(position);
            int32_t bin = (int32_t)edge - first_bin;
            bins[i] = bin;
            fractions[i] = position - edge;
            square += fractions[i] * fractions[i];
            lowest = bin < lowest ? bin : lowest;
            highest = bin > highest ? bin : highest;
        }
        if (lowest < 0 || highest >= num_bins) return NO_BIN;
        for (int i = 0; i < count; i++) {
            of_bin[bins[i]].count++;
            of_bin[bins[i]].sum += fractions[i];
        }
        *squares += square;
    }
    return DONE;
}

// Bins [i, i + 1) of x * inverse_width from i = first_bin on, and the fractions in them. `squares` is one number: the sum of the squares of
// all fractions. Counts and sums stay as they are where a value lies in no bin, or where memory does not suffice.
int count_aligned(const float *x, int64_t number, double inverse_width, int32_t first_bin, int64_t num_bins, int64_t *counts,
                  double *sums, double *squares) {
    Bin *of_bin = malloc(num_bins * sizeof(Bin));
    if (!of_bin) return NO_MEMORY;
    for (int64_t i = 0; i < num_bins; i++) of_bin[i] = (Bin){counts[i], sums[i]};
    int outcome = count_fractions(x, number, inverse_width, first_bin, num_bins, of_bin, squares);
    if (outcome == DONE)
        for (int64_t i = 0; i < num_bins; i++) counts[i] = of_bin[i].count, sums[i] = of_bin[i].sum;
    free(of_bin);
    return outcome;
}

// `num_bins` equal bins from -1 to 1 for each channel of x (samples, channels, length), the values in them, and for each channel the sum of
// the squares of its values.
void count_normalized(const float *x, int64_t samples, int64_t channels, int64_t length, int32_t num_bins, int64_t *counts,
                      double *sums, double *squares) {
    int32_t bins[BLOCK], half = num_bins / 2;
    double values[BLOCK];
    for (int64_t row = 0; row < samples * channels; row++) {
        int64_t channel = row % channels;
        for (int64_t start = 0; start < length; start += BLOCK) {
            int count = length - start < BLOCK ? length - start : BLOCK;
            const float *block = x + row * length + start;
            double square = 0;
#pragma omp simd reduction(+ : square)
            for (int i = 0; i < count; i++) {
                int32_t bin = (int32_t)floorf(block[i] * half) + half;
                bin = bin < 0 ? 0 : bin;
                bins[i] = bin >= num_bins ? num_bins - 1 : bin;
                values[i] = block[i];
                square += values[i] * values[i];
            }
            int64_t *own_counts = counts + channel * num_bins;
            double *own_sums = sums + channel * num_bins;
            for (int i = 0; i < count; i++) {
                own_counts[bins[i]]++;
                own_sums[bins[i]] += values[i];
            }
            squares[channel] += square;
        }
    }
}
