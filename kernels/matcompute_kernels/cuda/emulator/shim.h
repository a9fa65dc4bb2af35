// What a .cu file sees of CUDA (or HIP, where MC_HIP is defined) when g++ compiles it for the emulator.
#pragma once
#include <math.h>
#include <string.h>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __restrict__ __restrict
#define __launch_bounds__(...)
// All shared arrays in one section: its ends bound what a thread may touch besides its arguments and its stack.
#define __shared__ static __attribute__((section("mc_shared"), aligned(64)))

struct dim3 {
    unsigned x, y, z;
};
extern "C" {
extern dim3 threadIdx, blockIdx, blockDim, gridDim;
void mc_barrier(int line);
unsigned long long mc_exchange(unsigned long long bits, int lane, int kind, int line);
void mc_touch_atomic(void *address, unsigned size);
}

#define __syncthreads() mc_barrier(__LINE__)

namespace mc {
enum { DOWN = 0, XOR = 1, INDEX = 2, BALLOT = 3 };
template <class T> inline T exchange(T value, int lane, int kind) {
    unsigned long long bits = 0;
    memcpy(&bits, &value, sizeof(T));
    bits = mc_exchange(bits, lane, kind, 0);
    T result;
    memcpy(&result, &bits, sizeof(T));
    return result;
}
template <class... A> struct Call;
}  // namespace mc

#ifdef MC_HIP
template <class T> inline T __shfl_down(T v, unsigned d, int) { return mc::exchange(v, (int)d, mc::DOWN); }
template <class T> inline T __shfl_xor(T v, int m, int) { return mc::exchange(v, m, mc::XOR); }
template <class T> inline T __shfl(T v, int lane, int) { return mc::exchange(v, lane, mc::INDEX); }
inline unsigned long long __ballot(int v) { return mc_exchange(v != 0, 0, mc::BALLOT, 0); }
#else
template <class T> inline T __shfl_down_sync(unsigned, T v, unsigned d) { return mc::exchange(v, (int)d, mc::DOWN); }
template <class T> inline T __shfl_xor_sync(unsigned, T v, int m) { return mc::exchange(v, m, mc::XOR); }
template <class T> inline T __shfl_sync(unsigned, T v, int lane) { return mc::exchange(v, lane, mc::INDEX); }
inline unsigned __ballot_sync(unsigned, int v) { return (unsigned)mc_exchange(v != 0, 0, mc::BALLOT, 0); }
#endif

// One fibre runs at a time, so a plain sum is atomic; it only has to count as no race.
template <class T> __attribute__((no_sanitize("thread"))) inline T atomicAdd(T *address, T value) {
    mc_touch_atomic(address, sizeof(T));
    T old = *address;
    *address = old + value;
    return old;
}

inline int __popcll(unsigned long long v) { return __builtin_popcountll(v); }
inline double cospi(double x) { return cos(3.14159265358979323846 * x); }
inline float cospi(float x) { return cosf(3.14159265358979323846f * x); }
template <class T> inline T min(T a, T b) { return b < a ? b : a; }
template <class T> inline T max(T a, T b) { return a < b ? b : a; }
