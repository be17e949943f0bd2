"""Networks that the harness makes itself: random weights, real architectures, real exporters."""
