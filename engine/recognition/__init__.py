"""Onset and apex to a class: flow map, network input, and how sure the answer is."""
