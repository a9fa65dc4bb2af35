// Sites into the cell along the periodic vectors; one thread a site.
//
// dual[structure, k] · r is the fractional coordinate along vector k (a row of zeros: not periodic).
extern "C" __global__ void __launch_bounds__(MC_BLOCK)
    wrap_sites(const double *__restrict__ positions, const int *__restrict__ owner, const double *__restrict__ cell,
               const double *__restrict__ dual, int n_sites, real *__restrict__ wrapped, real *__restrict__ fraction,
               int *__restrict__ wraps) {
    const int i = (int)(blockIdx.x * MC_BLOCK + threadIdx.x);
    if (i >= n_sites) return;
    const double *a = cell + 9 * (i64)owner[i], *d = dual + 9 * (i64)owner[i];
    const double *given = positions + 3 * (i64)i;
    double r[3] = {given[0], given[1], given[2]};
    for (int k = 0; k < 3; k++) {
        double f = d[3 * k] * given[0] + d[3 * k + 1] * given[1] + d[3 * k + 2] * given[2];
        double n = floor(f);
        for (int c = 0; c < 3; c++) r[c] -= n * a[3 * k + c];
        fraction[3 * (i64)i + k] = (real)(f - n);
        wraps[3 * (i64)i + k] = (int)n;
    }
    for (int c = 0; c < 3; c++) wrapped[3 * (i64)i + c] = (real)r[c];
}
