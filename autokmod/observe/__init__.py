"""What is on this machine. Reads, never writes."""
