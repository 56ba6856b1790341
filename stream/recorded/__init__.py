"""Recorded videos: their analysis, and the files that it writes."""
