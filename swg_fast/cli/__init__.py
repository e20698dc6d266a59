"""The command line. Every command is a thin layer over a function of the package."""
