"""Many recorded videos: found in folders, made into tasks, analysed, recorded as done, and summarized in a table."""
