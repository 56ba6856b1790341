"""Where frames come from: recorded files, cameras, network streams; with the source's own time."""
