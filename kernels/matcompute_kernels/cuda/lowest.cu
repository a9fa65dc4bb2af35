// The K lowest of each row of scores, rising, of equals the lower column first; one block a row.
//
// Each thread keeps the K lowest of its columns in registers; then K times the lowest of all fronts is taken.
// `skip`: column to leave out is skip + row (below 0: none).
#define MC_FAR 1e300

extern "C" __global__ void __launch_bounds__(MC_BLOCK)
    lowest(const real *__restrict__ scores, int m, i64 skip, double *__restrict__ value, i64 *__restrict__ column) {
    __shared__ Best store[MC_WARPS];
    __shared__ i64 taken;
    const i64 row = blockIdx.x;
    const int t = mc_thread();
    const i64 left_out = skip < 0 ? -1 : skip + row;
    double low[K];
    i64 name[K];
    for (int k = 0; k < K; k++) {
        low[k] = MC_FAR;
        name[k] = (i64)1 << 62;
    }
    for (int j = t; j < m; j += MC_BLOCK) {
        double score = scores[row * m + j];
        i64 who = j;
        if (j == left_out || score >= low[K - 1]) continue;
        // Sorted in by carrying the higher one on: no index depends on data, so the lists stay in registers.
        for (int k = 0; k < K; k++)
            if (score < low[k]) {
                const double a = low[k];
                const i64 b = name[k];
                low[k] = score;
                name[k] = who;
                score = a;
                who = b;
            }
    }
    for (int k = 0; k < K; k++) {
        const Best front = {-low[0], name[0]};
        const Best best = mc_block_best(front, store);
        if (t == 0) {
            value[row * K + k] = -best.value;
            column[row * K + k] = best.place;
            taken = best.place;
        }
        __syncthreads();
        if (name[0] == taken) {
            for (int q = 0; q + 1 < K; q++) {
                low[q] = low[q + 1];
                name[q] = name[q + 1];
            }
            low[K - 1] = MC_FAR;
            name[K - 1] = (i64)1 << 62;
        }
    }
}
