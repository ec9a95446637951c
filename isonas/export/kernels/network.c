/* Everything is a walk over the positions of the r x r grid, two at a time. A block expands positions
   just ahead of the depthwise window into a ring, filters the two positions behind, and projects them
   onto the residual stream in place: what later expansions read lies at or beyond them. */

#define AREA (RES * RES)
#define EDGE (KERNEL / 2)

static union {
    int32_t align;
    int8_t bytes[ARENA];
} arena;
static int fed; /* strips taken in */

#define I8(at) ((int8_t *)(arena.bytes + (at)))
#define I16(at) ((i16 *)(void *)(arena.bytes + (at)))
#define I32(at) ((i32 *)(void *)(arena.bytes + (at)))

/* ---- arithmetic --------------------------------------------------------------------------------- */

#if DSP
typedef int32_t ALIAS w32;
static inline int32_t rescaled(int32_t sum, int32_t m) {
    int32_t r;
    __asm__("smmulr %0, %1, %2" : "=r"(r) : "r"(sum), "r"(m));
    return r;
}
static inline int32_t clip8(int32_t a) {
    int32_t r;
    __asm__("ssat %0, #8, %1" : "=r"(r) : "r"(a));
    return r;
}
static inline int32_t evens(int32_t a) { /* bytes 0 and 2 as two int16 */
    int32_t r;
    __asm__("sxtb16 %0, %1" : "=r"(r) : "r"(a));
    return r;
}
static inline int32_t odds(int32_t a) { /* bytes 1 and 3 */
    int32_t r;
    __asm__("sxtb16 %0, %1, ror #8" : "=r"(r) : "r"(a));
    return r;
}
static inline int32_t dual(int32_t a, int32_t b, int32_t sum) {
    int32_t r;
    __asm__("smlad %0, %1, %2, %3" : "=r"(r) : "r"(a), "r"(b), "r"(sum));
    return r;
}
static inline int32_t gated(int32_t gate, int32_t value) { /* (gate * value) >> 16 */
    int32_t r;
    __asm__("smulwb %0, %1, %2" : "=r"(r) : "r"(gate), "r"(value));
    return r;
}
static inline int32_t packed(int32_t low, int32_t high) {
    int32_t r;
    __asm__("pkhbt %0, %1, %2, lsl #16" : "=r"(r) : "r"(low), "r"(high));
    return r;
}
/* a vector lies by fours in the order 0 2 1 3, as SXTB16 takes weights apart */
#define PLACE(i) (((i) & ~3) | (((i) & 1) << 1) | (((i) >> 1) & 1))
#else
static inline int32_t rescaled(int32_t sum, int32_t m) {
    return (int32_t)(((int64_t)sum * m + 0x80000000LL) >> 32);
}
static inline int32_t clip8(int32_t a) { return a < -128 ? -128 : a > 127 ? 127 : a; }
#define PLACE(i) (i)
#endif

static inline int32_t shifted(int64_t sum, int32_t m, int shift) {
    return (int32_t)((sum * m + ((int64_t)1 << (shift - 1))) >> shift);
}
static inline int32_t clip(int32_t a, int32_t low, int32_t high) { return a < low ? low : a > high ? high : a; }

/* Two positions lie interleaved, as int16: of each four channels first 0 and 2, then 1 and 3, position 0
   before position 1. */
#define PAIRED(p, j) (((j) >> 2) * 8 + ((j) & 1) * 4 + (p) * 2 + (((j) >> 1) & 1))

static inline void widen(i16 *pair, int p, const int8_t *x, int n) {
#if DSP
    w32 *to = (w32 *)pair + p;
    for (; n; n -= 4, x += 4, to += 4) {
        int32_t v = *(const w32 *)(const void *)x;
        to[0] = evens(v);
        to[2] = odds(v);
    }
#else
    for (int i = 0; i < n; i += 4, pair += 8, x += 4) {
        pair[2 * p] = x[0];
        pair[2 * p + 1] = x[2];
        pair[2 * p + 4] = x[1];
        pair[2 * p + 5] = x[3];
    }
#endif
}

/* sums[0..1] of position 0 and [2..3] of position 1, for two rows of weights interleaved by fours; n is a
   multiple of 8. Inlined, plain C would run out of registers. */
#if DSP
static inline void dot22(
#else
static NOINLINE void dot22(
#endif
    const i16 *pair, const int8_t *w, int n, int32_t *sums) {
    int32_t s0 = sums[0], s1 = sums[1], s2 = sums[2], s3 = sums[3];
#if DSP
    const int8_t *end = w + 2 * n;
    int32_t v, u, p, q, t;
#define FOUR                                                                                   \
    "ldrd %[v], %[u], [%[w]], #8\n ldrd %[p], %[q], [%[a]], #8\n"                              \
    "sxtb16 %[t], %[v]\n smlad %[s0], %[p], %[t], %[s0]\n smlad %[s2], %[q], %[t], %[s2]\n"    \
    "sxtb16 %[t], %[u]\n smlad %[s1], %[p], %[t], %[s1]\n smlad %[s3], %[q], %[t], %[s3]\n"    \
    "ldrd %[p], %[q], [%[a]], #8\n"                                                            \
    "sxtb16 %[t], %[v], ror #8\n smlad %[s0], %[p], %[t], %[s0]\n smlad %[s2], %[q], %[t], %[s2]\n" \
    "sxtb16 %[t], %[u], ror #8\n smlad %[s1], %[p], %[t], %[s1]\n smlad %[s3], %[q], %[t], %[s3]\n"
    /* one statement: the compiler's own order keeps sums on the stack */
    __asm__ volatile("1:\n" FOUR FOUR "cmp %[w], %[end]\n bne 1b"
                     : [s0] "+r"(s0), [s1] "+r"(s1), [s2] "+r"(s2), [s3] "+r"(s3), [w] "+r"(w),
                       [a] "+r"(pair), [v] "=&r"(v), [u] "=&r"(u), [p] "=&r"(p), [q] "=&r"(q), [t] "=&r"(t)
                     : [end] "r"(end)
                     : "cc", "memory");
#undef FOUR
#else
#define ONE(j, at)                                     \
    do {                                               \
        int32_t v = w[j], u = w[4 + (j)];              \
        int32_t p = pair[at], q = pair[(at) + 2];      \
        s0 += p * v, s1 += p * u, s2 += q * v, s3 += q * u; \
    } while (0)
    for (int i = 0; i < n; i += 4, pair += 8, w += 8) {
        ONE(0, 0);
        ONE(2, 1);
        ONE(1, 4);
        ONE(3, 5);
    }
#undef ONE
#endif
    sums[0] = s0, sums[1] = s1, sums[2] = s2, sums[3] = s3;
}

/* n is a multiple of 4 */
static inline int32_t dot1(const i16 *a, const int8_t *w, int n, int32_t sum) {
#if DSP
    for (; n; n -= 4, a += 4, w += 4) {
        int32_t v = *(const w32 *)(const void *)w;
        sum = dual(((const w32 *)a)[0], evens(v), sum);
        sum = dual(((const w32 *)a)[1], odds(v), sum);
    }
#else
    for (int i = 0; i < n; i++) sum += (int32_t)a[i] * w[i];
#endif
    return sum;
}

/* Layers are copied before loops: a byte that is stored could otherwise be one of their pointers'. */
static inline int8_t activated(const Layer *layer, int o, int32_t sum) {
    return layer->table[clip8(rescaled(sum, layer->m[o]))];
}

/* ---- stem --------------------------------------------------------------------------------------- */

#define PATCH_PADDED ((PLANES * PATCH * PATCH + 7) & ~7)
#define TAPS_PADDED ((PLANES * TAPS * TAPS + 7) & ~7)

#if STEM == STEM_PATCHES
/* patches column and column + 1 of a strip, widened (the second one only where there is one) */
static void read_patches(const uint8_t *strip, int column, int both) {
    i16 *pair = I16(AT_PATCH);
    for (int p = 0; p <= both; p++) {
        int j = 0;
        for (int y = 0; y < PATCH; y++) {
            const uint8_t *pixel = strip + (y * SIDE + (column + p) * PATCH) * PLANES;
            for (int v = 0; v < PLANES * PATCH; v++, j++) pair[PAIRED(p, j)] = pixel[v];
        }
        for (; j < PATCH_PADDED; j++) pair[PAIRED(p, j)] = 0;
    }
}

#if TAPS == 1
static void take(const uint8_t *strip, int row) {
    const Layer layer = stem;
    int8_t *x = I8(AT_STREAM) + row * RES * CHANNELS;
    for (int i = 0; i < RES; i += 2) {
        int both = i + 1 < RES;
        read_patches(strip, i, both);
        const int8_t *w = layer.w;
        int8_t *x0 = x + i * CHANNELS, *x1 = x0 + both * CHANNELS;
        for (int o = 0; o < CHANNELS; o += 2, w += 2 * PATCH_PADDED) {
            int32_t s[4] = {layer.b[o], layer.b[o + 1], layer.b[o], layer.b[o + 1]};
            dot22(I16(AT_PATCH), w, PATCH_PADDED, s);
            x1[o] = activated(&layer, o, s[2]), x1[o + 1] = activated(&layer, o + 1, s[3]);
            x0[o] = activated(&layer, o, s[0]), x0[o + 1] = activated(&layer, o + 1, s[1]);
        }
    }
}
#else
/* A strip adds to three rows of the stream: its own and its neighbours, which are kept as int32 sums. */
static i32 *sums_of(int row) { return I32(AT_PARTIAL) + row % 3 * RES * CHANNELS; }

static void start_row(int row) {
    const Layer layer = stem;
    i32 *sum = sums_of(row);
    for (int column = 0; column < RES; column++, sum += CHANNELS)
        for (int o = 0; o < CHANNELS; o++) {
            int32_t s = layer.b[o];
            for (int tap = 0; tap < 9; tap++) {
                int y = row + tap / 3 - 1, x = column + tap % 3 - 1;
                if (y < 0 || y >= RES || x < 0 || x >= RES) s -= stem_missing[tap * CHANNELS + o];
            }
            sum[o] = s;
        }
}

static void finish_row(int row) {
    const Layer layer = stem;
    const i32 *sum = sums_of(row);
    int8_t *x = I8(AT_STREAM) + row * RES * CHANNELS;
    for (int i = 0; i < RES; i++)
        for (int o = 0; o < CHANNELS; o++) *x++ = activated(&layer, o, *sum++);
}

static void take(const uint8_t *strip, int row) {
    if (row == 0) start_row(0);
    if (row + 1 < RES) start_row(row + 1);
    for (int i = 0; i < RES; i += 2) {
        int both = i + 1 < RES;
        read_patches(strip, i, both);
        const int8_t *w = stem.w;
        for (int tap = 0; tap < 9; tap++) {
            int y = row + 1 - tap / 3, x = i + 1 - tap % 3;
            if (y < 0 || y >= RES) {
                w += PATCH_PADDED * CHANNELS;
                continue;
            }
            i32 *sum = sums_of(y) + x * CHANNELS;
            for (int o = 0; o < CHANNELS; o += 2, w += 2 * PATCH_PADDED) {
                int32_t s[4] = {0, 0, 0, 0};
                dot22(I16(AT_PATCH), w, PATCH_PADDED, s);
                if (x >= 0 && x < RES) sum[o] += s[0], sum[o + 1] += s[1];
                if (both && x + 1 >= 0 && x + 1 < RES) sum[CHANNELS + o] += s[2], sum[CHANNELS + o + 1] += s[3];
            }
        }
    }
    if (row > 0) finish_row(row - 1);
    if (row == RES - 1) finish_row(row);
}
#endif

#else /* STEM_ROWS: the image pooled or upsampled to r pixels, in int16, the last TAPS rows of it */
static i16 *row_at(int row) { return I16(AT_ROWS) + row % TAPS * RES * PLANES; }

static void finish_row(int row) {
    const Layer layer = stem;
    int8_t *x = I8(AT_STREAM) + row * RES * CHANNELS;
    i16 *pair = I16(AT_PATCH);
    const int reach = TAPS / 2;
    for (int i = 0; i < RES; i += 2) {
        int both = i + 1 < RES, outside[2] = {0, 0};
        for (int p = 0; p <= both; p++) {
            int j = 0;
            for (int tap = 0; tap < TAPS * TAPS; tap++) {
                int y = row + tap / TAPS - reach, c = i + p + tap % TAPS - reach;
                int in = y >= 0 && y < RES && c >= 0 && c < RES;
                if (!in) outside[p] |= 1 << tap;
                for (int v = 0; v < PLANES; v++, j++)
                    pair[PAIRED(p, j)] = in ? row_at(y)[c * PLANES + v] : (int16_t)0;
            }
            for (; j < TAPS_PADDED; j++) pair[PAIRED(p, j)] = 0;
        }
        const int8_t *w = layer.w;
        int8_t *x0 = x + i * CHANNELS, *x1 = x0 + both * CHANNELS;
        for (int o = 0; o < CHANNELS; o += 2, w += 2 * TAPS_PADDED) {
            int32_t s[4] = {layer.b[o], layer.b[o + 1], layer.b[o], layer.b[o + 1]};
#if TAPS > 1
            for (int p = 0; p <= both; p++)
                for (int tap = 0; outside[p] >> tap; tap++)
                    if (outside[p] >> tap & 1) {
                        s[2 * p] -= stem_missing[tap * CHANNELS + o];
                        s[2 * p + 1] -= stem_missing[tap * CHANNELS + o + 1];
                    }
#endif
            dot22(pair, w, TAPS_PADDED, s);
            x1[o] = activated(&layer, o, s[2]), x1[o + 1] = activated(&layer, o + 1, s[3]);
            x0[o] = activated(&layer, o, s[0]), x0[o + 1] = activated(&layer, o + 1, s[1]);
        }
    }
}

static void finish_rows(int row) { /* the row just made is number `row` */
#if TAPS == 1
    finish_row(row);
#else
    if (row > 0) finish_row(row - 1);
    if (row == RES - 1) finish_row(row);
#endif
}

#if RES > SIDE
static void take(const uint8_t *strip, int row) {
    static const int whole = 2 * RES;
    uint8_t *before = (uint8_t *)I8(AT_BEFORE);
    for (int y = 0; y < RES; y++) {
        int place = (2 * y + 1) * SIDE - RES;
        if (place < 0) place = 0;
        int above = place / whole, below = above + 1 < SIDE ? above + 1 : SIDE - 1;
        if (below != row) continue;
        const uint8_t *up = above == row ? strip : before;
        int32_t down = place % whole;
        i16 *to = row_at(y);
        for (int i = 0; i < RES; i++) {
            int at = (2 * i + 1) * SIDE - RES;
            if (at < 0) at = 0;
            int left = at / whole, right = left + 1 < SIDE ? left + 1 : SIDE - 1;
            int32_t over = at % whole;
            for (int v = 0; v < PLANES; v++) {
                int32_t l = up[left * PLANES + v] * (whole - down) + strip[left * PLANES + v] * down;
                int32_t r = up[right * PLANES + v] * (whole - down) + strip[right * PLANES + v] * down;
                *to++ = (int16_t)shifted(l * (whole - over) + r * over, ROW_M, ROW_SHIFT);
            }
        }
        finish_rows(y);
    }
    for (int i = 0; i < SIDE * PLANES; i++) before[i] = strip[i];
}
#else
static void take(const uint8_t *strip, int row) {
    i16 *to = row_at(row);
    for (int i = 0; i < RES; i++)
        for (int v = 0; v < PLANES; v++) {
            int32_t sum = 0;
            for (int y = 0; y < POOL; y++) {
                const uint8_t *pixel = strip + (y * SIDE + i * POOL) * PLANES + v;
                for (int x = 0; x < POOL; x++) sum += pixel[x * PLANES];
            }
            *to++ = (int16_t)shifted(sum, ROW_M, ROW_SHIFT);
        }
    finish_rows(row);
}
#endif
#endif

/* ---- blocks ------------------------------------------------------------------------------------- */

enum { PLAIN, SUMMED, GATED };

/* HIDDEN channels of position p of a pair: to the pair; or added to the sums; or to the pair, gated */
static NOINLINE void depthwise(const Block *block, const int8_t *const *taps, int how, int p) {
    const Layer layer = block->depthwise;
    const int8_t *w = layer.w;
    const int32_t zero = block->zero;
    i32 *sums = I32(AT_SUMS);
#if DSP
    const int8_t *table = layer.table;
    w32 *to = (w32 *)I16(AT_PAIR) + p;
    for (int e = 0; e < HIDDEN; e += 4, to += 4) {
        int32_t s0 = layer.b[e], s1 = layer.b[e + 1], s2 = layer.b[e + 2], s3 = layer.b[e + 3];
        const int8_t *const *tap = taps;
#if defined(__GNUC__)
#pragma GCC unroll 25
#endif
        for (int k = 0; k < KERNEL * KERNEL; k++) {
            int32_t x, v, i, j;
            __asm__ volatile("ldr %[i], [%[t]], #4\n ldr %[v], [%[w]], #4\n ldr %[x], [%[i], %[e]]\n"
                             "sxtb16 %[i], %[x]\n sxtb16 %[j], %[v]\n"
                             "smlabb %[s0], %[i], %[j], %[s0]\n smlatt %[s2], %[i], %[j], %[s2]\n"
                             "sxtb16 %[x], %[x], ror #8\n sxtb16 %[v], %[v], ror #8\n"
                             "smlabb %[s1], %[x], %[v], %[s1]\n smlatt %[s3], %[x], %[v], %[s3]"
                             : [s0] "+r"(s0), [s1] "+r"(s1), [s2] "+r"(s2), [s3] "+r"(s3), [t] "+r"(tap),
                               [w] "+r"(w), [x] "=&r"(x), [v] "=&r"(v), [i] "=&r"(i), [j] "=&r"(j)
                             : [e] "r"(e)
                             : "memory");
        }
        s0 = table[clip8(rescaled(s0, layer.m[e]))];
        s1 = table[clip8(rescaled(s1, layer.m[e + 1]))];
        s2 = table[clip8(rescaled(s2, layer.m[e + 2]))];
        s3 = table[clip8(rescaled(s3, layer.m[e + 3]))];
        if (how == SUMMED) {
            sums[e] += s0, sums[e + 1] += s1, sums[e + 2] += s2, sums[e + 3] += s3;
        } else if (how == GATED) {
            to[0] = packed(gated(sums[e], s0 - zero), gated(sums[e + 2], s2 - zero));
            to[2] = packed(gated(sums[e + 1], s1 - zero), gated(sums[e + 3], s3 - zero));
        } else {
            to[0] = packed(s0, s2);
            to[2] = packed(s1, s3);
        }
    }
#else
    i16 *pair = I16(AT_PAIR);
    for (int e = 0; e < HIDDEN; e += 4, w += 4 * KERNEL * KERNEL) {
        int32_t s0 = layer.b[e], s1 = layer.b[e + 1], s2 = layer.b[e + 2], s3 = layer.b[e + 3];
        const int8_t *v = w;
        const int8_t *const *tap = taps;
#if defined(__GNUC__)
#pragma GCC unroll 3
#endif
        for (int k = 0; k < KERNEL * KERNEL; k++, v += 4) {
            const int8_t *x = *tap++ + e;
            s0 += x[0] * v[0], s1 += x[1] * v[1], s2 += x[2] * v[2], s3 += x[3] * v[3];
        }
        const int32_t s[4] = {s0, s1, s2, s3};
        for (int j = 0; j < 4; j++) {
            int32_t y = activated(&layer, e + j, s[j]);
            if (how == SUMMED) sums[e + j] += y;
            else pair[PAIRED(p, e + j)] = (int16_t)(how == GATED ? ((int64_t)(y - zero) * sums[e + j]) >> 16 : y);
        }
    }
#endif
}

static inline int8_t added(const Block *block, int o, int32_t sum, int32_t x) {
    int64_t all = (int64_t)sum * block->project.m[o] + (int64_t)(x * 256) * block->residual + block->offset;
    return (int8_t)clip8((int32_t)(all >> 32));
}

static void walk(const Block *of, int how) {
    const Block copy = *of, *block = &copy;
    const Layer expand = of->expand, project = of->project;
    int8_t *ring = I8(AT_RING), *padding = I8(AT_PADDING), *x = I8(AT_STREAM);
    i16 *pair = I16(AT_PAIR);
    int ahead = 0, free = 0; /* the next position to expand, and its place in the ring */
    int place = 0;           /* that of position n */
    for (int n = 0; n < AREA; n += 2) {
        int both = n + 1 < AREA, until = n + both + EDGE * RES + EDGE + 1;
        if (until > AREA) until = AREA;
        while (ahead < until) {
            const int8_t *w = expand.w;
            int two = ahead + 1 < AREA;
            widen(pair, 0, x + ahead * CHANNELS, CHANNELS);
            if (two) widen(pair, 1, x + (ahead + 1) * CHANNELS, CHANNELS);
            int8_t *y0 = ring + free * HIDDEN;
            if (++free == RING) free = 0;
            int8_t *y1 = ring + free * HIDDEN; /* of an odd last position: not read */
            if (++free == RING) free = 0;
            for (int o = 0; o < HIDDEN; o += 2, w += 2 * CHANNELS) {
                int32_t s[4] = {expand.b[o], expand.b[o + 1], expand.b[o], expand.b[o + 1]};
                dot22(pair, w, CHANNELS, s);
                y0[o] = activated(&expand, o, s[0]), y0[o + 1] = activated(&expand, o + 1, s[1]);
                y1[o] = activated(&expand, o, s[2]), y1[o + 1] = activated(&expand, o + 1, s[3]);
            }
            ahead += 1 + two;
        }
        for (int p = 0; p <= both; p++) {
            const int8_t *taps[KERNEL * KERNEL];
            int row = (n + p) / RES, column = (n + p) % RES, k = 0;
            for (int dy = -EDGE; dy <= EDGE; dy++)
                for (int dx = -EDGE; dx <= EDGE; dx++, k++) {
                    int at = place + p + dy * RES + dx;
                    if (row + dy < 0 || row + dy >= RES || column + dx < 0 || column + dx >= RES) {
                        taps[k] = padding;
                        continue;
                    }
                    if (at < 0) at += RING;
                    else if (at >= RING) at -= RING;
                    taps[k] = ring + at * HIDDEN;
                }
            depthwise(of, taps, how, p);
        }
        if (how != SUMMED) {
            const int8_t *w = project.w;
            int8_t *x0 = x + n * CHANNELS, *x1 = x0 + CHANNELS;
            for (int o = 0; o < CHANNELS; o += 2, w += 2 * HIDDEN) {
                int32_t s[4] = {project.b[o], project.b[o + 1], project.b[o], project.b[o + 1]};
                dot22(pair, w, HIDDEN, s);
                x0[o] = added(block, o, s[0], x0[o]), x0[o + 1] = added(block, o + 1, s[1], x0[o + 1]);
                if (both) x1[o] = added(block, o, s[2], x1[o]), x1[o + 1] = added(block, o + 1, s[3], x1[o + 1]);
            }
        }
        place += 2;
        if (place >= RING) place -= RING;
    }
}

static void run_block(const Block *block) {
    for (int e = 0; e < HIDDEN; e++) I8(AT_PADDING)[e] = block->padding;
#if SQUEEZE
    i32 *sums = I32(AT_SUMS);
    i16 *mean = I16(AT_MEAN), *squeezed = I16(AT_SQUEEZED); /* in the ring, which is dead between the walks */
    for (int e = 0; e < HIDDEN; e++) sums[e] = 0;
    walk(block, SUMMED);
    for (int e = 0; e < HIDDEN; e++) mean[PLACE(e)] = (int16_t)shifted(sums[e] - AREA * block->zero, MEAN_M, 24);
    for (int i = 0; i < SQUEEZE_PADDED; i++) {
        const VectorLayer *layer = &block->squeeze;
        int32_t sum = i < SQUEEZE ? dot1(mean, layer->w + i * HIDDEN, HIDDEN, layer->b[i]) : 0;
        squeezed[PLACE(i)] = (int16_t)(i < SQUEEZE ? clip(shifted(sum, layer->m[i], layer->shift), 0, 4095) : 0);
    }
    for (int e = 0; e < HIDDEN; e++) {
        const VectorLayer *layer = &block->excite;
        int32_t sum = dot1(squeezed, layer->w + e * SQUEEZE_PADDED, SQUEEZE_PADDED, layer->b[e]);
        int32_t gate = clip(shifted(sum, layer->m[e], layer->shift) + 16384, 0, 32768);
        sums[e] = gate * (1 << (16 - block->shift));
    }
    walk(block, GATED);
#else
    walk(block, PLAIN);
#endif
}

/* ---- the whole network -------------------------------------------------------------------------- */

void FN(begin)(void) { fed = 0; }

uint8_t *FN(strip)(void) { return (uint8_t *)I8(AT_STRIP); }

void FN(feed)(const uint8_t *strip) {
    if (fed < STRIPS) take(strip, fed++);
}

int FN(end)(int8_t *logits) {
    if (fed < STRIPS) return -1;
    for (int i = 0; i < DEPTH; i++) run_block(&blocks[i]);
    const Layer layer = head;
    const int8_t *x = I8(AT_STREAM);
    i32 *totals = I32(AT_TOTALS);
    i16 *pair = I16(AT_HEAD_PAIR), *vector = I16(AT_TOTALS);
    for (int i = 0; i < HEAD; i++) totals[i] = 0;
    for (int n = 0; n < AREA; n += 2) {
        int both = n + 1 < AREA;
        const int8_t *w = layer.w;
        widen(pair, 0, x + n * CHANNELS, CHANNELS);
        if (both) widen(pair, 1, x + (n + 1) * CHANNELS, CHANNELS);
        for (int o = 0; o < HEAD; o += 2, w += 2 * CHANNELS) {
            int32_t s[4] = {layer.b[o], layer.b[o + 1], layer.b[o], layer.b[o + 1]};
            dot22(pair, w, CHANNELS, s);
            totals[o] += activated(&layer, o, s[0]), totals[o + 1] += activated(&layer, o + 1, s[1]);
            if (both) totals[o] += activated(&layer, o, s[2]), totals[o + 1] += activated(&layer, o + 1, s[3]);
        }
    }
    for (int i = 0; i < HEAD; i += 4) { /* int16 means over the int32 totals, in place */
        int32_t mean[4];
        for (int j = 0; j < 4; j++) mean[j] = shifted(totals[i + j] - AREA * HEAD_ZERO, MEAN_M, 24);
        for (int j = 0; j < 4; j++) vector[i + PLACE(j)] = (int16_t)mean[j];
    }
#if FEATURES
    i16 *wide = I16(AT_FEATURES);
    for (int i = 0; i < FEATURES_PADDED; i++) {
        int32_t y = 0;
        if (i < FEATURES) {
            int32_t v = shifted(dot1(vector, features.w + i * HEAD, HEAD, features.b[i]), features.m[i], features.shift);
            v = clip(v, -32768, 32767);
            y = clip(shifted(v * clip(v + 3072, 0, 6144), SWISH_M, 32), -4095, 4095);
        }
        wide[PLACE(i)] = (int16_t)y;
    }
    vector = wide;
#endif
    int best = 0;
    int32_t top = -32769;
    for (int i = 0; i < CLASSES; i++) {
        int32_t sum = dot1(vector, classifier.w + i * CLASSIFIER_IN, CLASSIFIER_IN, classifier.b[i]);
        int32_t v = clip(shifted(sum, classifier.m[i], classifier.shift), -32768, 32767);
        if (v > top) top = v, best = i;
        logits[i] = (int8_t)(clip(v + 128, -32768, 32767) >> 8);
    }
    fed = 0;
    return best;
}

int FN(run)(const uint8_t *image, int8_t *logits) {
    FN(begin)();
    for (int i = 0; i < STRIPS; i++) FN(feed)(image + i * STRIP_BYTES);
    return FN(end)(logits);
}

const uint32_t FN(arena_bytes) = (uint32_t)sizeof arena.bytes;
