"""The data path: from a client's connection to the Bits API and back.

What is done per request is synchronous: with a token in hand and an idle connection in the pool, no
task, future or timer is made. Everything that must wait is a state of the exchange, and one coarse
ticker keeps all deadlines.
"""
