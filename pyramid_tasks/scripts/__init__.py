"""``ptasks``, beside the scripts of Pyramid."""
