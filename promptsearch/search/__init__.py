"""What a strategy author meets: Objective, Strategy, the loop, training, the race, pools, proposers.

Touch it to change what strategies may ask, and what they are charged for it.
"""
