// One fibre per CUDA thread, one block at a time; barriers and warp exchanges switch fibres.
//
// The kernel is compiled with -fsanitize=thread and -fsanitize=bounds, but linked to the handlers below instead of the
// sanitizers' libraries: each memory access of a kernel comes here and is checked against the arrays that were passed,
// and, in shared memory, against what other threads did since the last barrier (a race).
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

struct dim3 {
    unsigned x, y, z;
};
extern "C" {
dim3 threadIdx, blockIdx, blockDim, gridDim;
extern char __start_mc_shared[] __attribute__((weak));
extern char __stop_mc_shared[] __attribute__((weak));
}

namespace {
enum State { READY, BARRIER, EXCHANGE, DONE };
const int ATOMIC = -3;  // several threads may add to a word, none may read or write it in the same span
const size_t STACK = 64 * 1024;

struct Fibre {
    jmp_buf where;
    State state;
    int line, lane, kind;
    unsigned long long bits;
    char *stack;
    dim3 id;
    bool started;
};
struct Range {
    uintptr_t begin, end;
};
struct Mark {  // who touched four bytes of shared memory in which span between two barriers
    unsigned write_span, read_span;
    int writer, reader;  // reader -2: several
};

Fibre *fibres = nullptr;
int n_fibres = 0, room = 0, current = 0;
jmp_buf scheduler, out_of_launch;
char message[512];
Range *ranges = nullptr;
int n_ranges = 0, last_range = 0;
Mark *marks = nullptr;
size_t n_marks = 0;
unsigned span = 1;
unsigned long long random_state;
void (*entry)(void **);
void **arguments;

unsigned next_random() {
    random_state = random_state * 6364136223846793005ull + 1442695040888963407ull;
    return (unsigned)(random_state >> 33);
}

[[noreturn]] void fail(const char *format, ...) {
    va_list list;
    va_start(list, format);
    int n = snprintf(message, sizeof message, "block (%u, %u, %u) thread %d: ", blockIdx.x, blockIdx.y, blockIdx.z,
                     current);
    vsnprintf(message + n, sizeof message - n, format, list);
    va_end(list);
    longjmp(out_of_launch, 1);
}

void first_call() {
    entry(arguments);
    fibres[current].state = DONE;
    longjmp(scheduler, 1);
}

void yield() {
    if (_setjmp(fibres[current].where) == 0) longjmp(scheduler, 1);
}

void resume(int k) {
    current = k;
    Fibre &f = fibres[k];
    threadIdx = f.id;
    if (_setjmp(scheduler)) return;
    if (f.started) longjmp(f.where, 1);
    f.started = true;
    ucontext_t context;
    getcontext(&context);
    context.uc_stack.ss_sp = f.stack;
    context.uc_stack.ss_size = STACK;
    context.uc_link = nullptr;
    makecontext(&context, first_call, 0);
    setcontext(&context);
}

void check(void *address, unsigned size, bool write, bool atomic = false) {
    uintptr_t a = (uintptr_t)address, e = a + size;
    uintptr_t shared = (uintptr_t)__start_mc_shared, shared_end = (uintptr_t)__stop_mc_shared;
    if (a >= shared && e <= shared_end) {
        const int who = atomic ? ATOMIC : current;
        for (size_t m = (a - shared) / 4; m <= (e - 1 - shared) / 4; m++) {
            Mark &mark = marks[m];
            if (mark.write_span == span && mark.writer != who)
                fail("race in shared memory: %s what another thread wrote since the last barrier",
                     write ? "overwrites" : "reads");
            if (write) {
                if (mark.read_span == span && mark.reader != current)
                    fail("race in shared memory: overwrites what another thread read since the last barrier");
                mark.write_span = span;
                mark.writer = who;
            } else if (mark.read_span != span) {
                mark.read_span = span;
                mark.reader = current;
            } else if (mark.reader != current) {
                mark.reader = -2;
            }
        }
        return;
    }
    if (n_ranges && a >= ranges[last_range].begin && e <= ranges[last_range].end) return;
    for (int k = 0; k < n_ranges; k++)
        if (a >= ranges[k].begin && e <= ranges[k].end) {
            last_range = k;
            return;
        }
    uintptr_t stack = (uintptr_t)fibres[current].stack;
    if (a >= stack && e <= stack + STACK) return;
    const void *own[] = {&threadIdx, &blockIdx, &blockDim, &gridDim};
    for (const void *p : own)
        if (!write && a >= (uintptr_t)p && e <= (uintptr_t)p + sizeof(dim3)) return;
    fail("%s of %u bytes out of bounds", write ? "write" : "read", size);
}
}  // namespace

extern "C" {
void mc_barrier(int line) {
    fibres[current].state = BARRIER;
    fibres[current].line = line;
    yield();
}

unsigned long long mc_exchange(unsigned long long bits, int lane, int kind, int line) {
    Fibre &f = fibres[current];
    f.state = EXCHANGE;
    f.bits = bits;
    f.lane = lane;
    f.kind = kind;
    f.line = line;
    yield();
    return fibres[current].bits;
}

void mc_touch_atomic(void *address, unsigned size) { check(address, size, true, true); }

#define ACCESS(n)                                                         \
    void __tsan_read##n(void *p) { check(p, n, false); }                  \
    void __tsan_write##n(void *p) { check(p, n, true); }                  \
    void __tsan_unaligned_read##n(void *p) { check(p, n, false); }        \
    void __tsan_unaligned_write##n(void *p) { check(p, n, true); }
ACCESS(1) ACCESS(2) ACCESS(4) ACCESS(8) ACCESS(16)
void __tsan_read_range(void *p, unsigned long n) { check(p, (unsigned)n, false); }
void __tsan_write_range(void *p, unsigned long n) { check(p, (unsigned)n, true); }
void __tsan_vptr_update(void *, void *) {}
void __tsan_func_entry(void *) {}
void __tsan_func_exit() {}
void __tsan_init() {}
void __ubsan_handle_out_of_bounds(void *, void *index) { fail("index %ld out of an array's bounds", (long)index); }
void __ubsan_handle_out_of_bounds_abort(void *, void *index) {
    fail("index %ld out of an array's bounds", (long)index);
}

// order: 0 forward, 1 reversed, 2 shuffled anew after each barrier. Returns null or what went wrong.
const char *mc_launch(void (*function)(void **), void **values, const unsigned *grid, const unsigned *block, int warp,
                      int order, unsigned long long seed, const uintptr_t *bounds, int n_bounds) {
    gridDim = {grid[0], grid[1], grid[2]};
    blockDim = {block[0], block[1], block[2]};
    entry = function;
    arguments = values;
    random_state = seed * 2862933555777941757ull + 3037000493ull;
    ranges = (Range *)bounds;
    n_ranges = n_bounds;
    last_range = 0;
    n_fibres = (int)(block[0] * block[1] * block[2]);
    if (n_fibres > room) {
        fibres = (Fibre *)realloc(fibres, n_fibres * sizeof(Fibre));
        for (; room < n_fibres; room++) fibres[room].stack = (char *)malloc(STACK);
    }
    size_t shared = (size_t)(__stop_mc_shared - __start_mc_shared);
    if (!marks) marks = (Mark *)calloc(n_marks = shared / 4 + 1, sizeof(Mark));
    int *turn = (int *)malloc(n_fibres * sizeof(int));
    unsigned long long *incoming = (unsigned long long *)malloc(warp * sizeof(unsigned long long));
    long n_blocks = (long)grid[0] * grid[1] * grid[2];
    message[0] = 0;
    if (_setjmp(out_of_launch)) {
        free(turn);
        free(incoming);
        return message;
    }
    for (int k = 0; k < n_fibres; k++) turn[k] = order == 1 ? n_fibres - 1 - k : k;
    for (long number = 0; number < n_blocks; number++) {
        long b = order == 1 ? n_blocks - 1 - number : number;
        blockIdx = {(unsigned)(b % grid[0]), (unsigned)(b / grid[0] % grid[1]), (unsigned)(b / grid[0] / grid[1])};
        // What an earlier block left must not help: shared memory starts undefined (here: NaN).
        memset(__start_mc_shared, 0xff, shared);
        span++;
        for (int k = 0; k < n_fibres; k++) {
            fibres[k].state = READY;
            fibres[k].started = false;
            fibres[k].id = {k % block[0], k / block[0] % block[1], k / block[0] / block[1]};
        }
        for (;;) {
            if (order == 2)
                for (int k = n_fibres - 1; k > 0; k--) {
                    int m = (int)(next_random() % (unsigned)(k + 1)), t = turn[k];
                    turn[k] = turn[m];
                    turn[m] = t;
                }
            for (int k = 0; k < n_fibres; k++)
                if (fibres[turn[k]].state == READY) resume(turn[k]);
            int done = 0, waiting = 0;
            bool moved = false;
            for (int k = 0; k < n_fibres; k++) {
                done += fibres[k].state == DONE;
                waiting += fibres[k].state == BARRIER;
            }
            if (done == n_fibres) break;
            for (int w = 0; w < n_fibres; w += warp) {
                int lanes = n_fibres - w < warp ? n_fibres - w : warp, here = 0, one = w;
                for (int k = w; k < w + lanes; k++)
                    if (fibres[k].state == EXCHANGE) here++, one = k;
                if (!here) continue;
                current = one;
                for (int k = w; k < w + lanes; k++)
                    if (fibres[k].state != EXCHANGE || fibres[k].kind != fibres[one].kind)
                        fail("warp exchange that %d of %d lanes reach", here, lanes);
                unsigned long long votes = 0;
                for (int k = 0; k < lanes; k++) votes |= (fibres[w + k].bits & 1) << k;
                for (int k = 0; k < lanes; k++) {
                    Fibre &f = fibres[w + k];
                    if (f.kind == 3) {
                        incoming[k] = votes;
                        continue;
                    }
                    int from = f.kind == 0 ? k + f.lane : f.kind == 1 ? (k ^ f.lane) : f.lane;
                    // CUDA and HIP: a lane that reads beyond the warp gets its own value back.
                    incoming[k] = fibres[w + (from >= 0 && from < lanes ? from : k)].bits;
                }
                for (int k = 0; k < lanes; k++) {
                    fibres[w + k].bits = incoming[k];
                    fibres[w + k].state = READY;
                }
                moved = true;
            }
            if (moved) continue;
            for (int k = 0; k < n_fibres; k++)
                if (fibres[k].state == BARRIER) current = k;
            for (int k = 0; k < n_fibres; k++)
                if (fibres[k].state != BARRIER || fibres[k].line != fibres[current].line)
                    fail("barrier in line %d that not all threads reach (%d of %d wait, %d have ended)",
                         fibres[current].line, waiting, n_fibres, done);
            for (int k = 0; k < n_fibres; k++) fibres[k].state = READY;
            span++;
        }
    }
    free(turn);
    free(incoming);
    return nullptr;
}
}
