"""The tests. A package, so that workers of Dask and MPI find it before a package of that name that others install."""
