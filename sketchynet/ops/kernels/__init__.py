"""Triton kernels of the operators, one module an operator; imported only where they run."""
