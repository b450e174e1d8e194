/* What flq/compression/contexts.py and rans.py do for each weight or byte. */

#include <stddef.h>
#include <stdint.h>

#define PRECISION 15 /* plain_coding.RANS_PRECISION: frequencies are of 2^15 */
#define LOW 24       /* plain_coding.RANS_LOW: a lane is a number of 2^24 to 2^40 */

/* The places of n bytes, those of small ones first, equal ones as they come. */
void flq_order_of_bytes(const uint8_t *values, size_t n, int64_t *order) {
    size_t next[256] = {0}, start = 0;
    for (size_t i = 0; i < n; i++) next[values[i]]++;
    for (int value = 0; value < 256; value++) {
        size_t count = next[value];
        next[value] = start;
        start += count;
    }
    for (size_t i = 0; i < n; i++) order[next[values[i]]++] = (int64_t)i;
}

/* table[128 code + min(127, steps)] */
void flq_after_steps(const uint8_t *table, const uint8_t *codes, const int16_t *steps, size_t n,
                     uint8_t *out) {
    for (size_t i = 0; i < n; i++) {
        unsigned place = (unsigned)codes[i] << 7 | (uint16_t)(steps[i] < 127 ? steps[i] : 127);
        out[i] = table[place < 1u << 15 ? place : (1u << 15) - 1]; /* as plain.py: no place is outside */
    }
}

/* Write n symbols into `lanes` states, the last one first. words: room for n. Returns how many came
   out: they are the last ones of `words`. */
size_t flq_rans_write(const int64_t *symbols, size_t n, const int64_t *frequencies,
                      const int64_t *starts, int64_t *states, size_t lanes, uint16_t *words) {
    uint16_t *next = words + n;
    size_t lane = n % lanes;
    for (size_t i = n; i-- > 0;) {
        lane = (lane ? lane : lanes) - 1;
        uint64_t x = (uint64_t)states[lane], frequency = (uint64_t)frequencies[symbols[i]];
        if (x >= frequency << (LOW + 16 - PRECISION)) {
            *--next = (uint16_t)x;
            x >>= 16;
        }
        uint64_t quotient = x / frequency;
        states[lane] = (int64_t)((quotient << PRECISION) + x - quotient * frequency +
                                 (uint64_t)starts[symbols[i]]);
    }
    return (size_t)(words + n - next);
}

/* Read n bytes. rows: the source of each. found: by 2^15 source + slot, its byte. Returns how many of
   the words were taken, `count` + 1 where there are too few. */
size_t flq_rans_read(const int64_t *rows, size_t n, const uint8_t *found, const int64_t *frequencies,
                     const int64_t *starts, int64_t *states, size_t lanes, const uint16_t *words,
                     size_t count, uint8_t *values) {
    size_t used = 0, lane = 0;
    for (size_t i = 0; i < n; i++) {
        uint64_t x = (uint64_t)states[lane], slot = x & ((1u << PRECISION) - 1);
        uint8_t value = found[((size_t)rows[i] << PRECISION) + slot];
        size_t symbol = ((size_t)rows[i] << 8) + value;
        x = (x >> PRECISION) * (uint64_t)frequencies[symbol] + slot - (uint64_t)starts[symbol];
        if (x < 1u << LOW) {
            if (used == count) return count + 1;
            x = x << 16 | words[used++];
        }
        states[lane] = (int64_t)x;
        values[i] = value;
        if (++lane == lanes) lane = 0;
    }
    return used;
}
