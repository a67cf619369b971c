"""Triton kernels for the steps between the matrix products: one launch forward, one backward, float32 inside.

`ops` chooses them on a GPU, `formulas` has what each computes, and the tests hold the two together. torch.compile made
kernels as fast from those formulas, but took 27 s to do so (measured, H200), more than half of a typical training.
"""
