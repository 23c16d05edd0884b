"""The queue, the job tokens, and the engine that takes a kernel from observed to right."""
