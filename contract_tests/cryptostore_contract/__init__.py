"""The contract test suite of matrix-cryptostore."""
