// Atom-centred symmetry functions G1, G2, G4 and G5; one block a site.
//
// Pairs come ordered by element (group_pairs). G1 and G2: a warp takes a function, its lanes the neighbours. G4 and G5:
// a thread takes a pair of neighbours and adds it to all functions; for each pair of elements these are summed over the
// block at once, in a fixed order. Nothing is tested for its element. N2, N4, N5: functions; columns as on the CPU.
#define ANGULAR (N4 + N5)

extern "C" __global__ void __launch_bounds__(MC_BLOCK, 1)
    acsf(const i64 *__restrict__ pair_ptr, const i64 *__restrict__ ends, const real *__restrict__ distance,
         const real *__restrict__ vector, const real *__restrict__ cutoff, double r_cut, const real *__restrict__ g2,
         const real *__restrict__ g45, real *__restrict__ out) {
    const int t = mc_thread(), lane = t % MC_WARP, warp = t / MC_WARP;
    const i64 i = blockIdx.x;
    const i64 width = (i64)SPECIES * (1 + N2) + (i64)SPECIES * (SPECIES + 1) / 2 * ANGULAR;
    real *row = out + i * width;
    for (int a = 0; a < SPECIES; a++) {
        const i64 begin = a ? ends[i * SPECIES + a - 1] : pair_ptr[i], end = ends[i * SPECIES + a];
        for (int f = warp; f <= N2; f += MC_WARPS) {
            const real eta = f ? g2[2 * (f - 1)] : (real)0, centre = f ? g2[2 * (f - 1) + 1] : (real)0;
            double sum = 0.0;
            for (i64 p = begin + lane; p < end; p += MC_WARP) {
                const real d = distance[p] - centre;
                sum += cutoff[p] * exp(-eta * d * d);
            }
            sum = mc_warp_sum(sum);
            if (lane == 0) row[a * (1 + N2) + f] = (real)sum;
        }
    }
#if ANGULAR
    __shared__ double store[ANGULAR * MC_WARPS];
    __shared__ real staged[3 * ANGULAR];
    for (int k = t; k < 3 * ANGULAR; k += MC_BLOCK) staged[k] = g45[k];
    __syncthreads();
    // Volatile: read for each pair of neighbours, since in registers they would leave room for half the warps.
    const volatile real *parameters = staged;
    const real reach = (real)r_cut;
    real *target = row + SPECIES * (1 + N2);
    for (int high = 0; high < SPECIES; high++)
        for (int low = 0; low <= high; low++) {
            const i64 one = high ? ends[i * SPECIES + high - 1] : pair_ptr[i];
            const i64 other = low ? ends[i * SPECIES + low - 1] : pair_ptr[i];
            const i64 n_one = ends[i * SPECIES + high] - one, n_other = ends[i * SPECIES + low] - other;
            const i64 count = high == low ? n_one * (n_one - 1) / 2 : n_one * n_other;
            double sum[ANGULAR];
#pragma unroll
            for (int f = 0; f < ANGULAR; f++) sum[f] = 0.0;
            for (i64 k = t; k < count; k += MC_BLOCK) {
                i64 p, q;
                if (high == low) {  // the triangle q < p by rows
                    p = (i64)((1.0 + sqrt(1.0 + 8.0 * (double)k)) / 2.0);
                    if (p * (p - 1) / 2 > k) p--;
                    q = k - p * (p - 1) / 2;
                } else {
                    p = k / n_other;
                    q = k % n_other;
                }
                p += one;
                q += other;
                const real rp = distance[p], rq = distance[q];
                const real x = vector[3 * q] - vector[3 * p], y = vector[3 * q + 1] - vector[3 * p + 1];
                const real z = vector[3 * q + 2] - vector[3 * p + 2];
                const real far2 = x * x + y * y + z * z, near2 = rp * rp + rq * rq, far = sqrt(far2);
                const real cosine = (near2 - far2) / ((real)2 * rp * rq);
                const real both = cutoff[p] * cutoff[q];
                const real three = far < reach ? both * (real)0.5 * ((real)1 + cospi(far / reach)) : (real)0;
#pragma unroll
                for (int f = 0; f < ANGULAR; f++) {
                    const real eta = parameters[3 * f], zeta = parameters[3 * f + 1], lambda = parameters[3 * f + 2];
                    real base = (real)0.5 + (real)0.5 * lambda * cosine;
                    // Rounding can take collinear atoms below 0.
                    if (base < 0 && fabs(lambda) <= 1) base = (real)0;
                    const real square = f < N4 ? near2 + far2 : near2;
                    sum[f] += (real)2 * pow(base, zeta) * exp(-eta * square) * (f < N4 ? three : both);
                }
            }
#pragma unroll
            for (int f = 0; f < ANGULAR; f++) {
                const double total = mc_warp_sum(sum[f]);
                if (lane == 0) store[f * MC_WARPS + warp] = total;
            }
            __syncthreads();
            for (int f = t; f < ANGULAR; f += MC_BLOCK) {
                double total = 0.0;
                for (int w = 0; w < MC_WARPS; w++) total += store[f * MC_WARPS + w];
                target[f] = (real)total;
            }
            __syncthreads();
            target += ANGULAR;
        }
#endif
}
