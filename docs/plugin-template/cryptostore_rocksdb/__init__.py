"""A worked example of a backend: Matrix keys in RocksDB, an embedded ordered key-value engine.

Read it in this order: `plugin` says what there is; `backend` and `store` implement the interface; `accounts` says who
owns an account; `keys` and `values` turn records into bytes and back; `database` owns the open database; `schema`
guards its format; `errors` says what can go wrong.
"""
