// The images of a neighbour that can be near a centre; shared by the kernels that look for pairs.

struct Images {
    real x, y, z;  // neighbour - centre without the image along vector 0
    int from, to;  // images along vector 0
};

__device__ inline Images mc_images(const real *__restrict__ wrapped, const real *__restrict__ fraction, i64 i, i64 j,
                                   int n1, int n2, const real *a, const real *range) {
    Images m;
    m.from = 0;
    m.to = -1;
    const real f0 = fraction[3 * j] - fraction[3 * i];
    const real f1 = fraction[3 * j + 1] - fraction[3 * i + 1] + (real)n1;
    const real f2 = fraction[3 * j + 2] - fraction[3 * i + 2] + (real)n2;
    // range: r_cut over the distance of lattice planes; below 0 where the vector is not periodic.
    const bool far = (range[1] >= 0 && fabs(f1) > range[1]) || (range[2] >= 0 && fabs(f2) > range[2]);
    m.x = wrapped[3 * j] - wrapped[3 * i] + (real)n1 * a[3] + (real)n2 * a[6];
    m.y = wrapped[3 * j + 1] - wrapped[3 * i + 1] + (real)n1 * a[4] + (real)n2 * a[7];
    m.z = wrapped[3 * j + 2] - wrapped[3 * i + 2] + (real)n1 * a[5] + (real)n2 * a[8];
    if (!far) {
        m.from = range[0] >= 0 ? (int)ceil(-range[0] - f0) : 0;
        m.to = range[0] >= 0 ? (int)floor(range[0] - f0) : 0;
    }
    return m;
}

// Ranges of a structure: lattice vectors, fractional reach (below 0: not periodic) and images along vectors 1 and 2.
struct Reach {
    real a[9], range[3];
    int images[3];
};

__device__ inline Reach mc_reach(const double *__restrict__ cell, const real *__restrict__ planes, int structure,
                                 real r_cut) {
    Reach s;
    for (int k = 0; k < 9; k++) s.a[k] = (real)cell[9 * (i64)structure + k];
    for (int k = 0; k < 3; k++) {
        const real inverse = planes[3 * (i64)structure + k];
        // A little more than needed: the distance decides.
        s.range[k] = inverse > 0 ? r_cut * inverse * (real)1.0001 + (real)1e-4 : (real)-1;
        s.images[k] = inverse > 0 ? (int)ceil(s.range[k]) + 1 : 0;
    }
    return s;
}
