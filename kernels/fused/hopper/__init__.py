"""The kernels in Gluon for Hopper (sm_90): two tiles a program, weights streamed by a producer warp."""
