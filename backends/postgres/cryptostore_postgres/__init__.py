"""The PostgreSQL backend of matrix-cryptostore."""
