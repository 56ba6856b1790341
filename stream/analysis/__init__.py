"""Live analysis: one worker a source, in threads or in processes that a supervisor looks after."""
