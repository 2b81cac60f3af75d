"""Floods with legitimate traffic going on: nothing is lost, and nothing is left behind."""
