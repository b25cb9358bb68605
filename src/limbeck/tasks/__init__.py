"""How a batch meets the networks: vision, text and search."""
