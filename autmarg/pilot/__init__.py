"""Short runs of NUTS that measure a program: the chain, its effective size, and the comparison."""
