/* The passes over long vectors, compiled: what plain.py computes, with the same bits.

   Every addition and product is that of plain.py, in its order, on IEEE floats: no product is fused
   with a sum (-ffp-contract=off), nothing is reassociated, and no function reads more than it is
   given. Python lets go of its lock while one of them runs. Vectors are contiguous; n counts numbers.
*/

#include <float.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if FLT_EVAL_METHOD != 0
#error "this compiler computes with more digits than float and double have"
#endif

/* One library for every processor of a kind: each function is there for AVX2 as well, where a loader
   can choose. */
#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__)
#define PASS __attribute__((target_clones("avx2", "default")))
#else
#define PASS
#endif

#define WIDTH 1024 /* plain.WIDTH: columns of a sum, numbers of a sketch */
#define ROW 32768  /* plain.PIECE: a row of the first sum of a sketch */
#define BLOCK 256

/* --- sums in float64: rows of WIDTH, added in order, then folded by halves */

static double folded(double *partial) {
    for (size_t width = WIDTH / 2; width > 0; width /= 2)
        for (size_t j = 0; j < width; j++) partial[j] += partial[j + width];
    return partial[0];
}

PASS double flq_squared_norm(const float *x, size_t n) {
    double partial[WIDTH] = {0};
    for (size_t start = 0; start < n; start += WIDTH) {
        size_t width = n - start < WIDTH ? n - start : WIDTH;
        for (size_t j = 0; j < width; j++) {
            double value = x[start + j];
            partial[j] += value * value;
        }
    }
    return folded(partial);
}

PASS double flq_squared_distance(const float *x, const float *y, size_t n) {
    double partial[WIDTH] = {0};
    for (size_t start = 0; start < n; start += WIDTH) {
        size_t width = n - start < WIDTH ? n - start : WIDTH;
        for (size_t j = 0; j < width; j++) {
            float difference = x[start + j] - y[start + j];
            double value = difference;
            partial[j] += value * value;
        }
    }
    return folded(partial);
}

/* the same without rounding the differences to float */
PASS double flq_squared_distance_f64(const float *x, const float *y, size_t n) {
    double partial[WIDTH] = {0};
    for (size_t start = 0; start < n; start += WIDTH) {
        size_t width = n - start < WIDTH ? n - start : WIDTH;
        for (size_t j = 0; j < width; j++) {
            double value = (double)x[start + j] - y[start + j];
            partial[j] += value * value;
        }
    }
    return folded(partial);
}

PASS double flq_sum_of_magnitudes(const float *x, size_t n) {
    double partial[WIDTH] = {0};
    for (size_t start = 0; start < n; start += WIDTH) {
        size_t width = n - start < WIDTH ? n - start : WIDTH;
        for (size_t j = 0; j < width; j++) {
            float value = x[start + j];
            partial[j] += value < 0 ? -value : value;
        }
    }
    return folded(partial);
}

/* --- quantising */

/* max |x|; what it gives where a value is not finite is not finite. */
PASS float flq_largest_magnitude(const float *x, size_t n) {
    int32_t largest = 0; /* as bits: of numbers without a sign their order is that of the floats */
    for (size_t i = 0; i < n; i++) {
        int32_t bits;
        memcpy(&bits, x + i, sizeof bits);
        bits &= 0x7fffffff;
        largest = bits > largest ? bits : largest;
    }
    float value;
    memcpy(&value, &largest, sizeof value);
    return value;
}

/* Levels that float32 finds, and the places where it is not sure of them; how many those are. */
PASS size_t flq_near_levels(const float *x, size_t n, float slope, float low, float high,
                            uint8_t *levels, int64_t *unsure) {
    size_t count = 0;
    for (size_t start = 0; start < n; start += BLOCK) {
        size_t width = n - start < BLOCK ? n - start : BLOCK;
        uint8_t least[BLOCK], differ = 0;
        for (size_t j = 0; j < width; j++) {
            float near = x[start + j] * slope;
            least[j] = (uint8_t)(int32_t)(near + low);
            levels[start + j] = (uint8_t)(int32_t)(near + high);
        }
        for (size_t j = 0; j < width; j++) differ |= least[j] ^ levels[start + j];
        if (differ)
            for (size_t j = 0; j < width; j++)
                if (least[j] != levels[start + j]) unsure[count++] = (int64_t)(start + j);
    }
    return count;
}

/* (times level - middle) step */
PASS void flq_on_grid(const uint8_t *levels, size_t n, int32_t times, int32_t middle, float step,
                      float *out) {
    for (size_t i = 0; i < n; i++) out[i] = (float)(times * levels[i] - middle) * step;
}

/* the same, added to other numbers */
PASS void flq_on_grid_from(const uint8_t *levels, const float *base, size_t n, int32_t times,
                           int32_t middle, float step, float *out) {
    for (size_t i = 0; i < n; i++) {
        float value = (float)(times * levels[i] - middle) * step;
        out[i] = value + base[i];
    }
}

/* <x, level - middle> and ||level - middle||^2 */
PASS void flq_products_with_levels(const float *x, const uint8_t *levels, int32_t middle, size_t n,
                                   double *sums) {
    double products[WIDTH] = {0}, squares[WIDTH] = {0};
    for (size_t start = 0; start < n; start += WIDTH) {
        size_t width = n - start < WIDTH ? n - start : WIDTH;
        for (size_t j = 0; j < width; j++) {
            double step = levels[start + j] - middle;
            products[j] += x[start + j] * step;
            squares[j] += step * step;
        }
    }
    sums[0] = folded(products);
    sums[1] = folded(squares);
}

/* --- references */

/* u - a g in float64, rounded once; its squared norm */
PASS double flq_from_reference(const float *u, const double *g, double rate, size_t n, float *out) {
    double partial[WIDTH] = {0};
    for (size_t start = 0; start < n; start += WIDTH) {
        size_t width = n - start < WIDTH ? n - start : WIDTH;
        for (size_t j = 0; j < width; j++) {
            double h = rate * g[start + j];
            float difference = (float)(u[start + j] - h);
            double value = difference;
            out[start + j] = difference;
            partial[j] += value * value;
        }
    }
    return folded(partial);
}

/* g + c; whether -limit <= a (g + c) <= limit everywhere */
PASS int32_t flq_to_reference(const double *g, const float *c, double rate, double limit, size_t n,
                              double *out) {
    double beyond[BLOCK] = {0};
    for (size_t start = 0; start < n; start += BLOCK) {
        size_t width = n - start < BLOCK ? n - start : BLOCK;
        for (size_t j = 0; j < width; j++) {
            double after = g[start + j] + c[start + j], h = rate * after;
            out[start + j] = after;
            beyond[j] = h <= limit ? beyond[j] : 1;
            beyond[j] = h >= -limit ? beyond[j] : 1;
        }
    }
    for (size_t j = 0; j < BLOCK; j++)
        if (beyond[j] != 0) return 0;
    return 1;
}

/* --- what the master sums */

/* out = 0 + w_0 c_0 + w_1 c_1 + ..., of n numbers from `start` on */
PASS void flq_weighted_sum(const float *const *c, const double *weights, size_t count, size_t start,
                           size_t n, double *out) {
    for (size_t begin = 0; begin < n; begin += BLOCK) {
        size_t width = n - begin < BLOCK ? n - begin : BLOCK;
        double total[BLOCK] = {0};
        for (size_t k = 0; k < count; k++) {
            const float *values = c[k] + start + begin;
            for (size_t j = 0; j < width; j++) {
                double term = values[j];
                term *= weights[k];
                total[j] += term;
            }
        }
        memcpy(out + begin, total, width * sizeof(double));
    }
}

/* (a A + rho D) / N in float64, rounded once */
PASS void flq_around_reference(const double *reference_sum, double rate, const double *weighted,
                               double rho, double total_weight, size_t n, float *out) {
    for (size_t i = 0; i < n; i++) {
        double correction = rho * weighted[i];
        double mean = rate * reference_sum[i];
        mean = correction + mean;
        out[i] = (float)(mean / total_weight);
    }
}

/* A count sketch, and the squared norm. signs: 0, or 128 for -1. first, second: by how much each row
   is turned. total: ROW numbers, all 0. sketch: WIDTH numbers, all 0. */
PASS double flq_sketch(const float *x, size_t n, const uint8_t *signs, const uint32_t *first,
                       const uint32_t *second, double *total, double *sketch) {
    double partial[WIDTH] = {0};
    for (size_t start = 0; start < n; start += WIDTH) {
        size_t width = n - start < WIDTH ? n - start : WIDTH;
        double signed_values[WIDTH];
        for (size_t j = 0; j < width; j++) {
            int32_t bits;
            float value;
            memcpy(&bits, x + start + j, sizeof bits);
            bits ^= (int32_t)((uint32_t)signs[start + j] << 24);
            memcpy(&value, &bits, sizeof value);
            signed_values[j] = value;
            partial[j] += signed_values[j] * signed_values[j];
        }
        size_t target = (start % ROW + first[start / ROW]) % ROW;
        size_t head = ROW - target < width ? ROW - target : width;
        for (size_t j = 0; j < head; j++) total[target + j] += signed_values[j];
        for (size_t j = head; j < width; j++) total[j - head] += signed_values[j];
    }
    for (size_t row = 0; row < ROW / WIDTH; row++) {
        const double *values = total + row * WIDTH;
        size_t target = second[row] % WIDTH, head = WIDTH - target;
        for (size_t j = 0; j < head; j++) sketch[target + j] += values[j];
        for (size_t j = head; j < WIDTH; j++) sketch[j - head] += values[j];
    }
    return folded(partial);
}

/* x + (y - x) weight */
PASS void flq_moved(const float *x, const float *y, float weight, size_t n, float *out) {
    for (size_t i = 0; i < n; i++) {
        float away = y[i] - x[i];
        away *= weight;
        out[i] = away + x[i];
    }
}

/* x - rate step */
PASS void flq_stepped(const float *x, float rate, const float *step, size_t n, float *out) {
    for (size_t i = 0; i < n; i++) {
        float change = rate * step[i];
        out[i] = x[i] - change;
    }
}
