"""How `check.py` judges an exercise.

exercises: what is asked, and with which numbers. hooks: a look at each assignment of a function. running: the learner's
functions at work. verdict: each gradient against the complex step. findings: what is wrong in general. mistakes: wrong lines
that people write.
"""
