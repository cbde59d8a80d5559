"""SQL on a Fluence database over HTTP, and proof files checked.

`connect` gives a `Client`: `query`, `stream`, `transaction`, `copy`. `verify_proof_file` needs the extra `verify`.
"""

from .client import Client, Stream, Transaction, connect
from .errors import Conflict, FluenceError, ProofRefused, SqlError
from .proof import Proven, RangeSum, Storage, verify_proof_file
from .values import Column, Result, Value, Verified

__all__ = [
    "Client",
    "Column",
    "Conflict",
    "FluenceError",
    "ProofRefused",
    "Proven",
    "RangeSum",
    "Result",
    "SqlError",
    "Storage",
    "Stream",
    "Transaction",
    "Value",
    "Verified",
    "connect",
    "verify_proof_file",
]
