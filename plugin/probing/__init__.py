"""The whole path to a service by hand: from the command line through the gateway, and beside it."""
