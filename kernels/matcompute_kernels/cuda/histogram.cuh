// One distance into a histogram in shared memory.
//
// edges[BINS + 1], evenly spaced from 0, `scale` one over their distance; a distance within `tolerance` below an edge is on it.
__device__ inline void mc_count(double d, double r_cut, double tolerance, double scale,
                                const double *__restrict__ edges, unsigned *bins) {
    if (!(d < r_cut + tolerance)) return;
    const double moved = d + tolerance;
    int b = min((int)(moved * scale), BINS - 1);
    if (moved < edges[b])
        b--;
    else if (b + 1 < BINS && moved >= edges[b + 1])
        b++;
    atomicAdd(&bins[b], 1u);
}
