// The species that a site has near it, itself included, as bits; one warp a site.
extern "C" __global__ void __launch_bounds__(MC_BLOCK)
    soap_species(const i64 *__restrict__ pair_ptr, const int *__restrict__ neighbor, const int *__restrict__ channel,
                 int n_sites, int *__restrict__ bits) {
    const int lane = mc_thread() % MC_WARP, i = (int)blockIdx.x * MC_WARPS + mc_thread() / MC_WARP;
    if (i >= n_sites) return;  // the whole warp
    int mine = 1 << channel[i];
    for (i64 p = pair_ptr[i] + lane; p < pair_ptr[i + 1]; p += MC_WARP) mine |= 1 << channel[neighbor[p]];
    for (int d = MC_WARP / 2; d > 0; d /= 2) mine |= MC_DOWN(mine, d);
    if (lane == 0) bits[i] = mine;
}
