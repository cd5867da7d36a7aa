"""The SQLite backend of matrix-cryptostore, and the one to copy when writing another.

Read it in this order: `plugin` says what there is, `backend` and `store` implement the interface, `statements` and
`columns` turn records into SQL and back, `connections` owns transactions and locks, `schema` the tables, `files` what
stands on the disk, `errors` what can go wrong.
"""
