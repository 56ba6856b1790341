"""Fitting the same network to several folds at once, on one device: parameters stacked, a step captured as a CUDA graph."""
