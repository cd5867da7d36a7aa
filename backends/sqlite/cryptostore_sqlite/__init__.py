"""The SQLite backend of matrix-cryptostore, and the one to copy when writing another.

Read it in this order: `plugin` says what there is; `database` implements the interface; `connections` owns transactions
and locks; `schema` makes the tables; `files` and `opened` look after the files on the disk; `errors` says what can go
wrong.
"""
