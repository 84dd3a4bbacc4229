"""HTTP/1.1 (RFC 9112) without I/O: heads, body framing, serialising.

There is one reader for heads and one for chunked bodies. Both are strict, and give a message the same meaning
however its bytes are split. The tests compare them with llhttp.
"""
