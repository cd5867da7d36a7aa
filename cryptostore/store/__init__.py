"""The waist: what a backend writes (`interface`), and the core that stands on it."""
