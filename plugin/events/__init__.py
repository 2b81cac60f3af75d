"""What has changed lately, and in which words: a bounded list in the memory of the control process."""
