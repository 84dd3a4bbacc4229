"""The data path: from a client's connection to the Bits API and back.

The work for a request is synchronous: with a token in hand and an idle connection in the pool, it creates no
task, future or timer. Every wait is a state of the exchange, and one coarse ticker checks all deadlines.
"""
