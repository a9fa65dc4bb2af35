// Histogram of the distances to the neighbours of a structure's atoms; one block a centre.
//
// By brute force over images. Counts are whole numbers: their sum does not depend on the order.
extern "C" __global__ void __launch_bounds__(MC_BLOCK, 1)
    count_pairs(const real *__restrict__ wrapped, const real *__restrict__ fraction, const int *__restrict__ owner,
                const i64 *__restrict__ ptr, const double *__restrict__ cell, const real *__restrict__ planes,
                double r_cut, double tolerance, const double *__restrict__ edges, unsigned *__restrict__ counts) {
    __shared__ unsigned bins[BINS];
    const int i = (int)blockIdx.x, t = mc_thread(), structure = owner[i];
    for (int b = t; b < BINS; b += MC_BLOCK) bins[b] = 0;
    __syncthreads();
    const i64 begin = ptr[structure];
    const int n_sites = (int)(ptr[structure + 1] - begin);
    const double scale = 1.0 / edges[1];
    const Reach s = mc_reach(cell, planes, structure, (real)(r_cut + tolerance));
    const int w1 = 2 * s.images[1] + 1, w2 = 2 * s.images[2] + 1;
    const int items = n_sites * w1 * w2;  // the host has checked that it fits
    for (int item = t; item < items; item += MC_BLOCK) {
        const i64 j = begin + item % n_sites;
        const int q = item / n_sites, n1 = q % w1 - s.images[1], n2 = q / w1 - s.images[2];
        const Images m = mc_images(wrapped, fraction, i, j, n1, n2, s.a, s.range);
        for (int n0 = m.from; n0 <= m.to; n0++) {
            const real x = m.x + (real)n0 * s.a[0], y = m.y + (real)n0 * s.a[1], z = m.z + (real)n0 * s.a[2];
            if (!(j == i && n0 == 0 && n1 == 0 && n2 == 0))
                mc_count(sqrt(x * x + y * y + z * z), r_cut, tolerance, scale, edges, bins);
        }
    }
    __syncthreads();
    for (int b = t; b < BINS; b += MC_BLOCK)
        if (bins[b] > 0) atomicAdd(&counts[(i64)structure * BINS + b], bins[b]);
}
