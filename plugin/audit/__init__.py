"""What the control process writes to the audit log: policy that changed, reloads, and who asked for what."""
