/* zlib streams (RFC 1950 and 1951) of literals alone: Huffman codes without matches, as zlib writes
   them with its strategy Z_HUFFMAN_ONLY. Levels of a quantiser look like noise: matches do not pay.

   Written are the bytes that zlib writes (level 9, 15 bits of window, memLevel 9): blocks of 32,767
   literals, ties in a tree decided as it does, so that a payload has one size on every machine. Read
   is only what zlib would read too. Whatever else there is, stored blocks, matches, damage, is left
   to zlib: the functions return 0, and it decides.
*/

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__)
#define PASS __attribute__((target_clones("avx2", "default")))
#else
#define PASS
#endif

#define LITERALS 256
#define END 256            /* the symbol that ends a block */
#define SYMBOLS 288        /* literals, the end, lengths of matches */
#define NODES (2 * SYMBOLS)
#define LENGTHS 19         /* symbols of the code that lengths are written in */
#define LONGEST 15         /* bits of a code */
#define BLOCK 32767        /* literals */

static const uint8_t ORDER[LENGTHS] = {16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15};

PASS static uint32_t checksum(const uint8_t *data, size_t n) {
    uint32_t low = 1, high = 0;
    while (n > 0) {
        size_t width = n < 4096 ? n : 4096; /* high stays below 2^32 */
        size_t whole = width / 32 * 32, i = 0;
        for (; i < whole; i += 32) {
            uint32_t sum = 0, weighted = 0;
            for (uint32_t j = 0; j < 32; j++) {
                sum += data[i + j];
                weighted += (32 - j) * data[i + j];
            }
            high += 32 * low + weighted;
            low += sum;
        }
        for (; i < width; i++) high += low += data[i];
        low %= 65521;
        high %= 65521;
        data += width;
        n -= width;
    }
    return high << 16 | low;
}

/* --- a code: lengths from frequencies, codes from lengths */

typedef struct {
    uint32_t frequency[NODES];
    uint8_t depth[NODES];
    uint16_t parent[NODES];
    uint8_t length[NODES];
    uint16_t code[SYMBOLS]; /* its first bit lowest */
    int last;               /* the last symbol that occurs */
    int heap[NODES], size;
} Tree;

static int comes_before(const Tree *tree, int n, int m) {
    if (tree->frequency[n] != tree->frequency[m]) return tree->frequency[n] < tree->frequency[m];
    return tree->depth[n] <= tree->depth[m];
}

static void sift_down(Tree *tree, int place) {
    int node = tree->heap[place];
    for (int child = 2 * place; child <= tree->size; child *= 2) {
        if (child < tree->size && comes_before(tree, tree->heap[child + 1], tree->heap[child])) child++;
        if (comes_before(tree, node, tree->heap[child])) break;
        tree->heap[place] = tree->heap[child];
        place = child;
    }
    tree->heap[place] = node;
}

static unsigned reversed(unsigned code, int length) {
    unsigned turned = 0;
    for (int i = 0; i < length; i++, code >>= 1) turned = turned << 1 | (code & 1);
    return turned;
}

static void assign_codes(Tree *tree, const int *count) {
    unsigned next[LONGEST + 1], code = 0;
    for (int length = 1; length <= LONGEST; length++) next[length] = code = (code + count[length - 1]) << 1;
    for (int n = 0; n <= tree->last; n++)
        if (tree->length[n]) tree->code[n] = (uint16_t)reversed(next[tree->length[n]]++, tree->length[n]);
}

/* Huffman's code of the symbols that occur, no longer than `longest` bits. */
static void build(Tree *tree, int symbols, int longest) {
    int sorted[NODES], found = 0, node = symbols, count[LONGEST + 1] = {0}, beyond = 0;
    tree->size = 0;
    tree->last = -1;
    for (int n = 0; n < symbols; n++) {
        tree->length[n] = tree->depth[n] = 0;
        if (tree->frequency[n]) tree->heap[++tree->size] = tree->last = n;
    }
    while (tree->size < 2) { /* a code has two symbols at least */
        int more = tree->last < 2 ? ++tree->last : 0;
        tree->heap[++tree->size] = more;
        tree->frequency[more] = 1;
    }
    for (int place = tree->size / 2; place >= 1; place--) sift_down(tree, place);
    while (tree->size >= 2) {
        int first = tree->heap[1];
        tree->heap[1] = tree->heap[tree->size--];
        sift_down(tree, 1);
        int second = tree->heap[1];
        sorted[found++] = first;
        sorted[found++] = second;
        tree->frequency[node] = tree->frequency[first] + tree->frequency[second];
        tree->depth[node] = 1 + (tree->depth[first] >= tree->depth[second] ? tree->depth[first] : tree->depth[second]);
        tree->parent[first] = tree->parent[second] = (uint16_t)node;
        tree->heap[1] = node++;
        sift_down(tree, 1);
    }
    tree->length[tree->heap[1]] = 0;
    for (int place = found - 1; place >= 0; place--) { /* from the root down */
        int n = sorted[place], length = tree->length[tree->parent[n]] + 1;
        if (length > longest) {
            length = longest;
            beyond++;
        }
        tree->length[n] = (uint8_t)length;
        if (n < symbols) count[length]++;
    }
    if (beyond) {
        for (; beyond > 0; beyond -= 2) {
            int length = longest - 1;
            while (!count[length]) length--;
            count[length]--;
            count[length + 1] += 2;
            count[longest]--;
        }
        int place = 0; /* the rarest symbols come first */
        for (int length = longest; length > 0; length--)
            for (int left = count[length]; left > 0;) {
                int n = sorted[place++];
                if (n >= symbols) continue;
                tree->length[n] = (uint8_t)length;
                left--;
            }
    }
    assign_codes(tree, count);
}

/* --- writing */

typedef struct {
    uint8_t *next, *end;
    uint64_t bits;
    int count;
} Writer;

/* The lowest bytes of a word, the lowest first. */
static void store(uint8_t *to, uint64_t bits, int bytes) {
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    memcpy(to, &bits, (size_t)bytes);
#else
    for (int j = 0; j < bytes; j++) to[j] = (uint8_t)(bits >> 8 * j);
#endif
}

static void put(Writer *out, unsigned bits, int count) {
    out->bits |= (uint64_t)bits << out->count;
    out->count += count;
    while (out->count >= 8) {
        if (out->next < out->end) *out->next = (uint8_t)out->bits;
        out->next++;
        out->bits >>= 8;
        out->count -= 8;
    }
}

typedef struct {
    uint8_t symbol, more, bits;
} Run;

/* The lengths of two codes as runs; how many runs there are. */
static int runs_of(const Tree *tree, Run *runs) {
    int found = 0, before = -1;
    for (int n = 0; n <= tree->last;) {
        int length = tree->length[n], same = 1, most = length == 0 ? 138 : length == before ? 6 : 7;
        while (n + same <= tree->last && tree->length[n + same] == length && same < most) same++;
        int fewest = length == 0 || length == before ? 3 : 4;
        if (same < fewest) {
            for (int i = 0; i < same; i++) runs[found++] = (Run){(uint8_t)length, 0, 0};
        } else if (length) {
            int told = length != before; /* the length itself once, then how often again */
            if (told) runs[found++] = (Run){(uint8_t)length, 0, 0};
            runs[found++] = (Run){16, (uint8_t)(same - told - 3), 2};
        } else if (same <= 10) {
            runs[found++] = (Run){17, (uint8_t)(same - 3), 3};
        } else {
            runs[found++] = (Run){18, (uint8_t)(same - 11), 7};
        }
        before = length;
        n += same;
    }
    return found;
}

static void count_literals(const uint8_t *data, size_t n, uint32_t *frequency) {
    uint32_t counts[4][LITERALS] = {{0}}; /* four, so that equal neighbours do not wait for each other */
    size_t i = 0;
    for (; i + 4 <= n; i += 4)
        for (int j = 0; j < 4; j++) counts[j][data[i + j]]++;
    for (; i < n; i++) counts[0][data[i]]++;
    for (int j = 0; j < LITERALS; j++)
        frequency[j] = counts[0][j] + counts[1][j] + counts[2][j] + counts[3][j];
}

static void put_literals(Writer *out, const uint8_t *data, size_t n, const uint16_t *code,
                         const uint8_t *length) {
    uint32_t both[LITERALS];
    for (int j = 0; j < LITERALS; j++) both[j] = (uint32_t)code[j] << 4 | length[j];
    size_t i = 0;
    uint8_t *next = out->next;
    uint64_t bits = out->bits;
    unsigned count = (unsigned)out->count;
    /* fewer than 8 bits wait, and three literals are at most 45 */
    for (; i + 3 <= n && out->end - next >= 8; i += 3) {
        for (int j = 0; j < 3; j++) {
            uint32_t one = both[data[i + j]];
            bits |= (uint64_t)(one >> 4) << count;
            count += one & 15;
        }
        store(next, bits, 8);
        next += count >> 3;
        bits >>= count & ~7u;
        count &= 7;
    }
    *out = (Writer){next, out->end, bits, (int)count};
    for (; i < n; i++) put(out, code[data[i]], length[data[i]]);
}

/* One block. Returns 0 where zlib would store the literals as they are. */
static int put_block(Writer *out, const uint8_t *data, size_t n, int is_last) {
    Tree literals, distances, lengths;
    Run runs[SYMBOLS + 2];
    memset(literals.frequency, 0, sizeof literals.frequency);
    memset(distances.frequency, 0, sizeof distances.frequency);
    memset(lengths.frequency, 0, sizeof lengths.frequency);
    count_literals(data, n, literals.frequency);
    literals.frequency[END] = 1;
    uint64_t own = 0, fixed = 7;
    for (int j = 0; j < LITERALS; j++) fixed += (uint64_t)literals.frequency[j] * (j < 144 ? 8 : 9);
    build(&literals, SYMBOLS - 2, LONGEST);
    build(&distances, 30, LONGEST);
    for (int j = 0; j <= END; j++) own += (uint64_t)literals.frequency[j] * literals.length[j];

    int found = runs_of(&literals, runs), all = found + runs_of(&distances, runs + found);
    for (int i = 0; i < all; i++) lengths.frequency[runs[i].symbol]++;
    build(&lengths, LENGTHS, 7);
    int written = LENGTHS - 1;
    while (written >= 3 && !lengths.length[ORDER[written]]) written--;
    own += 14 + 3 * (uint64_t)(written + 1);
    for (int i = 0; i < all; i++) own += lengths.length[runs[i].symbol] + runs[i].bits;

    uint64_t own_bytes = (own + 3 + 7) >> 3, fixed_bytes = (fixed + 3 + 7) >> 3;
    int is_fixed = fixed_bytes <= own_bytes;
    if (n + 4 <= (is_fixed ? fixed_bytes : own_bytes)) return 0;
    put(out, (unsigned)is_last | (is_fixed ? 1u : 2u) << 1, 3);
    if (is_fixed) {
        uint16_t code[LITERALS];
        uint8_t length[LITERALS];
        for (unsigned j = 0; j < LITERALS; j++) {
            length[j] = j < 144 ? 8 : 9;
            code[j] = (uint16_t)(j < 144 ? reversed(0x30 + j, 8) : reversed(0x190 + j - 144, 9));
        }
        put_literals(out, data, n, code, length);
        put(out, 0, 7);
        return 1;
    }
    put(out, (unsigned)(literals.last + 1 - 257), 5);
    put(out, (unsigned)(distances.last + 1 - 1), 5);
    put(out, (unsigned)(written + 1 - 4), 4);
    for (int i = 0; i <= written; i++) put(out, lengths.length[ORDER[i]], 3);
    for (int i = 0; i < all; i++) {
        put(out, lengths.code[runs[i].symbol], lengths.length[runs[i].symbol]);
        put(out, runs[i].more, runs[i].bits);
    }
    put_literals(out, data, n, literals.code, literals.length);
    put(out, literals.code[END], literals.length[END]);
    return 1;
}

/* A stream of n literals; its length, 0 where zlib is to write it. */
size_t flq_deflate_literals(const uint8_t *data, size_t n, uint8_t *out, size_t room) {
    Writer writer = {out, out + room, 0, 0};
    put(&writer, 0x78, 8);
    put(&writer, 0x01, 8);
    size_t start = 0;
    for (; n - start >= BLOCK; start += BLOCK)
        if (!put_block(&writer, data + start, BLOCK, 0)) return 0;
    if (!put_block(&writer, data + start, n - start, 1)) return 0;
    put(&writer, 0, (8 - writer.count) & 7);
    uint32_t check = checksum(data, n);
    for (int shift = 24; shift >= 0; shift -= 8) put(&writer, check >> shift & 255, 8);
    return writer.next <= writer.end ? (size_t)(writer.next - out) : 0;
}

/* --- reading */

#define WIDE 11 /* bits that are looked up at once */
#define MOST 4  /* literals that one look gives */
#define LOOKS 5 /* 55 of the 56 bits that are there at least */
#define FEWEST 4096 /* literals of a block on average: a table for fewer takes longer than zlib */

/* What a look gives, in one word that is loaded at once: from the lowest byte on the bits that the
   literals take, their number and the literals. 0: what comes is none, or has a longer code. */
typedef uint64_t Entry;

typedef struct {
    const uint8_t *next, *end;
    uint64_t bits;
    int count, missing; /* bits; bytes behind the end */
} Reader;

static uint64_t load(const uint8_t *from) {
    uint64_t bits = 0;
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    memcpy(&bits, from, sizeof bits);
#else
    for (int j = 0; j < 8; j++) bits |= (uint64_t)from[j] << 8 * j;
#endif
    return bits;
}

static void refill(Reader *in) {
    if (in->end - in->next >= 8) {
        in->bits |= load(in->next) << in->count;
        in->next += (63 - in->count) >> 3;
        in->count |= 56;
        return;
    }
    while (in->count <= 56) {
        if (in->next < in->end)
            in->bits |= (uint64_t)*in->next++ << in->count;
        else
            in->missing++;
        in->count += 8;
    }
}

static unsigned take(Reader *in, int count) {
    unsigned bits = (unsigned)(in->bits & ((1u << count) - 1));
    in->bits >>= count;
    in->count -= count;
    return bits;
}

/* A code that is complete: its symbols in the order of their codes; of each length the first code and
   its place among them, and the first code that is longer, LONGEST bits wide. */
typedef struct {
    uint16_t symbols[SYMBOLS], place[LONGEST + 1];
    uint32_t first[LONGEST + 1], beyond[LONGEST + 1];
} Code;

static int order_code(Code *code, const uint8_t *length, int symbols) {
    uint16_t count[LONGEST + 1] = {0}, next[LONGEST + 1];
    uint32_t value = 0, place = 0;
    for (int n = 0; n < symbols; n++) count[length[n]]++;
    for (int bits = 1; bits <= LONGEST; bits++) {
        code->first[bits] = value;
        code->place[bits] = next[bits] = (uint16_t)place;
        place += count[bits];
        value += count[bits];
        code->beyond[bits] = value << (LONGEST - bits);
        if (value > 1u << bits) return 0; /* more codes than there are */
        value <<= 1;
    }
    for (int n = 0; n < symbols; n++)
        if (length[n]) code->symbols[next[length[n]]++] = (uint16_t)n;
    return code->beyond[LONGEST] == 1u << LONGEST;
}

/* The next symbol, whose code has `bits` bits at least; the reader holds LONGEST. */
static int symbol_of(const Code *code, Reader *in, int bits) {
    uint32_t value = reversed((unsigned)(in->bits & ((1u << LONGEST) - 1)), LONGEST);
    while (value >= code->beyond[bits]) bits++; /* ends: the code is complete */
    take(in, bits);
    return code->symbols[code->place[bits] + (value >> (LONGEST - bits)) - code->first[bits]];
}

static void fill_table(Entry *table, const Code *code) {
    uint16_t single[1 << WIDE]; /* symbol and length, 0 for a longer code */
    memset(single, 0, sizeof single);
    for (unsigned bits = 1; bits <= WIDE; bits++) {
        unsigned end = code->beyond[bits] >> (LONGEST - bits), index = code->place[bits];
        for (unsigned one = code->first[bits]; one < end; one++, index++)
            for (unsigned place = reversed(one, (int)bits); place < 1u << WIDE; place += 1u << bits)
                single[place] = (uint16_t)(code->symbols[index] << 4 | bits);
    }
    for (unsigned place = 0; place < 1u << WIDE; place++) {
        unsigned taken = 0, count = 0;
        Entry literals = 0;
        while (count < MOST) {
            unsigned one = single[place >> taken], bits = one & 15, symbol = one >> 4;
            if (!bits || taken + bits > WIDE || symbol >= LITERALS) break;
            literals |= (Entry)symbol << 8 * count++;
            taken += bits;
        }
        table[place] = literals << 16 | count << 8 | taken;
    }
}

/* Literals, until what comes is none, or one or the other end is near. */
static uint8_t *read_literals(Reader *in, const Entry *table, const Code *code, uint8_t *to,
                              const uint8_t *end) {
    Reader at = *in;
    while (end - to >= LOOKS * MOST && at.end - at.next >= 8) {
        refill(&at);
        for (int look = 0; look < LOOKS; look++) {
            Entry entry = table[at.bits & ((1 << WIDE) - 1)];
            if (!entry) {
                Reader before = at;
                refill(&at);
                int symbol = symbol_of(code, &at, 1);
                if (symbol >= LITERALS) {
                    *in = before;
                    return to;
                }
                *to++ = (uint8_t)symbol;
                break;
            }
            store(to, entry >> 16, MOST);
            to += entry >> 8 & 255;
            at.bits >>= entry & 63;
            at.count -= (int)(entry & 63);
        }
    }
    *in = at;
    return to;
}

/* The lengths of the two codes of a block; 0 where zlib is to look at them. */
static int read_lengths(Reader *in, uint8_t *length, int *literals, int *distances) {
    uint8_t of_lengths[LENGTHS] = {0};
    Code code;
    refill(in);
    *literals = (int)take(in, 5) + 257;
    *distances = (int)take(in, 5) + 1;
    int written = (int)take(in, 4) + 4, n = 0;
    if (*literals > 286 || *distances > 30) return 0;
    for (int i = 0; i < written; i++) {
        refill(in);
        of_lengths[ORDER[i]] = (uint8_t)take(in, 3);
    }
    if (!order_code(&code, of_lengths, LENGTHS)) return 0;
    while (n < *literals + *distances) {
        refill(in);
        int symbol = symbol_of(&code, in, 1), times = 1;
        uint8_t value = 0;
        if (symbol < 16) {
            value = (uint8_t)symbol;
        } else if (symbol == 16) {
            if (!n) return 0;
            value = length[n - 1];
            times = 3 + (int)take(in, 2);
        } else {
            times = symbol == 17 ? 3 + (int)take(in, 3) : 11 + (int)take(in, 7);
        }
        if (n + times > *literals + *distances) return 0;
        memset(length + n, value, (size_t)times);
        n += times;
    }
    return length[END] != 0;
}

/* The n literals of a stream; 1 where it is one of them and no more, 0 where zlib is to look. */
int32_t flq_inflate_literals(const uint8_t *stream, size_t size, uint8_t *out, size_t n) {
    if (size < 6 || (stream[0] & 15) != 8 || stream[0] >> 4 > 7 || stream[1] & 32 ||
        (stream[0] << 8 | stream[1]) % 31)
        return 0;
    Reader in = {stream + 2, stream + size, 0, 0, 0};
    uint8_t *to = out, *const end = out + n;
    size_t blocks = 0;
    unsigned is_last;
    do {
        if (blocks++ > n / FEWEST) return 0;
        uint8_t length[SYMBOLS + 32];
        int literals = SYMBOLS, distances = 0;
        Code code;
        Entry table[1 << WIDE];
        refill(&in);
        is_last = take(&in, 1);
        unsigned kind = take(&in, 2);
        if (kind == 1) {
            for (int j = 0; j < SYMBOLS; j++) length[j] = j < 144 ? 8 : j < 256 ? 9 : j < 280 ? 7 : 8;
        } else if (kind != 2 || !read_lengths(&in, length, &literals, &distances)) {
            return 0;
        }
        if (distances && !order_code(&code, length + literals, distances)) return 0;
        if (!order_code(&code, length, literals)) return 0;
        fill_table(table, &code);
        for (;;) {
            to = read_literals(&in, table, &code, to, end);
            refill(&in);
            if (in.missing > 8) return 0; /* its end is far behind */
            int symbol = symbol_of(&code, &in, 1);
            if (symbol == END) break;
            if (symbol > END || to == end) return 0;
            *to++ = (uint8_t)symbol;
        }
    } while (!is_last);
    take(&in, in.count & 7);
    refill(&in);
    uint32_t check = 0;
    for (int j = 0; j < 4; j++) check = check << 8 | take(&in, 8);
    int left = in.count / 8 - in.missing; /* bytes that were taken and not used */
    return to == end && left == 0 && in.next == in.end && check == checksum(out, n);
}
