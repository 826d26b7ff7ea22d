/* Layers of U-Nets on a processor, with features as torch holds them (n, c, z, y, x):

   convolve    3x3 and 3x3x3 convolution by Winograd's F(4x4, 3x3) in every plane (Lavin and Gray 2016): a tile of 4 x 4
               results from 36 products per pair of channels instead of 144
   halve       3x3 and 3x3x3 convolution that halves the sides of planes, and the planes if asked to
   pointwise   1x1x1 convolution
   transpose   2x2x2 or 1x2x2 transposed convolution that doubles the sides
   normalise   instance normalisation and what rectifies after it, in place
   pool        the largest of 2x2x2 or 1x2x2 voxels
   enlarge     linear interpolation that doubles the sides

   Each is called by several threads at once with the same layer and, but for `normalise`, a scratch of its own, of as
   many floats as *_scratch tells; a counter that they share deals out the work. Nothing here asks for memory.

   Features are floats. With BF16 defined, what is multiplied is rounded to bf16: twice as many products in the same
   time; and features may be held in it, which halves what goes through memory. Sums stay in single precision. */

#include <stdatomic.h>
#include <string.h>

#if defined(__AVX512F__)
enum { LANES = 16, BLOCK = 8 };
#elif defined(__AVX__)
enum { LANES = 8, BLOCK = 4 };
#else
enum { LANES = 4, BLOCK = 8 };
#endif
/* LANES floats in a register; BLOCK results times two registers are summed up at once. */

#ifdef BF16
#ifndef __AVX512BF16__
#error this processor does not multiply bf16
#endif
#include <immintrin.h>
typedef unsigned word;
enum { PAIR = 2 };
#else
typedef float word;
enum { PAIR = 1 };
#endif
/* What products read: the number of one channel, or those of two channels in bf16, the first in the lower half. */

enum { TILE = 4, POINTS = 36, PARTS = 8 };
enum { LINE = 16, AHEAD = 2 }; /* floats in a cache line; maps that are fetched early: too far apart for the processor */

#ifdef __clang__
#define INDEPENDENT _Pragma("clang loop vectorize(assume_safety)")
#else
#define INDEPENDENT _Pragma("GCC ivdep")
#endif

#define INLINE static inline __attribute__((always_inline))

typedef float vec __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

/* STREAM writes a register past the caches, FENCE waits until others see it. */
#if defined(__AVX512F__) && !defined(__clang__)
#define STREAM(to, v) __builtin_ia32_movntps512(to, v)
#elif defined(__AVX__) && !defined(__clang__)
#define STREAM(to, v) __builtin_ia32_movntps256(to, v)
#elif defined(__AVX__)
#define STREAM(to, v) __builtin_nontemporal_store(v, (float __attribute__((vector_size(4 * LANES))) *)(to))
#endif
#ifdef STREAM
#define FENCE __builtin_ia32_sfence()
#else
#define FENCE (void)0
#endif

#ifdef BF16
typedef __m512bh factors;

INLINE factors load(const word *v) { return (factors)_mm512_loadu_si512(v); }

INLINE vec plus_product(vec sum, word u, factors v)
{
    return (vec)_mm512_dpbf16_ps((__m512)sum, (factors)_mm512_set1_epi32((int)u), v);
}

typedef unsigned both __attribute__((aligned(2), may_alias)); /* two neighbours in a row, the first in the lower half */

INLINE word joined(float first, float second)
{
    unsigned a, b;
    memcpy(&a, &first, sizeof a), memcpy(&b, &second, sizeof b);
    return (a + 0x8000u) >> 16 | ((b + 0x8000u) & 0xffff0000u); /* rounded */
}
#else
typedef vec factors;

INLINE factors load(const word *v) { return *(const vec *)v; }

INLINE vec plus_product(vec sum, word u, factors v) { return sum + u * v; }

INLINE word joined(float first, float second)
{
    (void)second;
    return first;
}
#endif

typedef struct {
    const void *x[PARTS];  /* features, in parts of some channels each */
    long ends[PARTS];      /* channels up to the end of each part */
    const void *weights;   /* words; normalise: floats */
    const float *bias;
    void *y;
    long x16, y16;         /* whether those features are bf16 */
    long n, in, out;       /* batch, channels */
    long d, h, w;          /* sides of x */
    long taps;             /* of the kernel along z; transpose, enlarge: planes from one; pool: planes to one; 1 or 2 */
    long step;             /* halve: planes from one result to the next, 1 or 2 */
    long rows, planes;     /* that are worked on together: rows (convolve: of tiles, halve: of results), planes */
    long add;              /* convolve: results are added to what y holds, and rectified then */
    long chunk;            /* convolve: planes in a unit of work, a multiple of `planes`; pointwise: voxels */
    float eps;             /* normalise: added to the variance */
    float slope;           /* results below 0 are multiplied by it: 1 changes nothing, 0 is ReLU */
    atomic_long *next;     /* unit of work */
} Layer;

long block_size(void) { return BLOCK; }
long channels_in_word(void) { return PAIR; }

static long over(long a, long b) { return (a + b - 1) / b; }
static long padded(long a) { return over(a, LANES) * LANES; }
static long least(long a, long b) { return a < b ? a : b; }
static size_t bytes(long floats) { return sizeof(float) * (size_t)floats; }

/* Words that hold what goes into a result's voxel. */
static long words_of(const Layer *l) { return over(l->in, PAIR); }

/* Some voxels further on. */
INLINE const void *beyond(const void *features, long voxels, long in16)
{
    return (const char *)features + voxels * (in16 ? 2 : 4);
}

INLINE float number(const void *features, long voxel, int in16)
{
#ifdef BF16
    if (in16) {
        unsigned bits = (unsigned)((const unsigned short *)features)[voxel] << 16;
        float f;
        memcpy(&f, &bits, sizeof f);
        return f;
    }
#endif
    (void)in16;
    return ((const float *)features)[voxel];
}

/* Where word `at` of them finds its channels at some voxel; a second one that does not exist has weights of 0. */
static void maps_of(const Layer *l, long n, long at, long voxel, const void *maps[PAIR])
{
    for (long p = 0; p < PAIR; p++) {
        long c = least(at * PAIR + p, l->in - 1), part = 0, first = 0;
        while (c >= l->ends[part])
            first = l->ends[part++];
        long map = n * (l->ends[part] - first) + c - first;
        maps[p] = beyond(l->x[part], map * l->d * l->h * l->w + voxel, l->x16);
    }
}

static void join(const void *const maps[PAIR], long count, int in16, word *restrict to)
{
    const void *first = maps[0], *second = maps[PAIR - 1];
#ifdef BF16
    if (in16) {
        const unsigned short *restrict low = first, *restrict high = second;
        INDEPENDENT
        for (long q = 0; q < count; q++)
            to[q] = low[q] | (unsigned)high[q] << 16;
        return;
    }
#endif
    (void)in16;
    INDEPENDENT
    for (long q = 0; q < count; q++)
        to[q] = joined(number(first, q, 0), number(second, q, 0));
}

/* A part of the scratch, whole cache lines. */
static float *take(float **scratch, long floats)
{
    float *taken = *scratch;
    *scratch += over(floats, LINE) * LINE;
    return taken;
}

/* Whether the results are so many that caches would lose them before anybody reads them. */
static int is_large(long floats) { return floats > 1 << 23; }

/* A row of features as floats. */
static void get(const void *features, long voxel, long count, long in16, float *restrict to)
{
    if (in16)
        for (long q = 0; q < count; q++)
            to[q] = number(features, voxel + q, 1);
    else
        memcpy(to, beyond(features, voxel, 0), bytes(count));
}

/* A row of results to its place, past the caches if it is one of many: what lies there is not read first then. */
static void put(const float *from, long count, long in16, void *features, long voxel, int past)
{
    float *to = (float *)features + voxel;
#ifdef BF16
    if (in16) {
        unsigned short *rounded = (unsigned short *)features + voxel;
        long q = 0;
        if (past && (size_t)rounded % sizeof(vec) == 0)
            for (; q + 2 * LANES <= count; q += 2 * LANES)
                STREAM((float *)(rounded + q), (vec)_mm512_cvtne2ps_pbh((__m512) * (const vec *)(from + q + LANES),
                                                                        (__m512) * (const vec *)(from + q)));
        for (; q < count; q += LANES) {
            __mmask16 within = (__mmask16)((1u << least(LANES, count - q)) - 1);
            __m256i sixteen = (__m256i)_mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(within, from + q));
            _mm256_mask_storeu_epi16(rounded + q, within, sixteen);
        }
        return;
    }
#endif
    (void)in16;
#ifdef STREAM
    if (past && count % LANES == 0 && (size_t)to % sizeof(vec) == 0) {
        for (long q = 0; q < count; q += LANES)
            STREAM(to + q, *(const vec *)(from + q));
        return;
    }
#endif
    (void)past;
    memcpy(to, from, bytes(count));
}

/* ------------------------------------------------------------------------------------------------ products */

/* sums[BLOCK][pitch_m] over taps and words of weights[tap][c][BLOCK] times v[c][pitch] shifted by tap * step; `wide`
   registers of columns */
INLINE void block(const word *v, long pitch, long taps, long step, long c, const word *restrict u, float *restrict m,
                  long pitch_m, int wide)
{
    vec sum[BLOCK][2];
#pragma GCC unroll 8
    for (int k = 0; k < BLOCK; k++)
        sum[k][0] = sum[k][1] = (vec){0};
    for (long tap = 0; tap < taps; tap++) {
        const word *restrict row = v + tap * step;
        for (long i = 0; i < c; i++, row += pitch, u += BLOCK) {
            factors a = load(row), b = load(wide == 2 ? row + LANES : row);
#pragma GCC unroll 8
            for (int k = 0; k < BLOCK; k++) {
                sum[k][0] = plus_product(sum[k][0], u[k], a);
                if (wide == 2)
                    sum[k][1] = plus_product(sum[k][1], u[k], b);
            }
        }
    }
#pragma GCC unroll 8
    for (int k = 0; k < BLOCK; k++) {
        *(vec *)(m + k * pitch_m) = sum[k][0];
        if (wide == 2)
            *(vec *)(m + k * pitch_m + LANES) = sum[k][1];
    }
}

/* The same for `columns` columns, a multiple of LANES. */
static void blocks(const word *v, long pitch, long taps, long step, long c, const word *u, float *m, long pitch_m,
                   long columns)
{
    long at = 0;
    for (; at + 2 * LANES <= columns; at += 2 * LANES)
        block(v + at, pitch, taps, step, c, u, m + at, pitch_m, 2);
    if (at < columns)
        block(v + at, pitch, taps, step, c, u, m + at, pitch_m, 1);
}

/* ------------------------------------------------------------------------------------------------ Winograd */

typedef struct {
    long nx, tiles;        /* tiles in a row, in the rows of one plane that are worked on together */
    long t, pitch;         /* tiles of all planes, padded; of v: with the planes that further taps need */
    long out;              /* channels, padded */
    long line;             /* a row of voxels with what the last tile reaches beyond */
    long next_v, next_m;   /* from a point to the next: never a multiple of 4096 bytes, which caches like least */
} Sizes;

static Sizes sizes_of(const Layer *l)
{
    Sizes s;
    s.nx = over(l->w, TILE);
    s.tiles = s.nx * l->rows;
    s.t = padded(s.tiles * l->planes);
    s.pitch = s.t + (l->taps - 1) * s.tiles;
    s.out = over(l->out, BLOCK) * BLOCK;
    s.line = TILE * s.nx + 2 * LANES;
    s.next_v = words_of(l) * s.pitch + LINE;
    s.next_m = s.out * s.t + LINE;
    return s;
}

/* The transforms look at lines as at polynomials: at 0, +-NEAR, +-FAR and infinity. These points, whose product is 1,
   round results half as much as 1 and 2 do. */
#define NEAR (2.f / 3)
#define FAR (3.f / 2)

/* Six numbers in a line to the six of Winograd's transform (matrix B^T), `step` apart. */
INLINE void to_points(float *to, long step, float e0, float e1, float e2, float e3, float e4, float e5)
{
    float p = e4 - FAR * FAR * e2, q = NEAR * e3 - FAR * e1, r = e4 - NEAR * NEAR * e2, s = FAR * e3 - NEAR * e1;
    to[0] = e0 - (NEAR * NEAR + FAR * FAR) * e2 + e4;
    to[step] = p + q;
    to[2 * step] = p - q;
    to[3 * step] = r + s;
    to[4 * step] = r - s;
    to[5 * step] = e1 - (NEAR * NEAR + FAR * FAR) * e3 + e5;
}

/* And back: six products to four results (matrix A^T). */
INLINE void from_points(float *to, long step, float m0, float m1, float m2, float m3, float m4, float m5)
{
    float p = m1 + m2, q = m1 - m2, r = m3 + m4, s = m3 - m4;
    to[0] = m0 + p + r;
    to[step] = NEAR * q + FAR * s;
    to[2 * step] = NEAR * NEAR * p + FAR * FAR * r;
    to[3 * step] = NEAR * NEAR * NEAR * q + FAR * FAR * FAR * s + m5;
}

/* Row i of a map's transform, every fourth voxel together, so that what follows reads without gaps. */
INLINE void by_fours(const float *restrict e, long count, float *restrict q, long line)
{
    float *restrict q0 = q, *restrict q1 = q + line, *restrict q2 = q1 + line, *restrict q3 = q2 + line;
    INDEPENDENT
    for (long k = 0; k < count; k++) {
        q0[k] = e[4 * k];
        q1[k] = e[4 * k + 1];
        q2[k] = e[4 * k + 2];
        q3[k] = e[4 * k + 3];
    }
}

/* Six rows of a map to points of its columns: lines[6][line]. */
INLINE void transform_columns(const void *const row[6], long w, int in16, float *restrict lines, long line)
{
    const void *a = row[0], *b = row[1], *c = row[2], *d = row[3], *e = row[4], *f = row[5];
    INDEPENDENT
    for (long x = 0; x < w; x++)
        to_points(lines + x, line, number(a, x, in16), number(b, x, in16), number(c, x, in16), number(d, x, in16),
                  number(e, x, in16), number(f, x, in16));
}

/* One row of tiles of a word's maps: 6 rows of voxels each to v[36][words * pitch]. scratch: 10 lines for each map, all
   zero beyond the voxels. */
static void transform_row(const void *const row[PAIR][6], long w, long in16, const Sizes *s, word *restrict v,
                          float *restrict scratch)
{
    long line = s->line, next_point = s->next_v;
    for (long p = 0; p < PAIR; p++)
        if (in16)
            transform_columns(row[p], w, 1, scratch + 10 * p * line + 1, line);
        else
            transform_columns(row[p], w, 0, scratch + 10 * p * line + 1, line);
    const float *restrict a = scratch + 6 * line, *restrict b = a + 10 * (PAIR - 1) * line;
    for (int i = 0; i < 6; i++) {
        word *restrict to = v + 6 * i * next_point;
        for (long p = 0; p < PAIR; p++)
            by_fours(scratch + (10 * p + i) * line, s->nx + 1, scratch + (10 * p + 6) * line, line);
        INDEPENDENT
        for (long k = 0; k < s->nx; k++) {
            float first[6], second[6];
            to_points(first, 1, a[k], a[k + line], a[k + 2 * line], a[k + 3 * line], a[k + 1], a[k + 1 + line]);
            to_points(second, 1, b[k], b[k + line], b[k + 2 * line], b[k + 3 * line], b[k + 1], b[k + 1 + line]);
            for (int j = 0; j < 6; j++)
                to[k + j * next_point] = joined(first[j], second[j]);
        }
    }
}

/* Some rows of tiles of plane z, all channels: v[36][words][pitch]; planes outside are zero. */
static void transform_in(const Layer *l, const Sizes *s, long n, long z, long band, word *v, float *scratch,
                         const float *zeros)
{
    long words = words_of(l), first = z * l->h * l->w;
    if (z < 0 || z >= l->d) {
        for (long point = 0; point < POINTS; point++)
            for (long c = 0; c < words; c++)
                memset(v + point * s->next_v + c * s->pitch, 0, bytes(s->tiles));
        return;
    }
    for (long c = 0; c < words; c++) {
        const void *planes[PAIR], *soon[PAIR], *row[PAIR][6];
        maps_of(l, n, c, first, planes);
        maps_of(l, n, least(c + over(AHEAD, PAIR), words - 1), first, soon);
        for (long r = 0; r < l->rows; r++) {
            for (long i = 0; i < 6 * PAIR; i++) {
                long p = i / 6, y = (band * l->rows + r) * TILE - 1 + i % 6;
                row[p][i % 6] = y >= 0 && y < l->h ? beyond(planes[p], y * l->w, l->x16) : zeros;
                for (long x = 0; x < l->w && y >= 0 && y < l->h; x += l->x16 ? 2 * LINE : LINE)
                    __builtin_prefetch(beyond(soon[p], y * l->w + x, l->x16));
            }
            transform_row((const void *const(*)[6])row, l->w, l->x16, s, v + c * s->pitch + r * s->nx, scratch);
        }
    }
}

/* One row of tiles, columns done already: points[6][t] to a row of voxels, which are added to if `add` is 1. */
INLINE void finish_row(const float *restrict m, long t, long nx, float bias, float slope, int add, float *restrict to)
{
    INDEPENDENT
    for (long q = 0; q < nx; q++) {
        float four[4];
        from_points(four, 1, m[q], m[q + t], m[q + 2 * t], m[q + 3 * t], m[q + 4 * t], m[q + 5 * t]);
        for (int i = 0; i < 4; i++) {
            float f = four[i] + bias + (add ? to[4 * q + i] : 0);
            to[4 * q + i] = f > 0 ? f : slope * f;
        }
    }
}

/* m[36][out][t] to planes z, z + 1, ... of the results. scratch: 24 t and a line. */
static void transform_out(const Layer *l, const Sizes *s, long n, long z, long band, const float *m,
                          float *restrict scratch)
{
    long point = s->next_m, t = s->t;
    float *line = scratch + 24 * t;
    int past = !l->add && is_large(l->n * l->out * l->d * l->h * l->w);
    for (long k = 0; k < l->out; k++) {
        float bias = l->bias ? l->bias[k] : 0;
        for (int i = 0; i < 6; i++) {
            const float *restrict a = m + i * point + k * t;
            float *restrict to = scratch + i * t;
            INDEPENDENT
            for (long q = 0; q < t; q++)
                from_points(to + q, 6 * t, a[q], a[q + 6 * point], a[q + 12 * point], a[q + 18 * point],
                            a[q + 24 * point], a[q + 30 * point]);
        }
        for (long p = 0; p < least(l->planes, l->d - z); p++)
            for (long r = 0; r < TILE * l->rows; r++) {
                long y = band * l->rows * TILE + r;
                if (y >= l->h)
                    break;
                long to = (((n * l->out + k) * l->d + z + p) * l->h + y) * l->w;
                int aside = past || l->y16 || l->w % TILE; /* the last tile would reach beyond the row */
                float *full = aside ? line : (float *)l->y + to;
                if (aside && l->add)
                    get(l->y, to, l->w, l->y16, line);
                const float *from = scratch + r % TILE * 6 * t + p * s->tiles + r / TILE * s->nx;
                if (l->add)
                    finish_row(from, t, s->nx, bias, l->slope, 1, full);
                else
                    finish_row(from, t, s->nx, bias, l->slope, 0, full);
                if (aside)
                    put(line, l->w, l->y16, l->y, to, past);
            }
    }
}

long convolve_scratch(const Layer *l)
{
    const Sizes s = sizes_of(l);
    return POINTS * (s.next_v + s.next_m) + 24 * s.t + 10 * PAIR * s.line + l->w + 4 * LINE;
}

/* weights: [36][out / BLOCK][taps][words][BLOCK] */
void convolve(const Layer *l, float *scratch)
{
    const Sizes s = sizes_of(l);
    long bands = over(over(l->h, TILE), l->rows), chunks = over(l->d, l->chunk), ahead = l->taps - 1;
    long words = words_of(l), kept = ahead * s.tiles, fresh = l->planes * s.tiles;
    const word *weights = l->weights;
    word *v = (word *)take(&scratch, POINTS * s.next_v);
    float *m = take(&scratch, POINTS * s.next_m);
    float *lines = take(&scratch, 24 * s.t + 10 * PAIR * s.line), *zeros = take(&scratch, l->w);
    memset(v, 0, bytes(POINTS * s.next_v));
    memset(zeros, 0, bytes(l->w));
    for (long unit; (unit = atomic_fetch_add(l->next, 1)) < l->n * bands * chunks;) {
        long n = unit / (bands * chunks), band = unit / chunks % bands;
        long from = unit % chunks * l->chunk, to = least(from + l->chunk, l->d);
        for (long z = from; z < to; z += l->planes) {
            if (z > from)
                for (long i = 0; i < POINTS * words; i++) {
                    word *row = v + i / words * s.next_v + i % words * s.pitch;
                    memmove(row, row + fresh, bytes(kept));
                }
            memset(lines, 0, bytes(10 * PAIR * s.line));
            for (long p = z > from ? ahead : 0; p < l->planes + ahead; p++)
                transform_in(l, &s, n, z + p - ahead / 2, band, v + p * s.tiles, lines, zeros);
            for (long point = 0; point < POINTS; point++)
                for (long k = 0; k < s.out; k += BLOCK)
                    blocks(v + point * s.next_v, s.pitch, l->taps, s.tiles, words,
                           weights + (point * s.out + k) * l->taps * words, m + point * s.next_m + k * s.t, s.t, s.t);
            transform_out(l, &s, n, z, band, m, lines);
        }
    }
    FENCE;
}

/* ------------------------------------------------------------------------------------------------ the rest */

static void finish(float *m, long count, float bias, float slope)
{
    INDEPENDENT
    for (long q = 0; q < count; q++) {
        float f = m[q] + bias;
        m[q] = f > 0 ? f : slope * f;
    }
}

/* Of one row of voxels: what the three taps of a kernel see at every second voxel, `next` apart. */
static void every_second(const void *const row[PAIR], long w, long in16, long count, word *restrict to, long next)
{
    const void *last[PAIR];
    word *restrict left = to, *restrict middle = to + next, *restrict right = middle + next;
#ifdef BF16
    if (in16) {
        const both *restrict a = row[0], *restrict b = row[1];
        INDEPENDENT
        for (long q = 0; q < w / 2; q++) {
            middle[q] = (a[q] & 0xffff) | b[q] << 16;
            right[q] = a[q] >> 16 | (b[q] & 0xffff0000u);
        }
    }
#endif
    if (!in16) {
        const float *restrict a = row[0], *restrict b = row[PAIR - 1];
        INDEPENDENT
        for (long q = 0; q < w / 2; q++) {
            middle[q] = joined(a[2 * q], b[2 * q]);
            right[q] = joined(a[2 * q + 1], b[2 * q + 1]);
        }
    }
    if (w % 2) {
        for (long p = 0; p < PAIR; p++)
            last[p] = beyond(row[p], w - 1, in16);
        join(last, 1, in16 != 0, middle + count - 1);
        right[count - 1] = 0;
    }
    left[0] = 0;
    memcpy(left + 1, right, bytes(count - 1));
}

long halve_scratch(const Layer *l)
{
    return (9 * l->taps * words_of(l) + BLOCK) * padded(l->rows * over(l->w, 2)) + 2 * LINE;
}

/* weights: [out / BLOCK][taps][3][3][words][BLOCK] */
void halve(const Layer *l, float *scratch)
{
    long d = over(l->d, l->step), h = over(l->h, 2), w = over(l->w, 2), bands = over(h, l->rows);
    long words = words_of(l), t = padded(l->rows * w), tap = words * t;
    int past = is_large(l->n * l->out * d * h * w);
    const word *weights = l->weights;
    word *v = (word *)take(&scratch, 9 * l->taps * tap);
    float *m = take(&scratch, BLOCK * t);
    memset(v, 0, bytes(9 * l->taps * tap));
    for (long unit; (unit = atomic_fetch_add(l->next, 1)) < l->n * d * bands;) {
        long n = unit / (d * bands), z = unit / bands % d, y = unit % bands * l->rows, rows = least(l->rows, h - y);
        for (long c = 0; c < words; c++)
            for (long i = 0; i < 3 * l->taps * rows; i++) {
                long r = i % rows, ky = i / rows % 3, kz = i / rows / 3;
                long from_z = l->step * z + kz - l->taps / 2, from_y = 2 * (y + r) + ky - 1;
                word *to = v + 3 * (3 * kz + ky) * tap + c * t + r * w;
                const void *row[PAIR];
                maps_of(l, n, c, (from_z * l->h + from_y) * l->w, row);
                if (from_z >= 0 && from_z < l->d && from_y >= 0 && from_y < l->h)
                    every_second(row, l->w, l->x16, w, to, tap);
                else
                    memset(to, 0, bytes(w)), memset(to + tap, 0, bytes(w)), memset(to + 2 * tap, 0, bytes(w));
            }
        for (long k = 0; k < l->out; k += BLOCK) {
            blocks(v, t, 9 * l->taps, tap, words, weights + k * 9 * l->taps * words, m, t, t);
            for (long i = 0; i < least(BLOCK, l->out - k); i++) {
                finish(m + i * t, rows * w, l->bias ? l->bias[k + i] : 0, l->slope);
                put(m + i * t, rows * w, l->y16, l->y, (((n * l->out + k + i) * d + z) * h + y) * w, past);
            }
        }
    }
    FENCE;
}

long pointwise_scratch(const Layer *l) { return (words_of(l) + BLOCK) * padded(l->chunk) + 2 * LINE; }

/* weights: [out / BLOCK][words][BLOCK] */
void pointwise(const Layer *l, float *scratch)
{
    long size = l->d * l->h * l->w, chunks = over(size, l->chunk), t = padded(l->chunk), words = words_of(l);
    int past = is_large(l->n * l->out * size);
    const word *weights = l->weights;
    word *v = (word *)take(&scratch, words * t);
    float *m = take(&scratch, BLOCK * t);
    memset(v, 0, bytes(words * t));
    for (long unit; (unit = atomic_fetch_add(l->next, 1)) < l->n * chunks;) {
        long n = unit / chunks, at = unit % chunks * l->chunk, count = least(l->chunk, size - at);
        for (long c = 0; c < words; c++) {
            const void *maps[PAIR];
            maps_of(l, n, c, at, maps);
            join(maps, count, l->x16 != 0, v + c * t);
        }
        for (long k = 0; k < l->out; k += BLOCK) {
            blocks(v, t, 1, 0, words, weights + k * words, m, t, t);
            for (long i = 0; i < least(BLOCK, l->out - k); i++) {
                finish(m + i * t, count, l->bias ? l->bias[k + i] : 0, l->slope);
                put(m + i * t, count, l->y16, l->y, (n * l->out + k + i) * size + at, past);
            }
        }
    }
    FENCE;
}

long transpose_scratch(const Layer *l)
{
    return (words_of(l) + BLOCK) * padded(l->rows * l->w) + 2 * l->w + 3 * LINE;
}

/* weights: [out / (BLOCK / 2)][taps][2][words][BLOCK / 2][2]: the last two are channels and neighbours in a row. */
void transpose(const Layer *l, float *scratch)
{
    long bands = over(l->h, l->rows), plane = l->h * l->w, half = BLOCK / 2;
    long t = padded(l->rows * l->w), words = words_of(l);
    const word *weights = l->weights;
    word *v = (word *)take(&scratch, words * t);
    float *m = take(&scratch, BLOCK * t), *restrict line = take(&scratch, 2 * l->w);
    int past = is_large(4 * l->n * l->out * l->taps * l->d * plane);
    memset(v, 0, bytes(words * t));
    for (long unit; (unit = atomic_fetch_add(l->next, 1)) < l->n * l->d * bands;) {
        long n = unit / (l->d * bands), z = unit / bands % l->d, y = unit % bands * l->rows;
        long rows = least(l->rows, l->h - y);
        for (long c = 0; c < words; c++) {
            const void *maps[PAIR];
            maps_of(l, n, c, z * plane + y * l->w, maps);
            join(maps, rows * l->w, l->x16 != 0, v + c * t);
        }
        for (long job = 0; job < over(l->out, half) * l->taps * 2; job++) {
            long k = job / (2 * l->taps) * half, dz = job / 2 % l->taps, dy = job % 2;
            blocks(v, t, 1, 0, words, weights + job * words * BLOCK, m, t, t);
            for (long i = 0; i < least(half, l->out - k); i++)
                for (long r = 0; r < rows; r++) {
                    const float *restrict a = m + 2 * i * t + r * l->w, *restrict b = a + t;
                    float bias = l->bias ? l->bias[k + i] : 0;
                    long at = ((n * l->out + k + i) * l->taps * l->d + l->taps * z + dz) * 2 * l->h + 2 * (y + r) + dy;
                    INDEPENDENT
                    for (long q = 0; q < l->w; q++) {
                        line[2 * q] = a[q] + bias;
                        line[2 * q + 1] = b[q] + bias;
                    }
                    put(line, 2 * l->w, l->y16, l->y, at * 2 * l->w, past);
                }
        }
    }
    FENCE;
}

/* Sum of the numbers less `mean`, or of their squares. Taken in parts of 1024, and those in double precision. */
enum { PART = 1024 };

INLINE double total(const void *map, long size, int in16, float mean, int squared)
{
    double sum = 0;
    for (long from = 0; from < size; from += PART) {
        float part = 0;
        long to = least(from + PART, size);
        for (long q = from; q < to; q++) {
            float f = number(map, q, in16) - mean;
            part += squared ? f * f : f;
        }
        sum += part;
    }
    return sum;
}

INLINE void normalise_map(const Layer *l, void *map, const float *weight, const float *bias, int in16)
{
    long size = l->d * l->h * l->w;
    float mean = (float)(total(map, size, in16, 0, 0) / (double)size), slope = l->slope, line[PART];
    float scale = 1 / __builtin_sqrtf((float)(total(map, size, in16, mean, 1) / (double)size) + l->eps);
    scale *= weight ? *weight : 1;
    float shift = (bias ? *bias : 0) - mean * scale;
    for (long from = 0; from < size; from += PART) {
        long count = least(PART, size - from);
        float *restrict to = in16 ? line : (float *)map + from;
        INDEPENDENT
        for (long q = 0; q < count; q++) {
            float f = number(map, from + q, in16) * scale + shift;
            to[q] = f > 0 ? f : slope * f;
        }
        if (in16)
            put(line, count, 1, map, from, 0);
    }
}

/* n * in maps of d * h * w voxels, in place (y): to mean 0 and variance 1, scaled by weights and shifted by bias. */
void normalise(const Layer *l)
{
    const float *weights = l->weights;
    for (long map; (map = atomic_fetch_add(l->next, 1)) < l->n * l->in;) {
        void *features = (void *)beyond(l->y, map * l->d * l->h * l->w, l->y16);
        const float *weight = weights ? weights + map % l->in : 0, *bias = l->bias ? l->bias + map % l->in : 0;
        if (l->y16)
            normalise_map(l, features, weight, bias, 1);
        else
            normalise_map(l, features, weight, bias, 0);
    }
}

/* ------------------------------------------------------------------------------------------------ resizing */

/* NaN, if one of them is. */
INLINE float larger(float a, float b) { return a > b || a != a ? a : b; }

long pool_scratch(const Layer *l) { return 2 * l->w + 2 * LINE; }

/* n * in maps: the largest of what lies together; what is left over at the far ends counts nowhere. */
void pool(const Layer *l, float *scratch)
{
    long planes = l->d / l->taps, h = l->h / 2, w = l->w / 2;
    float *restrict most = take(&scratch, l->w), *restrict row = take(&scratch, l->w);
    int past = is_large(l->n * l->in * planes * h * w);
    for (long unit; (unit = atomic_fetch_add(l->next, 1)) < l->n * l->in * planes;) {
        long first = unit / planes * l->d + unit % planes * l->taps;
        for (long y = 0; y < h; y++) {
            get(l->x[0], (first * l->h + 2 * y) * l->w, 2 * w, l->x16, most);
            for (long k = 1; k < 2 * l->taps; k++) {
                get(l->x[0], ((first + k / 2) * l->h + 2 * y + k % 2) * l->w, 2 * w, l->x16, row);
                INDEPENDENT
                for (long q = 0; q < 2 * w; q++)
                    most[q] = larger(most[q], row[q]);
            }
            INDEPENDENT
            for (long q = 0; q < w; q++)
                row[q] = larger(most[2 * q], most[2 * q + 1]);
            put(row, w, l->y16, l->y, (unit * h + y) * w, past);
        }
    }
    FENCE;
}

/* Of `count` voxels, that which a result leans to beside the one it lies in; the outermost are repeated. */
static long beside(long result, long count)
{
    long voxel = result / 2 + (result % 2 ? 1 : -1);
    return voxel < 0 ? 0 : least(voxel, count - 1);
}

INLINE float between(float near, float far) { return 0.75f * near + 0.25f * far; }

long enlarge_scratch(const Layer *l) { return (l->h + 4) * l->w + 5 * LINE; }

/* n * in maps. Half-way between a voxel's ends lie two results along each axis, a quarter of a voxel from its centre. */
void enlarge(const Layer *l, float *scratch)
{
    long plane = l->h * l->w, planes = l->taps * l->d;
    float *restrict flat = take(&scratch, plane), *restrict line = take(&scratch, 2 * l->w);
    float *restrict row = take(&scratch, l->w + 2);
    int past = is_large(4 * l->n * l->in * planes * plane);
    for (long unit; (unit = atomic_fetch_add(l->next, 1)) < l->n * l->in * planes;) {
        long first = unit / planes * l->d, z = unit % planes;
        get(l->x[0], (first + z / l->taps) * plane, plane, l->x16, flat);
        for (long y = 0; y < l->h && l->taps == 2; y++) {
            get(l->x[0], (first + beside(z, l->d)) * plane + y * l->w, l->w, l->x16, line);
            INDEPENDENT
            for (long q = 0; q < l->w; q++)
                flat[y * l->w + q] = between(flat[y * l->w + q], line[q]);
        }
        for (long y = 0; y < 2 * l->h; y++) {
            const float *near = flat + y / 2 * l->w, *far = flat + beside(y, l->h) * l->w;
            INDEPENDENT
            for (long q = 0; q < l->w; q++)
                row[q + 1] = between(near[q], far[q]);
            row[0] = row[1], row[l->w + 1] = row[l->w];
            INDEPENDENT
            for (long q = 0; q < l->w; q++) {
                line[2 * q] = between(row[q + 1], row[q]);
                line[2 * q + 1] = between(row[q + 1], row[q + 2]);
            }
            put(line, 2 * l->w, l->y16, l->y, (unit * 2 * l->h + y) * 2 * l->w, past);
        }
    }
    FENCE;
}
