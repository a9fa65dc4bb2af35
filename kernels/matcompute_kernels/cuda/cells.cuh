// Sites sorted into bins of a grid along the lattice vectors; shared by the kernels that search it.
//
// grid[9 · structure]: bins, bins that the cutoff reaches, and whether periodic, each along the three vectors. A run is
// what is contiguous in memory: bins that follow each other along vector 0, in one image of the cell.

struct Grid {
    int bins[3], reach[3], periodic[3];
    int at[3];         // bin of the centre
    int image, images; // images along vector 0 that the centre reaches: the first, and how many
    int runs;
    i64 first;         // bin 0 of the structure
};

struct Run {
    int begin, end;  // places in the sorted arrays
    int n0, n1, n2;  // image
};

__device__ inline int mc_floor_div(int a, int b) { return a >= 0 ? a / b : -((b - 1 - a) / b); }

__device__ inline Grid mc_grid(const int *__restrict__ grid, const i64 *__restrict__ bin_first, int structure, int bin) {
    Grid g;
    for (int k = 0; k < 3; k++) {
        g.bins[k] = grid[9 * (i64)structure + k];
        g.reach[k] = grid[9 * (i64)structure + 3 + k];
        g.periodic[k] = grid[9 * (i64)structure + 6 + k];
    }
    g.first = bin_first[structure];
    const int local = (int)(bin - g.first);
    g.at[0] = local % g.bins[0];
    g.at[1] = local / g.bins[0] % g.bins[1];
    g.at[2] = local / g.bins[0] / g.bins[1];
    g.image = g.periodic[0] ? mc_floor_div(g.at[0] - g.reach[0], g.bins[0]) : 0;
    g.images = (g.periodic[0] ? mc_floor_div(g.at[0] + g.reach[0], g.bins[0]) : 0) - g.image + 1;
    g.runs = g.images * (2 * g.reach[1] + 1) * (2 * g.reach[2] + 1);
    return g;
}

__device__ inline Run mc_run(const Grid &g, const i64 *__restrict__ bin_start, int number) {
    Run r;
    r.begin = r.end = 0;
    r.n0 = g.image + number % g.images;
    const int q = number / g.images, w = 2 * g.reach[1] + 1;
    const int b1 = g.at[1] + q % w - g.reach[1], b2 = g.at[2] + q / w - g.reach[2];
    r.n1 = mc_floor_div(b1, g.bins[1]);
    r.n2 = mc_floor_div(b2, g.bins[2]);
    if ((g.periodic[1] || r.n1 == 0) && (g.periodic[2] || r.n2 == 0)) {
        const i64 row = g.first + ((i64)(b2 - r.n2 * g.bins[2]) * g.bins[1] + (b1 - r.n1 * g.bins[1])) * g.bins[0];
        const int low = max(g.at[0] - g.reach[0] - r.n0 * g.bins[0], 0);
        const int high = min(g.at[0] + g.reach[0] - r.n0 * g.bins[0], g.bins[0] - 1);
        r.begin = (int)bin_start[row + low];
        r.end = (int)bin_start[row + high + 1];
    }
    return r;
}
