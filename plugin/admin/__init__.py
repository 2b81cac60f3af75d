"""What operators, Prometheus and the command line ask a running gateway, over HTTP on loopback."""
