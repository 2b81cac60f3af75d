"""The dashboard: one page on the admin port, and the stream that keeps it up to date."""
