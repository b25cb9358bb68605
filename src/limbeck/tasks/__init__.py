"""How a batch meets the networks: vision and text."""
