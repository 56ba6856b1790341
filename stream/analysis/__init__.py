"""Live analysis: one worker per source, on threads of the service or in worker processes under a supervisor."""
