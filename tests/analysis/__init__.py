"""The kernels' machine code, looked at without a GPU: listings, traffic, and a static model of their time."""
