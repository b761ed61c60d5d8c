"""What the author of a strategy meets: objective, strategy, loop, training, race, pools, proposers.

Touch it to change what strategies may ask, and what they are charged for it.
"""
