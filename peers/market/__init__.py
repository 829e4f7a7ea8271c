"""A model for sale: encrypted, published with its manifest, held, bought, opened, served (protocol §10, decision 0028)."""
