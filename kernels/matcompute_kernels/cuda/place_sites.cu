// Each site to a place of its bin, in whatever order the threads come; one thread a site. Leaves count at zero.
extern "C" __global__ void __launch_bounds__(MC_BLOCK)
    place_sites(const int *__restrict__ bin, const i64 *__restrict__ bin_start, int n_sites, int *__restrict__ count,
                int *__restrict__ placed) {
    const int i = (int)(blockIdx.x * MC_BLOCK + threadIdx.x);
    if (i >= n_sites) return;
    placed[bin_start[bin[i]] + atomicAdd(&count[bin[i]], -1) - 1] = i;
}
