"""Messages that servers have disagreed about: the gateway refuses them, or says what every back end sees."""
