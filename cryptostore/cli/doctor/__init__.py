"""`cryptostore doctor`: everything that can be wrong, looked at in one go."""
