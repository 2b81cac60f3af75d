"""What config entries would change that are not written yet: pure, from the state in force."""
