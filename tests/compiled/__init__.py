"""The compiled form of a worker's modules does what their sources do."""
