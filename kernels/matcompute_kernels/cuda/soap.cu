// SOAP coefficients of sites and their products; one block a slice of a structure's sites.
//
// Neighbours are taken CHUNK at a time: their harmonics and radial functions are staged in shared memory, then every
// thread adds them to the coefficients that it owns. WHAT 0: a slice is one site, its products go to its row at
// row_place[slice], all blocks or (SPARSE 1) those of the species it has near it. WHAT 1: the products of a slice's
// sites are summed up in a row of the structure's own species, a part of its average. WHAT 2: the coefficients are.
// So the rows of sites are never stored for an average, and a large structure keeps many blocks busy.
#define CHUNK 8
#define N_LN ((L_MAX + 1) * N_MAX)
#define N_SIDE ((L_MAX + 1) * (L_MAX + 1))

extern "C" __global__ void __launch_bounds__(MC_BLOCK, 1)
    soap(const i64 *__restrict__ slice_ptr, const i64 *__restrict__ row_place, const int *__restrict__ owner,
         const int *__restrict__ kinds, int n_species, const i64 *__restrict__ pair_ptr,
         const int *__restrict__ neighbor, const real *__restrict__ distance, const real *__restrict__ vector,
         const int *__restrict__ channel, const real *__restrict__ pieces, int intervals, double scale,
         const real *__restrict__ centre, const real *__restrict__ recurrence, const real *__restrict__ l_scale,
         double cross, const int *__restrict__ same_code, int n_same, const int *__restrict__ cross_code, int n_cross,
         real *__restrict__ out) {
    __shared__ real c[SPECIES * N_C], y[CHUNK * N_LM], radial[CHUNK * N_LN];
    __shared__ int who[CHUNK], present[SPECIES];
    const int t = mc_thread();
    const i64 slice = blockIdx.x, begin = slice_ptr[slice], end = slice_ptr[slice + 1];
    real *row = out + row_place[slice];
    for (i64 i = begin; i < end; i++) {
        if (WHAT != 2 || i == begin) {
            for (int e = t; e < N_C; e += MC_BLOCK)
                for (int s = 0; s < SPECIES; s++) c[s * N_C + e] = (real)0;
            if (t == 0)
                for (int s = 0; s < SPECIES; s++) present[s] = 0;
        }
        // The atom itself: entries (lm = 0, n) are e = n.
        for (int e = t; e < N_MAX; e += MC_BLOCK) c[channel[i] * N_C + e] += centre[e];
        if (t == 0) present[channel[i]] = 1;
        for (i64 p = pair_ptr[i]; p < pair_ptr[i + 1]; p += CHUNK) {
            const int count = (int)min((i64)CHUNK, pair_ptr[i + 1] - p);
            for (int k = t; k < count * (L_MAX + 1); k += MC_BLOCK) {
                const int q = k / (L_MAX + 1), m = k % (L_MAX + 1);
                const real inverse = (real)1 / distance[p + q];
                const real u = vector[3 * (p + q)] * inverse, v = vector[3 * (p + q) + 1] * inverse;
                const real w = vector[3 * (p + q) + 2] * inverse;
                real cosine = (real)1, sine = (real)0;
                for (int n = 0; n < m; n++) {
                    const real turned = u * cosine - v * sine;
                    sine = u * sine + v * cosine;
                    cosine = turned;
                }
                real before = (real)0, now = recurrence[2 * N_SIDE + m * (L_MAX + 1) + m];
                for (int l = m; l <= L_MAX; l++) {
                    if (l > m) {
                        const real a = recurrence[l * (L_MAX + 1) + m], b = recurrence[N_SIDE + l * (L_MAX + 1) + m];
                        const real after = a * w * now - b * before;
                        before = now;
                        now = after;
                    }
                    y[q * N_LM + l * l + l + m] = now * cosine;
                    if (m > 0) y[q * N_LM + l * l + l - m] = now * sine;
                }
            }
            for (int k = t; k < count * N_LN; k += MC_BLOCK) {
                const int q = k / N_LN, f = k % N_LN;
                const real u = distance[p + q] * (real)scale;
                const int piece = min((int)u, intervals - 1);
                const real x = (real)2 * (u - (real)piece) - (real)1;
                const real *a = pieces + (i64)piece * TERMS * N_LN + f;
                real value = a[0];
                for (int d = 1; d < TERMS; d++) value = value * x + a[d * N_LN];
                radial[q * N_LN + f] = value;
            }
            if (t < count) who[t] = channel[neighbor[p + t]];
            __syncthreads();
            for (int e = t; e < N_C; e += MC_BLOCK) {
                const int lm = e / N_MAX, n = e % N_MAX;
                int l = 0;
                while ((l + 1) * (l + 1) <= lm) l++;
                for (int q = 0; q < count; q++)
                    c[who[q] * N_C + e] += y[q * N_LM + lm] * radial[q * N_LN + l * N_MAX + n];
            }
            if (t == 0)
                for (int q = 0; q < count; q++) present[who[q]] = 1;
            __syncthreads();
        }
        if (WHAT == 2) continue;
        __syncthreads();
        i64 next = 0;
        for (int a = 0; a < SPECIES; a++)
            for (int b = a; b < SPECIES; b++) {
                if (!present[a] || !present[b]) continue;
                const int size = a == b ? n_same : n_cross;
                const int *own = kinds + owner[i] * SPECIES;
                const i64 place = SPARSE ? next : mc_block_place(own[a], own[b], n_species, n_same, n_cross);
                mc_products(c, a, b, a == b ? same_code : cross_code, size, l_scale,
                            a == b ? (real)1 : (real)cross, WHAT == 1, row + place);
                next += size;
            }
        __syncthreads();
    }
#if WHAT == 2
    for (int e = t; e < N_C; e += MC_BLOCK)
        for (int s = 0; s < SPECIES; s++) row[s * N_C + e] = c[s * N_C + e];
#endif
}
