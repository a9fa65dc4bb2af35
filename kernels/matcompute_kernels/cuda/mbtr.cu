// Spectra of the pairs of two elements (MBTR, k = 2); one block a row and a tile of its bins.
//
// Each thread has an edge between two bins and sums what lies below it: w/2 · erf((edge - x)/(σ√2)). Pairs are taken
// MC_BLOCK at a time; those of the row's elements that the tile feels are packed into shared memory by votes, so that
// the loop over them is the same for all threads. Bins are differences of edges. x: GEOMETRY 0 distance, 1 its inverse;
// w: WEIGHT 0 one, 1 exp(-falloff · distance) up to `longest`, 2 inverse square. Sums are in double, in a fixed order.
extern "C" __global__ void __launch_bounds__(MC_BLOCK)
    pair_spectra(const int *__restrict__ rows, const i64 *__restrict__ ptr, const i64 *__restrict__ pair_ptr,
                 const int *__restrict__ neighbor, const real *__restrict__ distance, const int *__restrict__ element,
                 double falloff, double longest, int n_bins, double start, double width, double scale,
                 real *__restrict__ out) {
    __shared__ double place[MC_BLOCK], weight[MC_BLOCK], below[MC_BLOCK];
    __shared__ int votes[MC_WARPS];
    const int t = mc_thread(), warp = t / MC_WARP, lane = t % MC_WARP;
    const int structure = rows[3 * blockIdx.x], one = rows[3 * blockIdx.x + 1], other = rows[3 * blockIdx.x + 2];
    const int first = (int)blockIdx.y * (MC_BLOCK - 1);
    const double edge = start + (first + t) * width, reach = 8.3 / (scale * 1.4142135623730951);
    const double low = start + first * width - reach, high = start + (first + MC_BLOCK - 1) * width + reach;
    // A full list has each pair of equal atoms twice.
    const double half = one == other ? 0.25 : 0.5;
    double sum = 0.0;
    for (i64 i = ptr[structure]; i < ptr[structure + 1]; i++) {
        if (element[i] != one) continue;
        for (i64 begin = pair_ptr[i]; begin < pair_ptr[i + 1]; begin += MC_BLOCK) {
            const i64 p = begin + t < pair_ptr[i + 1] ? begin + t : begin;
            const real d = distance[p];
            const real x = GEOMETRY ? (real)1 / d : d;
            bool counts = begin + t == p && element[neighbor[p]] == other && x > low && x < high;
            real w = (real)1;
#if WEIGHT == 1
            counts = counts && d <= longest;
            w = exp(-(real)falloff * d);
#elif WEIGHT == 2
            w = (real)1 / (d * d);
#endif
            const unsigned long long voted = MC_BALLOT(counts);
            if (lane == 0) votes[warp] = __popcll(voted);
            __syncthreads();
            int to = __popcll(voted & ((1ull << lane) - 1)), total = 0;
            for (int v = 0; v < MC_WARPS; v++) {
                if (v < warp) to += votes[v];
                total += votes[v];
            }
            if (counts) {
                place[to] = x;
                weight[to] = half * w;
            }
            __syncthreads();
            for (int q = 0; q < total; q++) sum += weight[q] * erf((real)((edge - place[q]) * scale));
        }
    }
    below[t] = sum;
    __syncthreads();
    if (t < MC_BLOCK - 1 && first + t < n_bins)
        out[(i64)blockIdx.x * n_bins + first + t] = (real)((below[t + 1] - below[t]) / width);
}
