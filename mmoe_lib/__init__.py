"""Multi-gate Mixture-of-Experts, rerun: the library of the book."""
