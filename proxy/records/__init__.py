"""What is written down about connections and requests: logs for people and machines, counters."""
