"""Hostile peers against the real `balm up` and against a function's own executable: whatever they send, keep open or leave unread, memory and
descriptors stay bounded and others are served meanwhile; nothing runs that should have been refused.

The parts are in hostile_*.py beside this.
"""
import random

import hostile_connections
import hostile_exhaustion
import hostile_http2
import hostile_login
import hostile_shapes
from hostile_peers import Function, Up, raise_descriptors

NAME = "hostile"
FUNCTION_LIMIT_S = 4  # its read_timeout and write_timeout here; the platform's are 10 s and 30 s
PLATFORM_LIMIT_S = 10


def campaign(scale, seed, table):
    is_whole, rng = scale == "whole", random.Random(seed)
    raise_descriptors()
    with Function(read_timeout=f"{FUNCTION_LIMIT_S}s", write_timeout=f"{FUNCTION_LIMIT_S}s") as target:
        hostile_connections.attack(table, target, FUNCTION_LIMIT_S, is_whole, rng, "/")
    with Function(read_timeout="1s", write_timeout="4s") as target:
        hostile_shapes.attack(table, target, rng, 3000 if is_whole else 150)
    with Function(read_timeout=f"{FUNCTION_LIMIT_S}s", write_timeout=f"{FUNCTION_LIMIT_S}s", http2="true") as target:
        hostile_http2.attack(table, target, FUNCTION_LIMIT_S, is_whole, rng)
    with Up() as target:
        hostile_connections.attack(table, target, PLATFORM_LIMIT_S, is_whole, rng, "/function/echo")
    with Up() as target:
        hostile_login.attack(table, target, is_whole, rng)
        hostile_shapes.attack(table, target, rng, 500 if is_whole else 30)
    hostile_exhaustion.attack(table, is_whole, rng)
