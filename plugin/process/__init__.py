"""The control process as a process: its life, its user, its directory, its service manager."""
