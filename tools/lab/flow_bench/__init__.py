"""Speed and accuracy of optical flow, beside OpenCV's.

cases.py     pictures with known motion
compare.py   both solvers over the cases, one pair after the other
batch.py     a batch on a GPU
"""
