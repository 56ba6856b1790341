"""Arrays in, values out: everything between a frame and an expression event, without I/O, threads or clocks."""
