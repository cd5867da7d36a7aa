"""A worked example of a backend: Matrix keys in RocksDB, an embedded ordered key-value engine.

Read it in this order: `plugin` says what there is; `database` implements the interface; `engine`
owns the open RocksDB; `schema` guards its format; `errors` says what can go wrong.
"""
