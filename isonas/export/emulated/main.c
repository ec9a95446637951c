/* Bare metal for the Cortex-M boards of QEMU (mps2-an385, an386, an500): runs the self-test, then one image
   with a painted stack and a timer, and prints what it found by semihosting. No C library. */
#include <stdint.h>
#include HEADER

#define JOIN_(a, b) a##_##b
#define JOIN(a, b) JOIN_(a, b)

int JOIN(NAME, selftest)(void);
const uint8_t *JOIN(NAME, golden)(int image);

extern char stack_top[], bss_start[], bss_end[];
void start(void);
int begun(void);

__attribute__((section(".vectors"), used)) static const void *const vectors[16] = {
    stack_top, (const void *)start, (const void *)start, (const void *)start};

/* CMSDK timer: control, value, reload; it counts down at 25 MHz, and with -icount shift=0 an instruction
   takes a nanosecond, so a tick is 40 instructions */
static volatile uint32_t *const timer = (volatile uint32_t *)0x40000000;
#define PAINT 0xA5
#define PAINTED 8192

static int semihosted(int operation, const void *argument) {
    register int r0 __asm__("r0") = operation;
    register const void *r1 __asm__("r1") = argument;
    __asm__ volatile("bkpt 0xAB" : "+r"(r0) : "r"(r1) : "memory");
    return r0;
}

static void print(const char *name, uint32_t number) {
    char text[48];
    int n = 0;
    while (*name) text[n++] = *name++;
    text[n++] = ' ';
    char digits[10];
    int d = 0;
    do digits[d++] = (char)('0' + number % 10);
    while (number /= 10);
    while (d) text[n++] = digits[--d];
    text[n++] = '\n';
    text[n] = 0;
    semihosted(4, text);
}

static int8_t logits[CLASSES];

static __attribute__((noinline)) int one(void) { return JOIN(NAME, run)(JOIN(NAME, golden)(0), logits); }

int begun(void) {
    int bad = JOIN(NAME, selftest)();
    char *here;
    __asm__ volatile("mov %0, sp" : "=r"(here));
    volatile char *low = here - PAINTED;
    for (volatile char *p = low; p < here - 64; p++) *p = (char)PAINT;
    timer[0] = 0, timer[2] = 0xffffffff, timer[1] = 0xffffffff, timer[0] = 1;
    uint32_t before = timer[1];
    one();
    uint32_t after = timer[1];
    volatile char *p = low;
    while (p < here && *p == (char)PAINT) p++;
    print("differing", (uint32_t)bad);
    print("stack", (uint32_t)(here - (char *)p));
    print("ticks", before - after);
    return bad;
}

__attribute__((naked, used)) void start(void) { __asm__ volatile("ldr r0, =stack_top\n mov sp, r0\n b started\n"); }

__attribute__((used)) void started(void);
void started(void) {
    for (volatile char *p = bss_start; p < bss_end; p++) *p = 0;
    static volatile int ended[2];
    ended[0] = 0x20026, ended[1] = begun() != 0;
    semihosted(0x20, (const void *)ended);
    for (;;) {
    }
}

/* what compilers make of loops that fill and copy */
void *memset(void *to, int value, unsigned count);
void *memcpy(void *to, const void *from, unsigned count);
void *memset(void *to, int value, unsigned count) {
    for (volatile char *p = to; count; count--) *p++ = (char)value;
    return to;
}
void *memcpy(void *to, const void *from, unsigned count) {
    const char *q = from;
    for (volatile char *p = to; count; count--) *p++ = *q++;
    return to;
}
