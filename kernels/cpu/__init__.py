"""The CPU path: oneDNN's packed products, and between them ATen's operators or C loops."""
