#if defined(__ARM_FEATURE_DSP)
#define DSP 1
#else
#define DSP 0
#endif

#if defined(__GNUC__)
#define ALIGNED __attribute__((aligned(4)))
#define ALIAS __attribute__((may_alias)) /* bytes, int16 and int32 share places in the arena */
#define NOINLINE __attribute__((noinline))
#else
#define ALIGNED
#define ALIAS
#define NOINLINE
#endif

typedef int32_t ALIAS i32;
typedef int16_t ALIAS i16;

/* int8 out = table[clip((sum * m + 2^31) >> 32)]; the table is given at its middle */
typedef struct {
    const int8_t *w;
    const int32_t *b, *m;
    const int8_t *table;
} Layer;

/* out = (sum * m + 2^(shift - 1)) >> shift */
typedef struct {
    const int8_t *w;
    const int32_t *b, *m;
    int shift;
} VectorLayer;

/* x' = clip((projection * m + 256 x * residual + offset) >> 32) */
typedef struct {
    Layer expand, depthwise, project;
    VectorLayer squeeze, excite;
    int64_t offset;
    int32_t residual;
    int8_t padding, zero;
    uint8_t shift;
} Block;
