"""The fast paths, a room each: ``shared`` by all backends (packing, the sampler's table, noise, the
analytic gradient), ``fused``, the Triton kernel, and ``cpu``, oneDNN with C loops. Imports torch and
triton alone; everything else of the project sits above."""
