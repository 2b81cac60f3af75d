"""What operators ask a running gateway, gathered from its parts at that moment."""
