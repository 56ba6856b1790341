"""The one port of the live service: connections and their limits, HTTP routes, websockets, access."""
