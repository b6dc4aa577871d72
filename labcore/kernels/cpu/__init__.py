"""CPU kernels in C, compiled on first use with the C compiler that is there; without one, callers take torch's way."""
