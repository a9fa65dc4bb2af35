// The bin of each site, and how many sites a bin has; one thread a site.
//
// dual[structure, k] · (r, 1) is the fractional coordinate along vector k; `wraps` puts it into 0 … 1 where the vector
// is periodic, the offset dual[structure, k, 3] where it is not. The wraps are those of the positions that are searched:
// a site at the cell's edge is in the bin of the side that it was wrapped to.
extern "C" __global__ void __launch_bounds__(MC_BLOCK)
    bin_sites(const double *__restrict__ positions, const int *__restrict__ wraps, const int *__restrict__ owner,
              const double *__restrict__ dual, const int *__restrict__ grid, const i64 *__restrict__ bin_first,
              int n_sites, int *__restrict__ bin, int *__restrict__ count) {
    const int i = (int)(blockIdx.x * MC_BLOCK + threadIdx.x);
    if (i >= n_sites) return;
    const double *d = dual + 12 * (i64)owner[i], *r = positions + 3 * (i64)i;
    const int *bins = grid + 9 * (i64)owner[i];
    int b[3];
    for (int k = 0; k < 3; k++) {
        const double f = d[4 * k] * r[0] + d[4 * k + 1] * r[1] + d[4 * k + 2] * r[2] + d[4 * k + 3];
        b[k] = max(min((int)((f - wraps[3 * (i64)i + k]) * bins[k]), bins[k] - 1), 0);
    }
    const int mine = (int)bin_first[owner[i]] + (b[2] * bins[1] + b[1]) * bins[0] + b[0];
    bin[i] = mine;
    atomicAdd(&count[mine], 1);
}
