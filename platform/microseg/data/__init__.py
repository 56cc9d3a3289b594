"""Data sets: manifests, dataset formats, reading and writing images, checks, and the training pipeline."""
