"""The hub of a fleet: one page, websocket and store for the events of many nodes, read from Redis Streams."""
