// Atom-centred symmetry functions G1, G2, G4 and G5; one block a site.
//
// A thread takes a neighbour, or a pair of neighbours, and the functions of one block of
// elements are summed over the threads one element (or pair of elements) at a time, in a fixed order.
// N2, N4, N5: functions; SPECIES: elements; columns as on the CPU.
#define ANGULAR (N4 + N5)

__device__ inline real mc_cut(real r, real r_cut) {
    return r < r_cut ? (real)0.5 * ((real)1 + cospi(r / r_cut)) : (real)0;
}

// Sum over the block, valid in thread 0; `store` is shared, one for each warp.
__device__ inline double mc_block_sum(double value, double *store) {
    const int t = mc_thread();
    value = mc_warp_sum(value);
    if (t % MC_WARP == 0) store[t / MC_WARP] = value;
    __syncthreads();
    if (t == 0)
        for (int w = 1; w < MC_WARPS; w++) value += store[w];
    __syncthreads();
    return value;
}

extern "C" __global__ void __launch_bounds__(MC_BLOCK, 1)
    acsf(const i64 *__restrict__ pair_ptr, const int *__restrict__ neighbor, const real *__restrict__ distance,
         const real *__restrict__ vector, const int *__restrict__ element, double cutoff,
         const real *__restrict__ g2, const real *__restrict__ g45, real *__restrict__ out) {
    __shared__ double store[MC_WARPS];
    const int t = mc_thread();
    const i64 i = blockIdx.x, begin = pair_ptr[i];
    const int n = (int)(pair_ptr[i + 1] - begin);
    const real r_cut = (real)cutoff;
    const i64 width = (i64)SPECIES * (1 + N2) + (i64)SPECIES * (SPECIES + 1) / 2 * ANGULAR;
    real *row = out + i * width;
    for (int a = 0; a < SPECIES; a++)
        for (int f = 0; f <= N2; f++) {
            double sum = 0.0;
            for (int p = t; p < n; p += MC_BLOCK) {
                if (element[neighbor[begin + p]] != a) continue;
                const real r = distance[begin + p];
                real value = mc_cut(r, r_cut);
                if (f > 0) {
                    const real d = r - g2[2 * (f - 1) + 1];
                    value *= exp(-g2[2 * (f - 1)] * d * d);
                }
                sum += value;
            }
            sum = mc_block_sum(sum, store);
            if (t == 0) row[a * (1 + N2) + f] = (real)sum;
        }
#if ANGULAR
    real *target = row + SPECIES * (1 + N2);
    for (int high = 0; high < SPECIES; high++)
        for (int low = 0; low <= high; low++) {
            double sum[ANGULAR];
#pragma unroll
            for (int f = 0; f < ANGULAR; f++) sum[f] = 0.0;
            for (i64 k = t; k < (i64)n * n; k += MC_BLOCK) {
                const i64 p = begin + k / n, q = begin + k % n;
                if (element[neighbor[p]] != high || element[neighbor[q]] != low) continue;
                if (high == low && q >= p) continue;
                const real rp = distance[p], rq = distance[q];
                const real x = vector[3 * q] - vector[3 * p], y = vector[3 * q + 1] - vector[3 * p + 1];
                const real z = vector[3 * q + 2] - vector[3 * p + 2];
                const real far2 = x * x + y * y + z * z, near2 = rp * rp + rq * rq, far = sqrt(far2);
                const real cosine = (near2 - far2) / ((real)2 * rp * rq);
                const real both = mc_cut(rp, r_cut) * mc_cut(rq, r_cut), three = both * mc_cut(far, r_cut);
#pragma unroll
                for (int f = 0; f < ANGULAR; f++) {
                    const real eta = g45[3 * f], zeta = g45[3 * f + 1], lambda = g45[3 * f + 2];
                    real base = (real)0.5 + (real)0.5 * lambda * cosine;
                    // Rounding can take collinear atoms below 0.
                    if (base < 0 && fabs(lambda) <= 1) base = (real)0;
                    const real square = f < N4 ? near2 + far2 : near2;
                    sum[f] += (real)2 * pow(base, zeta) * exp(-eta * square) * (f < N4 ? three : both);
                }
            }
#pragma unroll
            for (int f = 0; f < ANGULAR; f++) {
                const double total = mc_block_sum(sum[f], store);
                if (t == 0) target[f] = (real)total;
            }
            target += ANGULAR;
        }
#endif
}
