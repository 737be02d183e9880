"""Facts about a program: degrees, affine forms, Gaussian families. Edits nothing."""
