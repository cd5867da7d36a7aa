"""The SQLite backend of matrix-cryptostore, and the one to copy when writing another.

Read it in this order: `plugin` says what there is; `database` implements the interface; `connections` owns transactions
and locks; `connecting` makes one connection, `opening` the first; `schema` makes the tables; `errors` says what can go
wrong. `files` and `opened` look after the file on the disk; `checks`, `mounts` and `write_ahead_log` refuse a file that
would lose data.
"""
