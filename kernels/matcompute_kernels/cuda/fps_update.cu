// Squared distances to the nearest pick after pick number `pick`, and each block's farthest row; one warp a row.
//
// nearest[n] starts at +1e300 and is -1 for a row that was picked. A block takes ROWS rows.
#define ROWS 64

extern "C" __global__ void __launch_bounds__(MC_BLOCK)
    fps_update(const real *__restrict__ x, int n, int width, const i64 *__restrict__ picks, int pick,
               double *__restrict__ nearest, double *__restrict__ best_value, i64 *__restrict__ best_row) {
    __shared__ Best store[MC_WARPS];
    const int t = mc_thread(), lane = t % MC_WARP;
    const i64 chosen = picks[pick];
    const real *centre = x + chosen * width;
    Best best = {-2.0, (i64)1 << 62};
    const int begin = (int)blockIdx.x * ROWS, end = min(begin + ROWS, n);
    for (int row = begin + t / MC_WARP; row < end; row += MC_WARPS) {
        double sum = 0.0;
        for (int k = lane; k < width; k += MC_WARP) {
            const double d = (double)x[(i64)row * width + k] - (double)centre[k];
            sum += d * d;
        }
        sum = mc_warp_sum(sum);
        if (lane == 0) {
            const double before = nearest[row];
            const double now = row == chosen ? -1.0 : (sum < before ? sum : before);
            nearest[row] = now;
            if (mc_better(now, row, best)) {
                best.value = now;
                best.place = row;
            }
        }
    }
    best = mc_block_best(best, store);
    if (t == 0) {
        best_value[blockIdx.x] = best.value;
        best_row[blockIdx.x] = best.place;
    }
}
