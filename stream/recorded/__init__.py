"""Recorded videos: analysed start to end, and the files that the analysis leaves."""
