"""What is searched over: the kinds of prompts, the space of hard ones, their JSON.

Touch it to add a kind of prompt.
"""
