"""Analysis of the kernels' machine code without a GPU: listings, traffic, and a static model of their time.
"""
