// Average of a structure from the parts that its slices have left; one block a pair of species of a structure.
//
// INNER 0: parts are sums of products in rows of SPECIES species. INNER 1: parts are sums of coefficients, which are added
// up for the two species in shared memory and multiplied here.
extern "C" __global__ void __launch_bounds__(MC_BLOCK)
    soap_mean(const i64 *__restrict__ ptr, const i64 *__restrict__ first_slice, const i64 *__restrict__ row_place,
              const int *__restrict__ kinds, const int *__restrict__ n_kinds, const int *__restrict__ n_columns,
              const real *__restrict__ parts, i64 part, const real *__restrict__ l_scale, double cross,
              const int *__restrict__ same_code, int n_same, const int *__restrict__ cross_code, int n_cross,
              real *__restrict__ out) {
    const int structure = (int)blockIdx.x, t = mc_thread();
    int a = 0, b = (int)blockIdx.y;
    while (b >= SPECIES - a) {
        b -= SPECIES - a;
        a++;
    }
    b += a;
    if (b >= n_kinds[structure]) return;
    const int *own = kinds + structure * SPECIES;
    const int size = a == b ? n_same : n_cross;
    const i64 begin = first_slice[structure], end = first_slice[structure + 1];
    const real weight = (real)1 / (real)(ptr[structure + 1] - ptr[structure]);
    real *target = out + row_place[structure] + mc_block_place(own[a], own[b], n_columns[structure], n_same, n_cross);
#if INNER
    __shared__ real c[2 * N_C];
    for (int e = t; e < N_C; e += MC_BLOCK) {
        real one = (real)0, other = (real)0;
        for (i64 s = begin; s < end; s++) {
            one += parts[s * part + a * N_C + e];
            other += parts[s * part + b * N_C + e];
        }
        c[e] = one;
        c[N_C + e] = other;
    }
    __syncthreads();
    mc_products(c, 0, 1, a == b ? same_code : cross_code, size, l_scale,
                weight * weight * (a == b ? (real)1 : (real)cross), false, target);
#else
    const i64 place = mc_block_place(a, b, SPECIES, n_same, n_cross);
    for (int f = t; f < size; f += MC_BLOCK) {
        real sum = (real)0;
        for (i64 s = begin; s < end; s++) sum += parts[s * part + place + f];
        target[f] = sum * weight;
    }
#endif
}
