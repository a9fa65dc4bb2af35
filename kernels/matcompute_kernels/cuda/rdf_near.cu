// Histogram of distances, as count_pairs, from sites sorted into bins; one block a centre, its warps share the runs.
extern "C" __global__ void __launch_bounds__(MC_BLOCK)
    count_near(const real *__restrict__ wrapped, const real *__restrict__ sorted, const int *__restrict__ site,
               const int *__restrict__ bin, const i64 *__restrict__ bin_start, const i64 *__restrict__ bin_first,
               const int *__restrict__ grid, const int *__restrict__ owner, const double *__restrict__ cell,
               double r_cut, double tolerance, const double *__restrict__ edges, unsigned *__restrict__ counts) {
    __shared__ unsigned bins[BINS];
    const i64 i = blockIdx.x;
    const int t = mc_thread(), structure = owner[i];
    for (int b = t; b < BINS; b += MC_BLOCK) bins[b] = 0;
    __syncthreads();
    const Grid g = mc_grid(grid, bin_first, structure, bin[i]);
    const double scale = 1.0 / edges[1], *a = cell + 9 * (i64)structure;
    const real cx = wrapped[3 * i], cy = wrapped[3 * i + 1], cz = wrapped[3 * i + 2];
    for (int number = t / MC_WARP; number < g.runs; number += MC_WARPS) {
        const Run r = mc_run(g, bin_start, number);
        const real tx = (real)(r.n0 * a[0] + r.n1 * a[3] + r.n2 * a[6]) - cx;
        const real ty = (real)(r.n0 * a[1] + r.n1 * a[4] + r.n2 * a[7]) - cy;
        const real tz = (real)(r.n0 * a[2] + r.n1 * a[5] + r.n2 * a[8]) - cz;
        const bool home = r.n0 == 0 && r.n1 == 0 && r.n2 == 0;
        for (int k = r.begin + t % MC_WARP; k < r.end; k += MC_WARP) {
            const real x = sorted[3 * (i64)k] + tx, y = sorted[3 * (i64)k + 1] + ty, z = sorted[3 * (i64)k + 2] + tz;
            if (!(home && site[k] == i)) mc_count(sqrt(x * x + y * y + z * z), r_cut, tolerance, scale, edges, bins);
        }
    }
    __syncthreads();
    for (int b = t; b < BINS; b += MC_BLOCK)
        if (bins[b] > 0) atomicAdd(&counts[(i64)structure * BINS + b], bins[b]);
}
