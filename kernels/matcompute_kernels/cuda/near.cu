// Pairs closer than r_cut over periodic images, from sites sorted into bins; one warp a centre.
//
// FILL 0 counts, FILL 1 writes at the centre's offset, FILL 2 writes the lattice vectors too. The lanes take the sites of
// a run side by side; a vote tells each lane where it writes, so that the order is the same in every run.
extern "C" __global__ void __launch_bounds__(MC_BLOCK)
    find_near(const real *__restrict__ wrapped, const real *__restrict__ sorted, const int *__restrict__ site,
              const int *__restrict__ bin, const i64 *__restrict__ bin_start, const i64 *__restrict__ bin_first,
              const int *__restrict__ grid, const int *__restrict__ wraps, const int *__restrict__ owner,
              const double *__restrict__ cell, double r_cut, int first, int last, int *__restrict__ count,
              const i64 *__restrict__ offset, int *__restrict__ neighbor, int *__restrict__ shift,
              real *__restrict__ distance, real *__restrict__ vector) {
    const int lane = mc_thread() % MC_WARP, number = (int)blockIdx.x * MC_WARPS + mc_thread() / MC_WARP;
    const i64 i = (i64)first + number;
    if (i >= last) return;  // the whole warp
    const Grid g = mc_grid(grid, bin_first, owner[i], bin[i]);
    const double *a = cell + 9 * (i64)owner[i];
    const real cx = wrapped[3 * i], cy = wrapped[3 * i + 1], cz = wrapped[3 * i + 2], reach = (real)r_cut;
#if FILL
    i64 written = offset[number];
#else
    int total = 0;
#endif
    for (int number_of_run = 0; number_of_run < g.runs; number_of_run++) {
        const Run r = mc_run(g, bin_start, number_of_run);
        const real tx = (real)(r.n0 * a[0] + r.n1 * a[3] + r.n2 * a[6]) - cx;
        const real ty = (real)(r.n0 * a[1] + r.n1 * a[4] + r.n2 * a[7]) - cy;
        const real tz = (real)(r.n0 * a[2] + r.n1 * a[5] + r.n2 * a[8]) - cz;
        const bool home = r.n0 == 0 && r.n1 == 0 && r.n2 == 0;
        for (int begin = r.begin; begin < r.end; begin += MC_WARP) {
            const int k = min(begin + lane, r.end - 1);
            const real x = sorted[3 * (i64)k] + tx, y = sorted[3 * (i64)k + 1] + ty, z = sorted[3 * (i64)k + 2] + tz;
            const real d = sqrt(x * x + y * y + z * z);
            const bool near = begin + lane < r.end && d < reach && !(home && site[k] == i);
#if FILL
            const unsigned long long voted = MC_BALLOT(near);
            if (near) {
                const i64 p = written + __popcll(voted & ((1ull << lane) - 1));
                const i64 j = site[k];
                neighbor[p] = (int)j;
                distance[p] = d;
                vector[3 * p] = x;
                vector[3 * p + 1] = y;
                vector[3 * p + 2] = z;
#if FILL == 2
                shift[3 * p] = r.n0 - wraps[3 * j] + wraps[3 * i];
                shift[3 * p + 1] = r.n1 - wraps[3 * j + 1] + wraps[3 * i + 1];
                shift[3 * p + 2] = r.n2 - wraps[3 * j + 2] + wraps[3 * i + 2];
#endif
            }
            written += __popcll(voted);
#else
            total += near;
#endif
        }
    }
#if !FILL
    total = mc_warp_sum(total);
    if (lane == 0) count[number] = total;
#endif
}
