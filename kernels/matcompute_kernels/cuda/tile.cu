// A tile of similarities or distances between rows of two matrices; 16 × 16 threads, each 2 × 2 results.
//
// KIND 0: x·y; 1: (γ x·y + c)^degree; 2: exp(-γ Σ|x - y|); 3: exp(-γ |x - y|²); 4: |x - y|²; 5: Σ|x - y|. Rows are staged
// in shared memory 16 columns at a time; sums are in double.
#define SIDE 32
#define DEEP 16

extern "C" __global__ void __launch_bounds__(MC_BLOCK)
    tile(const real *__restrict__ x, const real *__restrict__ y, int n, int m, int width, double gamma, double degree,
         double coef0, real *__restrict__ out) {
    __shared__ real xs[SIDE][DEEP + 1], ys[SIDE][DEEP + 1];
    const int t = mc_thread(), u = (int)threadIdx.x, v = (int)threadIdx.y;
    const int first = (int)blockIdx.y * SIDE, second = (int)blockIdx.x * SIDE;
    double sum[2][2] = {{0.0, 0.0}, {0.0, 0.0}};
    for (int begin = 0; begin < width; begin += DEEP) {
        for (int k = t; k < SIDE * DEEP; k += MC_BLOCK) {
            const int row = k / DEEP, column = begin + k % DEEP;
            const bool inside = column < width;
            xs[row][k % DEEP] = inside && first + row < n ? x[(i64)(first + row) * width + column] : (real)0;
            ys[row][k % DEEP] = inside && second + row < m ? y[(i64)(second + row) * width + column] : (real)0;
        }
        __syncthreads();
        for (int k = 0; k < DEEP; k++)
            for (int p = 0; p < 2; p++)
                for (int q = 0; q < 2; q++) {
                    const double a = xs[v + 16 * p][k], b = ys[u + 16 * q][k];
#if KIND <= 1
                    sum[p][q] += a * b;
#elif KIND == 2 || KIND == 5
                    sum[p][q] += fabs(a - b);
#else
                    sum[p][q] += (a - b) * (a - b);
#endif
                }
        __syncthreads();
    }
    for (int p = 0; p < 2; p++)
        for (int q = 0; q < 2; q++) {
            const int i = first + v + 16 * p, j = second + u + 16 * q;
            if (i >= n || j >= m) continue;
            double value = sum[p][q];
#if KIND == 1
            value = gamma * value + coef0;
            if (degree == floor(degree) && degree <= 16) {
                const double base = value;
                for (int d = 1; d < (int)degree; d++) value *= base;
            } else {
                value = pow(value, degree);
            }
#elif KIND == 2 || KIND == 3
            value = exp(-gamma * value);
#endif
            out[(i64)i * m + j] = (real)value;
        }
}
