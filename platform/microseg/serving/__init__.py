"""The registered model and the ways to use it: batch prediction, REST and notebooks, one code path."""
