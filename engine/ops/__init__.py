"""Numerical operators: TV-L1 optical flow and optical strain."""
