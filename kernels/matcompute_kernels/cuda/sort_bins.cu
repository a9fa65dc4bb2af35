// The sites of each bin in rising order, with their wrapped positions; one thread a place. The same in every run.
extern "C" __global__ void __launch_bounds__(MC_BLOCK)
    sort_bins(const int *__restrict__ bin, const i64 *__restrict__ bin_start, const int *__restrict__ placed,
              const real *__restrict__ wrapped, int n_sites, int *__restrict__ site, real *__restrict__ sorted) {
    const int p = (int)(blockIdx.x * MC_BLOCK + threadIdx.x);
    if (p >= n_sites) return;
    const int i = placed[p];
    const i64 begin = bin_start[bin[i]], end = bin_start[bin[i] + 1];
    i64 to = begin;
    for (i64 k = begin; k < end; k++) to += placed[k] < i;
    site[to] = i;
    for (int c = 0; c < 3; c++) sorted[3 * to + c] = wrapped[3 * (i64)i + c];
}
