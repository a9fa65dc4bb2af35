// What the SOAP kernels share: places of the blocks of species pairs, and the products of the coefficients.
//
// A structure's own species are numbered 0 … SPECIES - 1 (`kinds` gives their numbers among n_species): shared memory and
// products are those of the species that a structure has, however many there are in all.
#define N_LM ((L_MAX + 1) * (L_MAX + 1))
#define N_C (N_LM * N_MAX)

// Column where the block of species a ≤ b of n begins.
__device__ inline i64 mc_block_place(int a, int b, int n, int n_same, int n_cross) {
    const i64 before = (i64)a * n - (i64)a * (a - 1) / 2 + (b - a), same = a + (b > a);
    return same * n_same + (before - same) * n_cross;
}

// One block of products of coefficients c[SPECIES · N_C], over the threads: target[f] = Σ_m c c' · l_scale · factor.
__device__ inline void mc_products(const real *c, int a, int b, const int *__restrict__ code, int size,
                                   const real *__restrict__ l_scale, real factor, bool add, real *target) {
    for (int f = mc_thread(); f < size; f += MC_BLOCK) {
        const int l = code[f] & 255, n1 = code[f] >> 8 & 255, n2 = code[f] >> 16;
        real sum = (real)0;
        for (int lm = l * l; lm < (l + 1) * (l + 1); lm++) sum += c[a * N_C + lm * N_MAX + n1] * c[b * N_C + lm * N_MAX + n2];
        const real value = sum * l_scale[l] * factor;
        target[f] = add ? target[f] + value : value;
    }
}
