"""Where the cells of a study are computed: here in one process, one after the other.

Touch it to spread them over processes or machines. A cell needs its folder and the score cache, and
its numbers do not depend on where it is computed.
"""
