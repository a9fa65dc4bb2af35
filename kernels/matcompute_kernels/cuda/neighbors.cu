// Pairs closer than r_cut over periodic images, by brute force; one block a centre.
//
// FILL 0 counts, FILL 1 writes at the centre's offset, FILL 2 writes the lattice vectors too. A thread takes a neighbour
// and its images along vectors 1 and 2, and runs over the few images along vector 0 that can be near enough.

extern "C" __global__ void __launch_bounds__(MC_BLOCK, 1)
    find_pairs(const real *__restrict__ wrapped, const real *__restrict__ fraction, const int *__restrict__ wraps,
               const int *__restrict__ owner, const i64 *__restrict__ ptr, const double *__restrict__ cell,
               const real *__restrict__ planes, double r_cut, int first, int *__restrict__ count,
               const i64 *__restrict__ offset, int *__restrict__ neighbor, int *__restrict__ shift,
               real *__restrict__ distance, real *__restrict__ vector) {
    const i64 i = (i64)first + blockIdx.x;
    const int t = mc_thread(), structure = owner[i];
    const i64 begin = ptr[structure];
    const int n_sites = (int)(ptr[structure + 1] - begin);
    const Reach s = mc_reach(cell, planes, structure, (real)r_cut);
    const real *a = s.a;
    const int *images = s.images;
    const int w1 = 2 * images[1] + 1, w2 = 2 * images[2] + 1;
    const int items = n_sites * w1 * w2;  // the host has checked that it fits
#if FILL
    __shared__ int place[MC_BLOCK];
    i64 written = offset[blockIdx.x];
#else
    __shared__ int part[MC_WARPS];
    int total = 0;
#endif
    for (int item = t; item - t < items; item += MC_BLOCK) {
        const bool there = item < items;
        const i64 j = begin + (there ? item % n_sites : 0);
        const int q = there ? item / n_sites : 0;
        const int n1 = q % w1 - images[1], n2 = q / w1 - images[2];
        Images m = mc_images(wrapped, fraction, i, j, n1, n2, a, s.range);
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
            neighbor[p] = (int)j;
            distance[p] = d;
#if FILL == 2
            shift[3 * p] = n0 - wraps[3 * j] + wraps[3 * i];
            shift[3 * p + 1] = n1 - wraps[3 * j + 1] + wraps[3 * i + 1];
            shift[3 * p + 2] = n2 - wraps[3 * j + 2] + wraps[3 * i + 2];
#endif
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
