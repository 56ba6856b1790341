"""Long videos in parts that overlap: analysed one by one, anywhere, and joined to the results of the whole."""
