// The farthest row of all blocks of fps_update becomes pick number `pick`; one block.
extern "C" __global__ void __launch_bounds__(MC_BLOCK)
    fps_pick(const double *__restrict__ best_value, const i64 *__restrict__ best_row, int n_blocks, int pick,
             i64 *__restrict__ picks) {
    __shared__ Best store[MC_WARPS];
    const int t = mc_thread();
    Best best = {-3.0, (i64)1 << 62};
    for (int b = t; b < n_blocks; b += MC_BLOCK)
        if (mc_better(best_value[b], best_row[b], best)) {
            best.value = best_value[b];
            best.place = best_row[b];
        }
    best = mc_block_best(best, store);
    if (t == 0) picks[pick] = best.place;
}
