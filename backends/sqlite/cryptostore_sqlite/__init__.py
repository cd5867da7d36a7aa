"""The SQLite backend of matrix-cryptostore, and the one to copy when writing another.

Read it in this order: `plugin` says what there is; `backend` and `store` implement the interface; `accounts`,
`statements` and `columns` turn records into SQL and back; `connections` owns transactions and locks; `schema` makes the
tables; `files` and `opened` look after what stands on the disk; `errors` says what can go wrong.
"""
