"""Kernels written in this book: each beside the plain-torch specification it is tested against."""
