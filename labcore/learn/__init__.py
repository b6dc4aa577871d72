"""What makes it a book: exercises that diagnose, claims that cannot rot, quizzes, widgets, figures.

Notebooks take everything from `labcore.learn.notebook`. Importing this package imports nothing else.
"""
