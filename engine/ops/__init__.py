"""Numerical operators, each behind one checked front: `engine.ops.tvl1.tvl1` (flow) and `engine.ops.strain.strain`."""
