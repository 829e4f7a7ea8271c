"""A model for sale: encrypted, published with its manifest, held, bought, opened, served (protocol §8.9–8.11, decision 0028)."""
