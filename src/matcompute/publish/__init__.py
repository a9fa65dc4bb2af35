"""Publication: signed, immutable versions of datasets in an OCFL store."""
