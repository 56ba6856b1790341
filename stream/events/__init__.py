"""Events once they are found: stored, queried, kept for a time, exported, and sent to who subscribes."""
