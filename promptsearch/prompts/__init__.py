"""What is searched over: the kinds of prompts, the space of hard prompts, and their JSON.

Touch it to add a kind of prompt.
"""
