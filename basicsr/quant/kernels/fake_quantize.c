// Fake quantization and its gradients, each in one pass over memory; see functional.py and step_functional.py for the formulas.
//
// A tensor is `rows` times `length` values, each row with bounds of its own. Values are float32 or, with `half` set, bfloat16, and the
// arithmetic is that of float32, operator by operator as in torch: forward values are the same bits. Compile without contraction of a * b + c.
//
// Rows are cut into chunks. Sums within a chunk are float32, in lanes; those over chunks are float64 and in order. So they do not
// depend on the number of threads.

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define CHUNK 4096
#define MINIMAL_WIDTH 1e-12f
#define PARALLEL_FROM 32768

typedef struct {
    float lower, upper, step;
} Grid;

static Grid grid_of(float lower, float upper, float max_code) {
    Grid grid = {lower, upper > lower ? upper : lower, 0};
    float width = grid.upper - grid.lower;
    grid.step = (width < MINIMAL_WIDTH ? MINIMAL_WIDTH : width) / max_code;
    return grid;
}

static float larger_step(float step) { return step < MINIMAL_WIDTH ? MINIMAL_WIDTH : step; }

static const float *as_float(int half, const void *source, int64_t start, int64_t count, float *buffer) {
    if (!half) return (const float *)source + start;
    const uint16_t *values = (const uint16_t *)source + start;
    uint32_t *bits = (uint32_t *)buffer;
    for (int64_t i = 0; i < count; i++) bits[i] = (uint32_t)values[i] << 16;
    return buffer;
}

// Round to the nearest bfloat16, halves to even; NaN stays NaN.
static void to_half(const float *source, void *target, int64_t start, int64_t count) {
    uint16_t *values = (uint16_t *)target + start;
    const uint32_t *bits = (const uint32_t *)source;
    for (int64_t i = 0; i < count; i++) {
        uint32_t rounded = (bits[i] + 0x7fff + ((bits[i] >> 16) & 1)) >> 16;
        values[i] = (uint16_t)((bits[i] & 0x7fffffff) > 0x7f800000 ? 0x7fc0 : rounded);
    }
}

static float *target_of(int half, void *target, int64_t start, float *buffer) {
    return half ? buffer : (float *)target + start;
}

typedef struct {
    int64_t of_row, all;
} Chunks;

static Chunks chunks_of(int64_t rows, int64_t length) {
    int64_t of_row = (length + CHUNK - 1) / CHUNK;
    return (Chunks){of_row, rows * of_row};
}

#define FOR_EACH_CHUNK                                                                                      \
    Chunks chunks = chunks_of(rows, length);                                                                \
    _Pragma("omp parallel for schedule(static) if (rows * length >= PARALLEL_FROM)")                        \
    for (int64_t chunk = 0; chunk < chunks.all; chunk++)

#define PLACE_OF_CHUNK                                                                                      \
    int64_t row = chunk / chunks.of_row, first = (chunk % chunks.of_row) * CHUNK;                           \
    int64_t start = row * length + first, count = length - first < CHUNK ? length - first : CHUNK;          \
    float x_buffer[CHUNK], y_buffer[CHUNK];                                                                 \
    const float *x = as_float(half, values, start, count, x_buffer);                                        \
    float *y = target_of(half, result, start, y_buffer);

void fake_quantize(int half, const void *values, void *result, int64_t rows, int64_t length, const float *lower,
                   const float *upper, float max_code) {
    FOR_EACH_CHUNK {
        PLACE_OF_CHUNK
        Grid grid = grid_of(lower[row], upper[row], max_code);
#pragma omp simd
        for (int64_t i = 0; i < count; i++) {
            float code = rintf((x[i] - grid.lower) / grid.step);
            code = code < 0 ? 0 : code;
            code = code > max_code ? max_code : code;
            y[i] = code * grid.step + grid.lower;
        }
        if (half) to_half(y, result, start, count);
    }
}

void fake_quantize_by_step(int half, const void *values, void *result, int64_t rows, int64_t length, const float *step,
                           float lowest, float highest) {
    FOR_EACH_CHUNK {
        PLACE_OF_CHUNK
        float unit = larger_step(step[row]);
#pragma omp simd
        for (int64_t i = 0; i < count; i++) {
            float position = x[i] / unit;
            position = position < lowest ? lowest : position;
            position = position > highest ? highest : position;
            y[i] = rintf(position) * unit;
        }
        if (half) to_half(y, result, start, count);
    }
}

// Straight-through: a, b and c are the sums of the upstream gradient below, above and times code less position; d that of zeros.
static void straight_through(const float *x, const float *g, float *y, int64_t count, Grid grid, float max_code,
                             double *sums) {
    float below = 0, above = 0, residual = 0, zeros = 0;
#pragma omp simd reduction(+ : below, above, residual, zeros)
    for (int64_t i = 0; i < count; i++) {
        float position = (x[i] - grid.lower) / grid.step;
        position = position < 0 ? 0 : position;
        position = position > max_code ? max_code : position;
        residual += (rintf(position) - position) * g[i];
        below += x[i] <= grid.lower ? g[i] : 0;
        above += x[i] >= grid.upper ? g[i] : 0;
        zeros += x[i] == 0 ? g[i] : 0;
        y[i] = (x[i] >= grid.lower) & (x[i] <= grid.upper) ? g[i] : 0;
    }
    sums[0] = below, sums[1] = above, sums[2] = residual, sums[3] = zeros;
}

// From a window about the thresholds: the sums of the upstream gradient times (code - w position) and (1 - w).
static void from_window(const float *x, const float *g, float *y, int64_t count, Grid grid, float max_code,
                        float window, int exact_zeros, double *sums) {
    float moved = 0, still = 0, nearest = 0.5f - window / 2, weight = 1 / window;
#pragma omp simd reduction(+ : moved, still)
    for (int64_t i = 0; i < count; i++) {
        float position = (x[i] - grid.lower) / grid.step;
        position = position < 0 ? 0 : position;
        position = position > max_code ? max_code : position;
        float code = rintf(position);
        float w = fabsf(code - position) >= nearest ? weight : 0;
        w = exact_zeros & (x[i] == 0) ? 0 : w;
        moved += (code - position * w) * g[i];
        still += (1 - w) * g[i];
        y[i] = (x[i] >= grid.lower) & (x[i] <= grid.upper) ? g[i] : 0;
    }
    sums[0] = moved, sums[1] = still;
}

static void add_up(double *sums, int64_t number, double *total) {
    memset(total, 0, 4 * sizeof(double));
    for (int64_t chunk = 0; chunk < number; chunk++)
        for (int i = 0; i < 4; i++) total[i] += sums[4 * chunk + i];
}

// Return 0, or 1 where memory does not suffice. `window` 1 is straight-through.
int gradients(int half, const void *values, const void *upstream, void *result, int64_t rows, int64_t length,
              const float *lower, const float *upper, float max_code, int exact_zeros, float window, float *of_lower,
              float *of_upper) {
    double *sums = calloc(4 * chunks_of(rows, length).all, sizeof(double));
    if (!sums) return 1;
    FOR_EACH_CHUNK {
        PLACE_OF_CHUNK
        float g_buffer[CHUNK];
        const float *g = as_float(half, upstream, start, count, g_buffer);
        Grid grid = grid_of(lower[row], upper[row], max_code);
        if (window < 1)
            from_window(x, g, y, count, grid, max_code, window, exact_zeros, sums + 4 * chunk);
        else
            straight_through(x, g, y, count, grid, max_code, sums + 4 * chunk);
        if (half) to_half(y, result, start, count);
    }
    for (int64_t row = 0; row < rows; row++) {
        double total[4];
        add_up(sums + 4 * row * chunks.of_row, chunks.of_row, total);
        Grid grid = grid_of(lower[row], upper[row], max_code);
        if (window < 1) {
            of_upper[row] = total[0] / max_code;
            of_lower[row] = total[1] - total[0] / max_code;
            continue;
        }
        int zeros_inside = exact_zeros && grid.lower < 0 && grid.upper > 0;
        double place = zeros_inside ? -grid.lower / ((double)grid.upper - grid.lower) : 0, zeros = zeros_inside ? total[3] : 0;
        of_lower[row] = total[0] - total[2] / max_code + (1 - place) * zeros;
        of_upper[row] = total[1] + total[2] / max_code + place * zeros;
    }
    free(sums);
    return 0;
}

// Return 0, or 1 where memory does not suffice.
int gradients_by_step(int half, const void *values, const void *upstream, void *result, int64_t rows, int64_t length,
                      const float *step, float lowest, float highest, float *of_step) {
    double *sums = calloc(4 * chunks_of(rows, length).all, sizeof(double));
    if (!sums) return 1;
    FOR_EACH_CHUNK {
        PLACE_OF_CHUNK
        float g_buffer[CHUNK];
        const float *g = as_float(half, upstream, start, count, g_buffer);
        float unit = larger_step(step[row]), sum = 0;
#pragma omp simd reduction(+ : sum)
        for (int64_t i = 0; i < count; i++) {
            float position = x[i] / unit;
            float clipped = position < lowest ? lowest : position;
            clipped = clipped > highest ? highest : clipped;
            int inside = clipped == position;
            sum += (rintf(clipped) - (inside ? position : 0)) * g[i];
            y[i] = inside ? g[i] : 0;
        }
        sums[4 * chunk] = sum;
        if (half) to_half(y, result, start, count);
    }
    for (int64_t row = 0; row < rows; row++) {
        double total[4];
        add_up(sums + 4 * row * chunks.of_row, chunks.of_row, total);
        of_step[row] = total[0];
    }
    free(sums);
    return 0;
}
