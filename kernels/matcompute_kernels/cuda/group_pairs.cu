// The pairs of each site ordered by the element of the neighbour, with their cutoff function; one warp a site.
//
// A vote tells each lane where it writes: the order within an element stays. ends[site · SPECIES + element] is the place
// after the element's last pair.
extern "C" __global__ void __launch_bounds__(MC_BLOCK)
    group_pairs(const i64 *__restrict__ pair_ptr, const int *__restrict__ neighbor, const real *__restrict__ distance,
                const real *__restrict__ vector, const int *__restrict__ element, int n_sites, double r_cut,
                i64 *__restrict__ ends, real *__restrict__ grouped, real *__restrict__ grouped_vector,
                real *__restrict__ cutoff) {
    const int lane = mc_thread() % MC_WARP;
    const i64 i = (i64)blockIdx.x * MC_WARPS + mc_thread() / MC_WARP;
    if (i >= n_sites) return;  // the whole warp
    const i64 end = pair_ptr[i + 1];
    i64 written = pair_ptr[i];
    for (int s = 0; s < SPECIES; s++) {
        for (i64 begin = pair_ptr[i]; begin < end; begin += MC_WARP) {
            const i64 p = begin + lane;
            const bool mine = p < end && element[neighbor[p < end ? p : begin]] == s;
            const unsigned long long voted = MC_BALLOT(mine);
            if (mine) {
                const i64 to = written + __popcll(voted & ((1ull << lane) - 1));
                grouped[to] = distance[p];
                for (int k = 0; k < 3; k++) grouped_vector[3 * to + k] = vector[3 * p + k];
                cutoff[to] = (real)0.5 * ((real)1 + cospi(distance[p] / (real)r_cut));
            }
            written += __popcll(voted);
        }
        if (lane == 0) ends[i * SPECIES + s] = written;
    }
}
