"""Fitting and judging networks: data sets, folds, scores, export."""
