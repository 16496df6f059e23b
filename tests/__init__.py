"""The tests, and programs that make tables of the book: trials, mutants, doubled runs."""

import os

# Small networks leave a second thread nothing to do, and on a busy machine threads that wait for
# one another take many times as long. torch reads this when it is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")
