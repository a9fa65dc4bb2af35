// Pairs closer than r_cut over periodic images, by brute force; one block a centre.
//
// FILL 0 counts, FILL 1 writes at the centre's offset. A thread takes a neighbour and its images along vectors 1 and 2,
// and runs over the few images along vector 0 that can be near enough.

struct Images {
    real x, y, z;  // neighbour - centre without the image along vector 0
    int from, to;  // images along vector 0
};

__device__ inline Images mc_images(const real *__restrict__ wrapped, const real *__restrict__ fraction, i64 i, i64 j,
                                   int n1, int n2, const real *a, const real *range) {
    Images m;
    m.from = 0;
    m.to = -1;
    const real f0 = fraction[3 * j] - fraction[3 * i];
    const real f1 = fraction[3 * j + 1] - fraction[3 * i + 1] + (real)n1;
    const real f2 = fraction[3 * j + 2] - fraction[3 * i + 2] + (real)n2;
    // range: r_cut over the distance of lattice planes; below 0 where the vector is not periodic.
    const bool far = (range[1] >= 0 && fabs(f1) > range[1]) || (range[2] >= 0 && fabs(f2) > range[2]);
    m.x = wrapped[3 * j] - wrapped[3 * i] + (real)n1 * a[3] + (real)n2 * a[6];
    m.y = wrapped[3 * j + 1] - wrapped[3 * i + 1] + (real)n1 * a[4] + (real)n2 * a[7];
    m.z = wrapped[3 * j + 2] - wrapped[3 * i + 2] + (real)n1 * a[5] + (real)n2 * a[8];
    if (!far) {
        m.from = range[0] >= 0 ? (int)ceil(-range[0] - f0) : 0;
        m.to = range[0] >= 0 ? (int)floor(range[0] - f0) : 0;
    }
    return m;
}

extern "C" __global__ void __launch_bounds__(MC_BLOCK)
    find_pairs(const real *__restrict__ wrapped, const real *__restrict__ fraction, const int *__restrict__ wraps,
               const int *__restrict__ owner, const i64 *__restrict__ ptr, const double *__restrict__ cell,
               const real *__restrict__ planes, double r_cut, int first, int *__restrict__ count,
               const i64 *__restrict__ offset, int *__restrict__ neighbor, int *__restrict__ shift,
               real *__restrict__ distance, real *__restrict__ vector) {
    const i64 i = (i64)first + blockIdx.x;
    const int t = mc_thread(), structure = owner[i];
    const i64 begin = ptr[structure];
    const int n_sites = (int)(ptr[structure + 1] - begin);
    real a[9], range[3];
    int images[3];
    for (int k = 0; k < 9; k++) a[k] = (real)cell[9 * (i64)structure + k];
    for (int k = 0; k < 3; k++) {
        const real inverse = planes[3 * (i64)structure + k];
        // A little more than needed: the distance decides.
        range[k] = inverse > 0 ? (real)r_cut * inverse * (real)1.0001 + (real)1e-4 : (real)-1;
        images[k] = inverse > 0 ? (int)ceil(range[k]) + 1 : 0;
    }
    const int w1 = 2 * images[1] + 1, w2 = 2 * images[2] + 1;
    const i64 items = (i64)n_sites * w1 * w2;
#if FILL
    __shared__ int place[MC_BLOCK];
    i64 written = offset[blockIdx.x];
#else
    __shared__ int part[MC_WARPS];
    int total = 0;
#endif
    for (i64 item = t; item - t < items; item += MC_BLOCK) {
        const bool there = item < items;
        const i64 j = begin + (there ? item % n_sites : 0);
        const int q = (int)(there ? item / n_sites : 0);
        const int n1 = q % w1 - images[1], n2 = q / w1 - images[2];
        Images m = mc_images(wrapped, fraction, i, j, n1, n2, a, range);
        if (!there) m.to = m.from - 1;
        int mine = 0;
        for (int n0 = m.from; n0 <= m.to; n0++) {
            const real x = m.x + (real)n0 * a[0], y = m.y + (real)n0 * a[1], z = m.z + (real)n0 * a[2];
            const bool self = j == i && n0 == 0 && n1 == 0 && n2 == 0;
            mine += !self && sqrt(x * x + y * y + z * z) < (real)r_cut;
        }
#if FILL
        // Where each thread writes: the sum of what the threads before it have. Same order in every run.
        place[t] = mine;
        __syncthreads();
        for (int d = 1; d < MC_BLOCK; d *= 2) {
            const int before = t >= d ? place[t - d] : 0;
            __syncthreads();
            place[t] += before;
            __syncthreads();
        }
        i64 p = written + place[t] - mine;
        written += place[MC_BLOCK - 1];
        __syncthreads();
        for (int n0 = m.from; n0 <= m.to; n0++) {
            const real x = m.x + (real)n0 * a[0], y = m.y + (real)n0 * a[1], z = m.z + (real)n0 * a[2];
            const bool self = j == i && n0 == 0 && n1 == 0 && n2 == 0;
            const real d = sqrt(x * x + y * y + z * z);
            if (self || !(d < (real)r_cut)) continue;
            const int n[3] = {n0, n1, n2};
            neighbor[p] = (int)j;
            distance[p] = d;
            for (int k = 0; k < 3; k++) shift[3 * p + k] = n[k] - wraps[3 * j + k] + wraps[3 * i + k];
            vector[3 * p] = x;
            vector[3 * p + 1] = y;
            vector[3 * p + 2] = z;
            p++;
        }
#else
        total += mine;
#endif
    }
#if !FILL
    total = mc_warp_sum(total);
    if (t % MC_WARP == 0) part[t / MC_WARP] = total;
    __syncthreads();
    if (t == 0) {
        for (int w = 1; w < MC_WARPS; w++) total += part[w];
        count[blockIdx.x] = total;
    }
#endif
}
