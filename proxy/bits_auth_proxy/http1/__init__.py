"""HTTP/1.1 (RFC 9112) without I/O: heads, body framing, serialising.

llhttp, through httptools, judges the syntax of heads and of chunked bodies. What it can't be told (a
response to HEAD, a body behind an Upgrade, an end at EOF) never reaches it: every head gets a parser of
its own that is fed exactly that head, and the framing of what follows is decided here.
"""
