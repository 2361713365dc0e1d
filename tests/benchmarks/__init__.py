"""`make bench`: Layover and nginx side by side on this machine, the same work in turn, medians and ratios.

Every server is a process of its own. Numbers of one run compare with each other, never with those of another machine.
"""
