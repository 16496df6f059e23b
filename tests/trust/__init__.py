"""What the page *How it is tested* counts: nonsense calls, damage, kills, runs at once.

A trial is a function of a random number generator and a folder. It returns what went wrong, a
sentence each; none is good. The test suite makes a few trials, ``make trust`` as many as the page
says.
"""
