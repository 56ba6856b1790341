"""The live service and the analysis of recorded videos: everything with files, network connections, threads or clocks."""
