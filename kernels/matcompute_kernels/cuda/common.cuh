// In front of every kernel. The launcher defines: real (float or double), MC_WARP (32, or 64 on AMD and Hygon cards),
// MC_BLOCK (threads of a block, a multiple of MC_WARP) and the sizes that a kernel names in its head.
typedef long long i64;

#if defined(__HIPCC__) || defined(MC_HIP)
#define MC_DOWN(v, d) __shfl_down(v, d, MC_WARP)
#define MC_BALLOT(p) ((unsigned long long)__ballot(p))
#else
#define MC_DOWN(v, d) __shfl_down_sync(0xffffffffu, v, d)
#define MC_BALLOT(p) ((unsigned long long)__ballot_sync(0xffffffffu, p))
#endif

#define MC_WARPS (MC_BLOCK / MC_WARP)

__device__ inline int mc_thread() { return (int)(threadIdx.x + threadIdx.y * blockDim.x); }

// Sum over the warp, valid in lane 0.
template <class T> __device__ inline T mc_warp_sum(T value) {
    for (int d = MC_WARP / 2; d > 0; d /= 2) value += MC_DOWN(value, d);
    return value;
}

// A value and its place; the better one is the higher value, of equals the lower place.
struct Best {
    double value;
    i64 place;
};

__device__ inline bool mc_better(double value, i64 place, const Best &than) {
    return value > than.value || (value == than.value && place < than.place);
}

// Best of the block, valid in thread 0. `store` is shared, one for each warp; a barrier must stand between two calls.
__device__ inline Best mc_block_best(Best mine, Best *store) {
    const int t = mc_thread();
    for (int d = MC_WARP / 2; d > 0; d /= 2) {
        const double value = MC_DOWN(mine.value, d);
        const i64 place = MC_DOWN(mine.place, d);
        if (mc_better(value, place, mine)) {
            mine.value = value;
            mine.place = place;
        }
    }
    if (t % MC_WARP == 0) store[t / MC_WARP] = mine;
    __syncthreads();
    if (t == 0)
        for (int w = 1; w < MC_WARPS; w++)
            if (mc_better(store[w].value, store[w].place, mine)) mine = store[w];
    return mine;
}
