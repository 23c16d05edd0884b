"""What should be. Pure functions: facts in, values out; no I/O, no clock, no logging."""
