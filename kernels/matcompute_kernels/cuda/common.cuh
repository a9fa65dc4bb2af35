// In front of every kernel. The launcher defines: real (float or double), MC_WARP (32, or 64 on AMD and Hygon cards),
// MC_BLOCK (threads of a block, a multiple of MC_WARP) and the sizes that a kernel names in its head.
typedef long long i64;

#if defined(__HIPCC__) || defined(MC_HIP)
#define MC_DOWN(v, d) __shfl_down(v, d, MC_WARP)
#else
#define MC_DOWN(v, d) __shfl_down_sync(0xffffffffu, v, d)
#endif

#define MC_WARPS (MC_BLOCK / MC_WARP)

__device__ inline int mc_thread() { return (int)(threadIdx.x + threadIdx.y * blockDim.x); }

// Sum over the warp, valid in lane 0.
template <class T> __device__ inline T mc_warp_sum(T value) {
    for (int d = MC_WARP / 2; d > 0; d /= 2) value += MC_DOWN(value, d);
    return value;
}
