"""HTTP/1.1 (RFC 9112) without I/O: heads, body framing, serialising.

llhttp, through httptools, checks the syntax of heads and of chunked bodies. It can't be made to handle a
response to HEAD, a body after an Upgrade, or a body that ends at EOF. So it never gets these: every head has
a parser of its own, which is fed exactly that head, and the framing of what follows is decided here.
"""
