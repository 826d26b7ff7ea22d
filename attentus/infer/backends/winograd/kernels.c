/* Layers of U-Nets on a processor, in single precision and with the features as torch holds them (n, c, z, y, x):

   convolve    3x3 and 3x3x3 convolution by Winograd's F(4x4, 3x3) in every plane (Lavin and Gray 2016): a tile of 4 x 4
               results from 36 products per pair of channels instead of 144
   halve       3x3 and 3x3x3 convolution that halves the sides of planes, and the planes if asked to
   pointwise   1x1x1 convolution
   transpose   2x2x2 or 1x2x2 transposed convolution that doubles the sides
   normalise   instance normalisation and what rectifies after it, in place

   Each is called by several threads at once with the same layer and, but for `normalise`, a scratch of its own, of as
   many floats as *_scratch tells; a counter that they share deals out the work. Nothing here asks for memory. */

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

enum { TILE = 4, POINTS = 36 };
enum { LINE = 16, AHEAD = 2 }; /* floats in a cache line; maps that are fetched early: too far apart for the processor */

#ifdef __clang__
#define INDEPENDENT _Pragma("clang loop vectorize(assume_safety)")
#else
#define INDEPENDENT _Pragma("GCC ivdep")
#endif

#define INLINE static inline __attribute__((always_inline))

typedef float vec __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

typedef struct {
    const float *x, *weights, *bias;
    float *y;
    long n, in, out;       /* batch, channels */
    long d, h, w;          /* sides of x */
    long taps;             /* of the kernel along z; transpose: planes from one, 1 or 2 */
    long step;             /* halve: planes from one result to the next, 1 or 2 */
    long rows, planes;     /* that are worked on together: rows (convolve: of tiles, halve: of results), planes */
    long add;              /* convolve: results are added to what y holds, and rectified then */
    long chunk;            /* convolve: planes in a unit of work, a multiple of `planes`; pointwise: voxels */
    float eps;             /* normalise: added to the variance */
    float slope;           /* results below 0 are multiplied by it: 1 changes nothing, 0 is ReLU */
    atomic_long *next;     /* unit of work */
} Layer;

long block_size(void) { return BLOCK; }

static long over(long a, long b) { return (a + b - 1) / b; }
static long padded(long a) { return over(a, LANES) * LANES; }
static long least(long a, long b) { return a < b ? a : b; }
static size_t bytes(long floats) { return sizeof(float) * (size_t)floats; }

/* A map of what goes in. */
static const float *map_of(const Layer *l, long n, long c) { return l->x + (n * l->in + c) * l->d * l->h * l->w; }

/* A part of the scratch, whole cache lines. */
static float *take(float **scratch, long floats)
{
    float *taken = *scratch;
    *scratch += over(floats, LINE) * LINE;
    return taken;
}

/* ------------------------------------------------------------------------------------------------ products */

/* sums[BLOCK][pitch_m] over taps and channels of weights[tap][c][BLOCK] times v[c][pitch] shifted by tap * step;
   `wide` registers of columns */
INLINE void block(const float *v, long pitch, long taps, long step, long c, const float *restrict u, float *restrict m,
                  long pitch_m, int wide)
{
    vec sum[BLOCK][2];
#pragma GCC unroll 8
    for (int k = 0; k < BLOCK; k++)
        sum[k][0] = sum[k][1] = (vec){0};
    for (long tap = 0; tap < taps; tap++) {
        const float *restrict row = v + tap * step;
        for (long i = 0; i < c; i++, row += pitch, u += BLOCK) {
            vec a = *(const vec *)row, b = *(const vec *)(wide == 2 ? row + LANES : row);
#pragma GCC unroll 8
            for (int k = 0; k < BLOCK; k++) {
                sum[k][0] += u[k] * a;
                if (wide == 2)
                    sum[k][1] += u[k] * b;
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
static void blocks(const float *v, long pitch, long taps, long step, long c, const float *u, float *m, long pitch_m,
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
    s.next_v = l->in * s.pitch + LINE;
    s.next_m = s.out * s.t + LINE;
    return s;
}

/* Six numbers in a line to the six of Winograd's transform (matrix B^T), `step` apart. */
INLINE void to_points(float *to, long step, float e0, float e1, float e2, float e3, float e4, float e5)
{
    float p = e4 - 4 * e2, q = e3 - 4 * e1, r = e4 - e2, s = 2 * (e3 - e1);
    to[0] = 4 * e0 - 5 * e2 + e4;
    to[step] = p + q;
    to[2 * step] = p - q;
    to[3 * step] = r + s;
    to[4 * step] = r - s;
    to[5 * step] = 4 * e1 - 5 * e3 + e5;
}

/* And back: six products to four results (matrix A^T). */
INLINE void from_points(float *to, long step, float m0, float m1, float m2, float m3, float m4, float m5)
{
    float p = m1 + m2, q = m1 - m2, r = m3 + m4, s = m3 - m4;
    to[0] = m0 + p + r;
    to[step] = q + 2 * s;
    to[2 * step] = p + 4 * r;
    to[3 * step] = q + 8 * s + m5;
}

/* One row of tiles of one map: 6 rows of voxels to v[36][in * pitch]. scratch: 10 lines, all zero beyond the voxels. */
static void transform_row(const float *const row[6], long w, const Sizes *s, float *restrict v, float *restrict scratch)
{
    long next_point = s->next_v;
    const float *restrict d0 = row[0], *restrict d1 = row[1], *restrict d2 = row[2], *restrict d3 = row[3],
                *restrict d4 = row[4], *restrict d5 = row[5];
    float *restrict lines = scratch + 1;
    float *restrict q0 = scratch + 6 * s->line, *restrict q1 = q0 + s->line, *restrict q2 = q1 + s->line,
          *restrict q3 = q2 + s->line;
    INDEPENDENT
    for (long x = 0; x < w; x++)
        to_points(lines + x, s->line, d0[x], d1[x], d2[x], d3[x], d4[x], d5[x]);
    for (int i = 0; i < 6; i++) {
        const float *restrict e = scratch + i * s->line;
        float *restrict to = v + 6 * i * next_point;
        INDEPENDENT
        for (long k = 0; k <= s->nx; k++) { /* every fourth voxel, so that what follows reads without gaps */
            q0[k] = e[4 * k];
            q1[k] = e[4 * k + 1];
            q2[k] = e[4 * k + 2];
            q3[k] = e[4 * k + 3];
        }
        INDEPENDENT
        for (long k = 0; k < s->nx; k++)
            to_points(to + k, next_point, q0[k], q1[k], q2[k], q3[k], q0[k + 1], q1[k + 1]);
    }
}

/* Some rows of tiles of plane z, all channels: v[36][in][pitch]; planes outside are zero. */
static void transform_in(const Layer *l, const Sizes *s, long n, long z, long band, float *v, float *scratch,
                         const float *zeros)
{
    if (z < 0 || z >= l->d) {
        for (long point = 0; point < POINTS; point++)
            for (long c = 0; c < l->in; c++)
                memset(v + point * s->next_v + c * s->pitch, 0, bytes(s->tiles));
        return;
    }
    for (long c = 0; c < l->in; c++) {
        const float *plane = map_of(l, n, c) + z * l->h * l->w;
        const float *soon = c + AHEAD < l->in ? map_of(l, n, c + AHEAD) + z * l->h * l->w : plane;
        for (long r = 0; r < l->rows; r++) {
            const float *row[6];
            for (long i = 0; i < 6; i++) {
                long y = (band * l->rows + r) * TILE - 1 + i;
                row[i] = y >= 0 && y < l->h ? plane + y * l->w : zeros;
                for (long x = 0; x < l->w && y >= 0 && y < l->h; x += LINE)
                    __builtin_prefetch(soon + y * l->w + x);
            }
            transform_row(row, l->w, s, v + c * s->pitch + r * s->nx, scratch);
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
                float *to = l->y + (((n * l->out + k) * l->d + z + p) * l->h + y) * l->w;
                float *full = l->w % TILE ? line : to; /* the last tile would reach beyond the row */
                if (full != to && l->add)
                    memcpy(full, to, bytes(l->w));
                const float *from = scratch + r % TILE * 6 * t + p * s->tiles + r / TILE * s->nx;
                if (l->add)
                    finish_row(from, t, s->nx, bias, l->slope, 1, full);
                else
                    finish_row(from, t, s->nx, bias, l->slope, 0, full);
                if (full != to)
                    memcpy(to, full, bytes(l->w));
            }
    }
}

long convolve_scratch(const Layer *l)
{
    const Sizes s = sizes_of(l);
    return POINTS * (s.next_v + s.next_m) + 24 * s.t + 10 * s.line + l->w + 4 * LINE;
}

/* weights: [36][out / BLOCK][taps][in][BLOCK] */
void convolve(const Layer *l, float *scratch)
{
    const Sizes s = sizes_of(l);
    long bands = over(over(l->h, TILE), l->rows), chunks = over(l->d, l->chunk), ahead = l->taps - 1;
    long kept = ahead * s.tiles, fresh = l->planes * s.tiles;
    float *v = take(&scratch, POINTS * s.next_v), *m = take(&scratch, POINTS * s.next_m);
    float *lines = take(&scratch, 24 * s.t + 10 * s.line), *zeros = take(&scratch, l->w);
    memset(v, 0, bytes(POINTS * s.next_v));
    memset(zeros, 0, bytes(l->w));
    for (long unit; (unit = atomic_fetch_add(l->next, 1)) < l->n * bands * chunks;) {
        long n = unit / (bands * chunks), band = unit / chunks % bands;
        long from = unit % chunks * l->chunk, to = least(from + l->chunk, l->d);
        for (long z = from; z < to; z += l->planes) {
            if (z > from)
                for (long i = 0; i < POINTS * l->in; i++) {
                    float *row = v + i / l->in * s.next_v + i % l->in * s.pitch;
                    memmove(row, row + fresh, bytes(kept));
                }
            memset(lines, 0, bytes(10 * s.line));
            for (long p = z > from ? ahead : 0; p < l->planes + ahead; p++)
                transform_in(l, &s, n, z + p - ahead / 2, band, v + p * s.tiles, lines, zeros);
            for (long point = 0; point < POINTS; point++)
                for (long k = 0; k < s.out; k += BLOCK)
                    blocks(v + point * s.next_v, s.pitch, l->taps, s.tiles, l->in,
                           l->weights + (point * s.out + k) * l->taps * l->in, m + point * s.next_m + k * s.t, s.t, s.t);
            transform_out(l, &s, n, z, band, m, lines);
        }
    }
}

/* ------------------------------------------------------------------------------------------------ the rest */

static void finish(const float *restrict m, long count, float bias, float slope, float *restrict to)
{
    INDEPENDENT
    for (long q = 0; q < count; q++) {
        float f = m[q] + bias;
        to[q] = f > 0 ? f : slope * f;
    }
}

/* Of one row of voxels, or zeros: what the three taps of a kernel see at every second voxel, `next` apart. */
static void every_second(const float *restrict row, long w, long count, float *restrict to, long next)
{
    float *restrict left = to, *restrict middle = to + next, *restrict right = middle + next;
    if (!row) {
        memset(left, 0, bytes(count)), memset(middle, 0, bytes(count)), memset(right, 0, bytes(count));
        return;
    }
    INDEPENDENT
    for (long q = 0; q < w / 2; q++) {
        middle[q] = row[2 * q];
        right[q] = row[2 * q + 1];
    }
    if (w % 2) {
        middle[count - 1] = row[w - 1];
        right[count - 1] = 0;
    }
    left[0] = 0;
    memcpy(left + 1, right, bytes(count - 1));
}

long halve_scratch(const Layer *l)
{
    return (9 * l->taps * l->in + BLOCK) * padded(l->rows * over(l->w, 2)) + 2 * LINE;
}

/* weights: [out / BLOCK][taps][3][3][in][BLOCK] */
void halve(const Layer *l, float *scratch)
{
    long d = over(l->d, l->step), h = over(l->h, 2), w = over(l->w, 2), bands = over(h, l->rows);
    long t = padded(l->rows * w), tap = l->in * t;
    float *v = take(&scratch, 9 * l->taps * tap), *m = take(&scratch, BLOCK * t);
    memset(v, 0, bytes(9 * l->taps * tap));
    for (long unit; (unit = atomic_fetch_add(l->next, 1)) < l->n * d * bands;) {
        long n = unit / (d * bands), z = unit / bands % d, y = unit % bands * l->rows, rows = least(l->rows, h - y);
        for (long c = 0; c < l->in; c++)
            for (long i = 0; i < 3 * l->taps * rows; i++) {
                long r = i % rows, ky = i / rows % 3, kz = i / rows / 3;
                long from_z = l->step * z + kz - l->taps / 2, from_y = 2 * (y + r) + ky - 1;
                int inside = from_z >= 0 && from_z < l->d && from_y >= 0 && from_y < l->h;
                every_second(inside ? map_of(l, n, c) + (from_z * l->h + from_y) * l->w : 0, l->w, w,
                             v + 3 * (3 * kz + ky) * tap + c * t + r * w, tap);
            }
        for (long k = 0; k < l->out; k += BLOCK) {
            blocks(v, t, 9 * l->taps, tap, l->in, l->weights + k * 9 * l->taps * l->in, m, t, t);
            for (long i = 0; i < least(BLOCK, l->out - k); i++)
                finish(m + i * t, rows * w, l->bias ? l->bias[k + i] : 0, l->slope,
                       l->y + (((n * l->out + k + i) * d + z) * h + y) * w);
        }
    }
}

long pointwise_scratch(const Layer *l) { return (l->in + BLOCK) * padded(l->chunk) + 2 * LINE; }

/* weights: [out / BLOCK][in][BLOCK] */
void pointwise(const Layer *l, float *scratch)
{
    long size = l->d * l->h * l->w, chunks = over(size, l->chunk), t = padded(l->chunk);
    float *v = take(&scratch, l->in * t), *m = take(&scratch, BLOCK * t);
    memset(v, 0, bytes(l->in * t));
    for (long unit; (unit = atomic_fetch_add(l->next, 1)) < l->n * chunks;) {
        long n = unit / chunks, at = unit % chunks * l->chunk, count = least(l->chunk, size - at);
        for (long c = 0; c < l->in; c++)
            memcpy(v + c * t, map_of(l, n, c) + at, bytes(count));
        for (long k = 0; k < l->out; k += BLOCK) {
            blocks(v, t, 1, 0, l->in, l->weights + k * l->in, m, t, t);
            for (long i = 0; i < least(BLOCK, l->out - k); i++)
                finish(m + i * t, count, l->bias ? l->bias[k + i] : 0, l->slope, l->y + (n * l->out + k + i) * size + at);
        }
    }
}

long transpose_scratch(const Layer *l) { return (l->in + BLOCK) * padded(l->rows * l->w) + 2 * LINE; }

/* weights: [out / (BLOCK / 2)][taps][2][in][BLOCK / 2][2]: the last two are channels and neighbours in a row. */
void transpose(const Layer *l, float *scratch)
{
    long bands = over(l->h, l->rows), plane = l->h * l->w, half = BLOCK / 2;
    long t = padded(l->rows * l->w);
    float *v = take(&scratch, l->in * t), *m = take(&scratch, BLOCK * t);
    memset(v, 0, bytes(l->in * t));
    for (long unit; (unit = atomic_fetch_add(l->next, 1)) < l->n * l->d * bands;) {
        long n = unit / (l->d * bands), z = unit / bands % l->d, y = unit % bands * l->rows;
        long rows = least(l->rows, l->h - y);
        for (long c = 0; c < l->in; c++)
            memcpy(v + c * t, map_of(l, n, c) + z * plane + y * l->w, bytes(rows * l->w));
        for (long job = 0; job < over(l->out, half) * l->taps * 2; job++) {
            long k = job / (2 * l->taps) * half, dz = job / 2 % l->taps, dy = job % 2;
            blocks(v, t, 1, 0, l->in, l->weights + job * l->in * BLOCK, m, t, t);
            for (long i = 0; i < least(half, l->out - k); i++)
                for (long r = 0; r < rows; r++) {
                    const float *restrict a = m + 2 * i * t + r * l->w, *restrict b = a + t;
                    float bias = l->bias ? l->bias[k + i] : 0;
                    long at = ((n * l->out + k + i) * l->taps * l->d + l->taps * z + dz) * 2 * l->h + 2 * (y + r) + dy;
                    float *restrict to = l->y + at * 2 * l->w;
                    INDEPENDENT
                    for (long q = 0; q < l->w; q++) {
                        to[2 * q] = a[q] + bias;
                        to[2 * q + 1] = b[q] + bias;
                    }
                }
        }
    }
}

/* n * in maps of d * h * w voxels, in place (y): to mean 0 and variance 1, scaled by weights and shifted by bias. Sums
   are taken in parts of 1024, and those in double precision. */
void normalise(const Layer *l)
{
    enum { PART = 1024 };
    long size = l->d * l->h * l->w;
    for (long map; (map = atomic_fetch_add(l->next, 1)) < l->n * l->in;) {
        float *restrict a = l->y + map * size;
        double sum = 0, squares = 0;
        for (long from = 0; from < size; from += PART) {
            float part = 0;
            long to = least(from + PART, size);
            for (long q = from; q < to; q++)
                part += a[q];
            sum += part;
        }
        float mean = (float)(sum / (double)size);
        for (long from = 0; from < size; from += PART) {
            float part = 0;
            long to = least(from + PART, size);
            for (long q = from; q < to; q++)
                part += (a[q] - mean) * (a[q] - mean);
            squares += part;
        }
        float scale = 1 / __builtin_sqrtf((float)(squares / (double)size) + l->eps);
        scale *= l->weights ? l->weights[map % l->in] : 1;
        float shift = (l->bias ? l->bias[map % l->in] : 0) - mean * scale, slope = l->slope;
        INDEPENDENT
        for (long q = 0; q < size; q++) {
            float f = a[q] * scale + shift;
            a[q] = f > 0 ? f : slope * f;
        }
    }
}
