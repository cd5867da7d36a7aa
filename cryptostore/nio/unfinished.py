"""The mark on an account whose import was interrupted."""

from __future__ import annotations

from typing import Final

from cryptostore.records import Value

#: Stored before anything else of an import, and deleted in the batch that brings the Olm account. A client must not
#: open a marked account: it would find no Olm account, and give a known device a new identity.
UNFINISHED_IMPORT: Final = Value("cryptostore.import", "unfinished", b"")
